"""``dockwarden gate``: ask a server whether an image may be shipped."""

from __future__ import annotations

import json
from pathlib import Path

import click

from scanner.commands._console import FILE, Exit, pass_settings, read, server_options, tell, write
from scanner.config import Settings
from scanner.model.reference import Reference


@click.command()
@click.argument("image")
@server_options("gate")
@click.option("--wait", default=600, show_default=True, metavar="SECONDS", help="Time to wait for a pending scan.")
@click.option(
    "--workload",
    "workload_file",
    type=FILE,
    help="Workload that runs the image (any TARGET of 'audit'), included in the verdict.",
)
@click.option("--environment", default="", help="Environment in which the image will run; selects policies.")
@click.option("--format", "format_", default="table", show_default=True, type=click.Choice(["table", "json"]))
@click.option("--all", "show_all", is_flag=True, help="Show all reasons and changes instead of the first ones.")
@pass_settings
def gate(
    settings: Settings,
    image: str,
    server: str | None,
    token: str | None,
    ca_file: Path | None,
    wait: int,
    workload_file: Path | None,
    environment: str,
    format_: str,
    show_all: bool,
) -> Exit:
    """Ask a server whether IMAGE may be shipped.

    IMAGE: host/repo:tag or host/repo@sha256:…
    """
    from scanner.commands import _client

    Reference.parse(image)  # report a malformed name before contacting the server
    workload = read(workload_file, "the workload") if workload_file else None
    client = _client.of(settings, server, token, ca_file)
    answer = client.gate(image, environment=environment, workload=workload, wait=wait, progress=tell)
    text = json.dumps(answer.document, indent=2) if format_ == "json" else _client.describe(answer, show_all=show_all)
    write(text, None)
    if answer.pending:
        return Exit.PENDING
    return Exit.OK if answer.verdict in ("allow", "warn") else Exit.UNDECIDED if answer.undecided else Exit.DENIED
