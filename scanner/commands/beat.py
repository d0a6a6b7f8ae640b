"""``dockwarden beat``: the scheduler of the distributed form."""

from __future__ import annotations

import click

from scanner.commands._console import pass_settings
from scanner.config import Settings


@click.command()
@pass_settings
def beat(settings: Settings) -> None:
    """Run the scheduler."""
    from scanner.worker.supervisor import run_beat

    run_beat(settings)
