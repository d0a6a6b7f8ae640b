"""``dockwarden break-glass``: let a digest through in an emergency."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import click

from scanner.commands._console import pass_settings, server_options, tell
from scanner.config import Settings
from scanner.errors import UsageError
from scanner.model.untrusted import clean_text


@click.group("break-glass")
def break_glass() -> None:
    """Let a digest through in an emergency: for named persons, with a reason, for hours."""


@break_glass.command("open")
@click.argument("digest")
@click.option("--reason", required=True, help="Reason; shown with every decision that it changes.")
@click.option(
    "--hours", type=click.FloatRange(0, 4, min_open=True), default=1.0, show_default=True, help="Hours until it ends."
)
@server_options("gate")
@pass_settings
def open_(
    settings: Settings,
    digest: str,
    reason: str,
    hours: float,
    server: str | None,
    token: str | None,
    ca_file: Path | None,
) -> None:
    """Let the image DIGEST (sha256:…) through, although a policy denies it.

    The token must be your own, and the server's setting DOCKWARDEN_BREAK_GLASS must name you.
    """
    body = {"digest": digest, "reason": reason, "hours": hours}
    _, found = _client(settings, server, token, ca_file).post("/api/v1/break-glass", body)
    tell(f"{digest} is let through until {_text(found, 'until')}; end it with: break-glass end {_text(found, 'id')}")


@break_glass.command("list")
@server_options("gate")
@pass_settings
def list_overrides(settings: Settings, server: str | None, token: str | None, ca_file: Path | None) -> None:
    """List what was let through, newest first."""
    from scanner.commands._client import objects

    found = objects(_client(settings, server, token, ca_file).get("/api/v1/break-glass", {}).get("items"))
    if not found:
        tell("no digest was let through yet")
    for each in found:
        state = "open" if each.get("active") else "ended"
        when = f"{_text(each, 'opened_by')}, until {_text(each, 'until')}"
        click.echo(f"{_text(each, 'id')}  {state:5}  {_text(each, 'digest')}  {when}: {_text(each, 'reason')}")


@break_glass.command("end")
@click.argument("identifier", metavar="ID")
@server_options("gate")
@pass_settings
def end(settings: Settings, identifier: str, server: str | None, token: str | None, ca_file: Path | None) -> None:
    """End the break-glass with this ID before its time. 'list' shows the IDs."""
    try:
        known = UUID(identifier)
    except ValueError:
        raise UsageError(f"not an ID: {identifier[:64]!r}", hint="list them: dockwarden break-glass list") from None
    client = _client(settings, server, token, ca_file)
    _, found = client.post(f"/api/v1/break-glass/{known}/end", {})
    tell(f"{_text(found, 'digest')} is not let through any more")


def _client(settings: Settings, server: str | None, token: str | None, ca_file: Path | None) -> Any:
    from scanner.commands import _client

    return _client.of(settings, server, token, ca_file)


def _text(found: Any, name: str) -> str:
    return clean_text(str(found.get(name, "")), 500)
