"""``dockwarden project``: projects, their repositories and members."""

from __future__ import annotations

import click

from scanner.commands._console import administration, pass_settings, tell
from scanner.config import Settings
from scanner.model.actor import COMMAND_LINE
from scanner.services import accounts as account_use_cases
from scanner.services import projects as use_cases
from scanner.store import projects


@click.group()
def project() -> None:
    """Projects: repositories and the users who can see them."""


@project.command("create")
@click.argument("name")
@click.option(
    "--pattern",
    "patterns",
    multiple=True,
    help="Repository pattern of the project, such as registry.example.com/shop/**.",
)
@click.option("--group", "groups", multiple=True, help="Group of the identity provider whose users are members.")
@click.option("--description", default="", help="Description of the project.")
@pass_settings
def create(settings: Settings, name: str, patterns: tuple[str, ...], groups: tuple[str, ...], description: str) -> None:
    """Add a project."""
    with administration(settings) as session:
        use_cases.create(session, COMMAND_LINE, name, description=description, patterns=patterns, groups=groups)
    tell(f"project {name!r} owns {', '.join(patterns) or 'no repository yet'}")


@project.command("list")
@pass_settings
def list_projects(settings: Settings) -> None:
    """List projects with their repositories and members."""
    with administration(settings) as session:
        for view in projects.list_projects(session, None):
            people = ", ".join(member.name for member in projects.members(session, view.name))
            click.echo(f"{view.name:24} {', '.join(view.patterns) or '-':40} members: {people or '-'}")


@project.command("member")
@click.argument("name")
@click.argument("user")
@click.option("--remove", is_flag=True, help="Remove the user from the project.")
@pass_settings
def member(settings: Settings, name: str, user: str, remove: bool) -> None:
    """Add USER to the project NAME, or remove them."""
    with administration(settings) as session:
        found = account_use_cases.user_by_name(session, user)
        if remove:
            use_cases.remove_member(session, COMMAND_LINE, name, found.id)
        else:
            use_cases.add_member(session, COMMAND_LINE, name, found.id)
    tell(f"{user!r} is {'no longer' if remove else 'now'} a member of {name!r}")
