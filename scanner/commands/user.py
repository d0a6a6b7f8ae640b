"""``dockwarden user``: people who sign in with a password, from the machine that the server runs on."""

from __future__ import annotations

import click

from scanner.commands._console import administration, pass_settings, tell
from scanner.config import Settings
from scanner.model.access import CONFINED, ROLES
from scanner.model.actor import COMMAND_LINE
from scanner.services import accounts as use_cases
from scanner.store import accounts


@click.group()
def user() -> None:
    """Accounts."""


@user.command("add")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(list(ROLES)),
    default="viewer",
    show_default=True,
    help="What they may: see; also scan and ask for exemptions; also policies and approvals; everything.",
)
@click.option(
    "--project", "names", multiple=True, help="A project to be a member of. Viewers and developers see no other."
)
@click.password_option(envvar="DOCKWARDEN_PASSWORD", help="Asked for when it is not in DOCKWARDEN_PASSWORD.")
@pass_settings
def add(settings: Settings, name: str, role: str, names: tuple[str, ...], password: str) -> None:
    """Add a local user who signs in with a password."""
    with administration(settings) as session:
        use_cases.create_user(session, COMMAND_LINE, name, password, role, names)
    seen = ", ".join(names) or "no project yet" if role in CONFINED else "every project"
    tell(f"user {name!r} may sign in as {role}, and sees {seen}")
    if role in CONFINED and not names:
        tell(f"  hint: dockwarden project member PROJECT {name}")


@user.command("list")
@pass_settings
def list_(settings: Settings) -> None:
    """Who may sign in, and what they see."""
    with administration(settings) as session:
        found = accounts.list_users(session)
    for view in found:
        seen = "every project" if view.reach is None else ", ".join(view.projects) or "no project"
        last = f"{view.signed_in_at:%Y-%m-%d %H:%M}" if view.signed_in_at else "never"
        state = " (disabled)" if view.disabled else ""
        click.echo(f"{view.name:24} {view.role:10} last signed in {last:17} sees {seen}{state}")
    if not found:
        tell("there are no users yet: dockwarden user add NAME --role admin")


@user.command("password")
@click.argument("name")
@click.password_option(envvar="DOCKWARDEN_PASSWORD", help="Asked for when it is not in DOCKWARDEN_PASSWORD.")
@pass_settings
def password(settings: Settings, name: str, password: str) -> None:
    """Give a user another password, and sign them out everywhere."""
    with administration(settings) as session:
        use_cases.set_password(session, COMMAND_LINE, use_cases.named(session, name).id, password)
    tell(f"user {name!r} has a new password, and is signed out everywhere")


@user.command("disable")
@click.argument("name")
@pass_settings
def disable(settings: Settings, name: str) -> None:
    """End a user's sessions and tokens at once, and let them in no more."""
    with administration(settings) as session:
        use_cases.set_disabled(session, COMMAND_LINE, use_cases.named(session, name).id, True)
    tell(f"user {name!r} may not sign in any more; their tokens are dead")
