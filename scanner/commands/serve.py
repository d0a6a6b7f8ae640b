"""``dockwarden serve``: run web, workers and scheduler in one process tree."""

from __future__ import annotations

import signal
from dataclasses import replace

import click

from scanner.commands._console import pass_settings
from scanner.config import Settings


@click.command()
@click.option("--host", help="Address to listen on. Default: DOCKWARDEN_HOST, 127.0.0.1.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 selects a free port. Default: DOCKWARDEN_PORT, 8080.",
)
@click.option("--web-only", is_flag=True, help="Run only the web process; workers and beat run elsewhere.")
@pass_settings
def serve(settings: Settings, host: str | None, port: int | None, web_only: bool) -> None:
    """Run the server: web, workers and scheduler in one process tree.

    SIGTERM stops the server after the requests in progress are answered. SIGHUP restarts every process, for example
    after an upgrade, without refusing connections.
    """
    # Until the process tree handles it: a reload right after the start would end the server.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from scanner.worker.supervisor import supervise

    port = settings.port if port is None else port
    supervise(replace(settings, host=host or settings.host, port=port), web_only=web_only)
