"""``dockwarden user``: local accounts, managed on the machine that the server runs on."""

from __future__ import annotations

import click

from scanner.commands._console import administration, pass_settings, prompt_secret, tell
from scanner.config import Settings
from scanner.model.access import CONFINED, ROLES
from scanner.model.actor import COMMAND_LINE
from scanner.services import accounts as use_cases
from scanner.store import accounts


@click.group()
def user() -> None:
    """Local user accounts: add, list, password, disable."""


@user.command("add")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(list(ROLES)),
    default="viewer",
    show_default=True,
    help="viewer reads; developer also scans and requests exemptions; security also approves; admin does everything.",
)
@click.option(
    "--project",
    "names",
    multiple=True,
    help="Project of the user (may be repeated). Viewers and developers see only their projects.",
)
@click.option(
    "--password",
    envvar="DOCKWARDEN_PASSWORD",
    help="Better: DOCKWARDEN_PASSWORD, or the prompt. Other users of this machine can see a command line.",
)
@pass_settings
def add(settings: Settings, name: str, role: str, names: tuple[str, ...], password: str | None) -> None:
    """Add a local user who signs in with a password."""
    password = password if password is not None else prompt_secret("Password", twice=True)
    with administration(settings) as session:
        use_cases.create_user(session, COMMAND_LINE, name, password, role, names)
    seen = ", ".join(names) or "no project yet" if role in CONFINED else "every project"
    tell(f"user {name!r} can sign in as {role} and sees {seen}")
    if role in CONFINED and not names:
        tell(f"  hint: dockwarden project member PROJECT {name}")


@user.command("list")
@pass_settings
def list_users(settings: Settings) -> None:
    """List users with their role, last sign-in and projects."""
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
@click.option(
    "--password",
    envvar="DOCKWARDEN_PASSWORD",
    help="Better: DOCKWARDEN_PASSWORD, or the prompt. Other users of this machine can see a command line.",
)
@pass_settings
def password(settings: Settings, name: str, password: str | None) -> None:
    """Change a user's password and end their sessions."""
    password = password if password is not None else prompt_secret("Password", twice=True)
    with administration(settings) as session:
        use_cases.set_password(session, COMMAND_LINE, use_cases.user_by_name(session, name).id, password)
    tell(f"user {name!r} has a new password; all their sessions are ended")


@user.command("disable")
@click.argument("name")
@pass_settings
def disable(settings: Settings, name: str) -> None:
    """Disable a user: end their sessions, revoke their tokens, refuse new sign-ins."""
    with administration(settings) as session:
        use_cases.set_disabled(session, COMMAND_LINE, use_cases.user_by_name(session, name).id, True)
    tell(f"user {name!r} is disabled; their sessions and tokens are no longer valid")
