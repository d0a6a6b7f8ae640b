"""``dockwarden beat``: the Celery scheduler, for installations with several processes or machines."""

from __future__ import annotations

import click

from scanner.commands._console import pass_settings
from scanner.config import Settings


@click.command()
@pass_settings
def beat(settings: Settings) -> None:
    """Run the scheduler (Celery beat) of a distributed installation."""
    from scanner.worker.supervisor import run_beat

    run_beat(settings)
