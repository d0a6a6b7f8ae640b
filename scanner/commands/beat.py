"""``dockwarden beat``: the Celery scheduler, for installations with several processes or machines."""

from __future__ import annotations

import click

from scanner.commands._console import pass_settings
from scanner.config import Settings
from scanner.errors import UsageError


@click.command()
@pass_settings
def beat(settings: Settings) -> None:
    """Run the scheduler (Celery beat) of a distributed installation."""
    if not settings.broker_url:
        hint = "set DOCKWARDEN_BROKER_URL; without a broker, 'serve' and 'worker' need no scheduler"
        raise UsageError("the scheduler needs a broker", hint=hint)
    from scanner.worker.supervisor import run_beat

    run_beat(settings)
