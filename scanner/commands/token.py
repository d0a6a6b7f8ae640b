"""``dockwarden token``: create, list and revoke API tokens."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from scanner.commands._console import administration, pass_settings, tell
from scanner.config import Settings, secret_key
from scanner.errors import NotFoundError
from scanner.model.access import PURPOSES, SCOPES
from scanner.model.actor import COMMAND_LINE
from scanner.services import tokens as use_cases
from scanner.store import accounts


@click.group()
def token() -> None:
    """API tokens: create, list, revoke."""


@token.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    default=("gate",),
    show_default=True,
    help="What the token may do (may be repeated). " + "; ".join(f"{s}: {p}" for s, p in PURPOSES.items()) + ".",
)
@click.option(
    "--project", "names", multiple=True, help="Project that the token can see (may be repeated). Default: all."
)
@click.option(
    "--days",
    default=90,
    show_default=True,
    type=click.IntRange(1, use_cases.MOST_DAYS),
    help="Lifetime of the token.",
)
@pass_settings
def create(settings: Settings, name: str, scopes: tuple[str, ...], names: tuple[str, ...], days: int) -> None:
    """Create a token. It is printed to stdout once; messages go to stderr."""
    with administration(settings) as session:
        view, text = use_cases.create(
            session, COMMAND_LINE, secret_key(settings), name, scopes, project_names=names, days=days
        )
    seen = ", ".join(names) or "every project"
    tell(
        f"token {name!r} for {', '.join(scopes)} in {seen}, valid until {view.expires_at:%Y-%m-%d}; it is not "
        "shown again:"
    )
    click.echo(text.reveal())


@token.command("list")
@pass_settings
def list_tokens(settings: Settings) -> None:
    """List tokens. Secrets are not shown."""
    with administration(settings) as session:
        found = accounts.list_tokens(session)
    now = datetime.now(UTC)
    for view in found:
        dead = "revoked" if view.revoked_at else "expired" if view.expires_at and view.expires_at <= now else ""
        ends = dead or (f"until {view.expires_at:%Y-%m-%d}" if view.expires_at else "never expires")
        used = f"used {view.last_used_at:%Y-%m-%d %H:%M}" if view.last_used_at else "never used"
        seen = ", ".join(view.projects) or "every project"
        click.echo(f"dw_{view.prefix}_…  {view.name:24} {ends:17} {used:21} {','.join(view.scopes)} in {seen}")
    if not found:
        tell("there are no tokens yet: dockwarden token create NAME")


@token.command("revoke")
@click.argument("prefix")
@pass_settings
def revoke(settings: Settings, prefix: str) -> None:
    """Revoke the token that begins with PREFIX (such as dw_1234abcd). It is refused from now on."""
    short = prefix.removeprefix("dw_").partition("_")[0]
    with administration(settings) as session:
        found = [view for view in accounts.list_tokens(session) if view.prefix == short]
        if not found:
            raise NotFoundError(f"no token begins with {prefix[:11]!r}", hint="dockwarden token list")
        for view in found:
            use_cases.revoke(session, COMMAND_LINE, view.id)
    tell(f"token {found[0].name!r} is revoked")
