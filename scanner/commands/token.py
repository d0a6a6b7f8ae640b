"""``dockwarden token``: API tokens, whose text is printed once."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from scanner.commands._console import administration, pass_settings, tell
from scanner.config import Settings, secret_key
from scanner.errors import NotFoundError
from scanner.model.access import SCOPES
from scanner.model.actor import COMMAND_LINE
from scanner.services import tokens as use_cases
from scanner.store import accounts


@click.group()
def token() -> None:
    """API tokens."""


@token.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), default=("gate",), show_default=True)
@click.option("--project", "names", multiple=True, help="Only these projects; all without.")
@click.option(
    "--days",
    default=90,
    show_default=True,
    type=click.IntRange(1, use_cases.MOST_DAYS),
    help="How long it is good for.",
)
@pass_settings
def create(settings: Settings, name: str, scopes: tuple[str, ...], names: tuple[str, ...], days: int) -> None:
    """Create a token and print it, once. It goes to stdout, what is said about it to stderr."""
    with administration(settings) as session:
        view, text = use_cases.create(
            session, COMMAND_LINE, secret_key(settings), name, scopes, project_names=names, days=days
        )
    seen = ", ".join(names) or "every project"
    tell(
        f"token {name!r} for {', '.join(scopes)} in {seen}, good until {view.expires_at:%Y-%m-%d}; it is not "
        "shown again:"
    )
    click.echo(text.reveal())


@token.command("list")
@pass_settings
def list_(settings: Settings) -> None:
    """Every token, without its secret."""
    with administration(settings) as session:
        found = accounts.list_tokens(session)
    now = datetime.now(UTC)
    for view in found:
        dead = "revoked" if view.revoked_at else "expired" if view.expires_at and view.expires_at <= now else ""
        ends = dead or (f"until {view.expires_at:%Y-%m-%d}" if view.expires_at else "without end")
        used = f"used {view.last_used_at:%Y-%m-%d %H:%M}" if view.last_used_at else "never used"
        seen = ", ".join(view.projects) or "every project"
        click.echo(f"dw_{view.prefix}_…  {view.name:24} {ends:17} {used:21} {','.join(view.scopes)} in {seen}")
    if not found:
        tell("there are no tokens yet: dockwarden token create NAME")


@token.command("revoke")
@click.argument("prefix")
@pass_settings
def revoke(settings: Settings, prefix: str) -> None:
    """Revoke the token that begins with PREFIX (dw_1234abcd), at once."""
    short = prefix.removeprefix("dw_").partition("_")[0]
    with administration(settings) as session:
        found = [view for view in accounts.list_tokens(session) if view.prefix == short]
        if not found:
            raise NotFoundError(f"no token begins with {prefix[:11]!r}", hint="dockwarden token list")
        for view in found:
            use_cases.revoke(session, COMMAND_LINE, view.id)
    tell(f"token {found[0].name!r} is revoked")
