"""``dockwarden worker``: a Celery worker of a distributed installation."""

from __future__ import annotations

from dataclasses import replace

import click

from scanner.commands._console import pass_settings
from scanner.config import NOTIFY, Settings
from scanner.errors import UsageError
from scanner.model.scan import Lane


@click.command()
@click.option(
    "--lanes", default="gate,push,background,notify", show_default=True, help="Lanes to work on, separated by commas."
)
@pass_settings
def worker(settings: Settings, lanes: str) -> None:
    """Run a worker of a distributed installation: it scans, re-matches and sends notifications."""
    from scanner.worker.supervisor import run_worker

    names = tuple(lane.strip() for lane in lanes.split(",") if lane.strip())
    if unknown := [name for name in names if name not in (*Lane, NOTIFY)]:
        raise UsageError(f"--lanes: there is no lane {unknown[0]!r}", hint=f"choose from: {', '.join((*Lane, NOTIFY))}")
    if not names:
        raise UsageError("--lanes names no lane", hint=f"choose from: {', '.join((*Lane, NOTIFY))}")
    run_worker(replace(settings, lanes=names))
