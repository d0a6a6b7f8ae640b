"""``dockwarden project``: what belongs together, and who sees it."""

from __future__ import annotations

import click

from scanner.commands._console import administration, pass_settings, tell
from scanner.config import Settings
from scanner.errors import NotFoundError
from scanner.model.actor import COMMAND_LINE
from scanner.model.audit import Action
from scanner.store import accounts, audit, gate, projects


@click.group()
def project() -> None:
    """Projects: who sees what."""


@project.command("create")
@click.argument("name")
@click.option("--pattern", "patterns", multiple=True, help="A repository it owns: registry.example.com/shop/**")
@click.option("--group", "groups", multiple=True, help="A group of the identity provider whose people are members.")
@click.option("--description", default="", help="What it is, for people.")
@pass_settings
def create(settings: Settings, name: str, patterns: tuple[str, ...], groups: tuple[str, ...], description: str) -> None:
    """Add a project."""
    with administration(settings) as session:
        projects.create(session, name, description=description, patterns=patterns, groups=groups)
        gate.invalidate(session)
        detail = {"patterns": list(patterns), "groups": list(groups)}
        audit.record(session, COMMAND_LINE, Action.PROJECT_CREATE, name, detail=detail)
    tell(f"project {name!r} owns {', '.join(patterns) or 'no repository yet'}")


@project.command("list")
@pass_settings
def list_(settings: Settings) -> None:
    """Projects, what they own, and their members."""
    with administration(settings) as session:
        for view in projects.list_(session, None):
            people = ", ".join(member.name for member in projects.members(session, view.name))
            click.echo(f"{view.name:24} {', '.join(view.patterns) or '-':40} members: {people or '-'}")


@project.command("member")
@click.argument("name")
@click.argument("user")
@click.option("--remove", is_flag=True, help="Take the user out.")
@pass_settings
def member(settings: Settings, name: str, user: str, remove: bool) -> None:
    """Make USER a member of the project NAME, or take them out."""
    with administration(settings) as session:
        found = accounts.find_user(session, user)
        if found is None:
            raise NotFoundError(f"there is no user {user!r}", hint="dockwarden user list")
        if remove:
            projects.remove_member(session, name, found.id)
        else:
            projects.add_member(session, name, found.id)
        action = Action.PROJECT_MEMBER_REMOVE if remove else Action.PROJECT_MEMBER_ADD
        audit.record(session, COMMAND_LINE, action, name, detail={"user": found.id, "name": user})
    tell(f"{user!r} is {'no longer' if remove else 'now'} a member of {name!r}")
