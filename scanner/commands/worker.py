"""``dockwarden worker``: a Celery worker of a distributed installation."""

from __future__ import annotations

from dataclasses import replace

import click

from scanner.commands._console import pass_settings
from scanner.config import Settings


@click.command()
@click.option(
    "--lanes", default="gate,push,background,notify", show_default=True, help="Queues to work on, separated by commas."
)
@pass_settings
def worker(settings: Settings, lanes: str) -> None:
    """Run a Celery worker."""
    from scanner.worker.supervisor import run_worker

    names = tuple(lane.strip() for lane in lanes.split(",") if lane.strip())
    run_worker(replace(settings, lanes=names))
