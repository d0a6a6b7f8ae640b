"""``dockwarden serve``: the server in one process tree."""

from __future__ import annotations

from dataclasses import replace

import click

from scanner.commands._console import pass_settings
from scanner.config import Settings


@click.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 for any that is free.")
@click.option("--web-only", is_flag=True, help="Only the web process: workers and beat run elsewhere.")
@pass_settings
def serve(settings: Settings, host: str | None, port: int | None, web_only: bool) -> None:
    """Run the server: web, workers and scheduler in one process tree.

    SIGTERM ends it when the requests in flight are answered. SIGHUP starts every process anew, as after an upgrade,
    and no connection is refused meanwhile.
    """
    from scanner.worker.supervisor import supervise

    port = settings.port if port is None else port
    supervise(replace(settings, host=host or settings.host, port=port), web_only=web_only)
