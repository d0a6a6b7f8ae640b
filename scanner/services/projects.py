"""Projects: who may name one, what one owns, and who is a member. Only an actor who sees every project changes any."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.errors import NotFoundError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.services import _fields as fields
from scanner.store import accounts, audit, gate, projects

PATTERN = r"^[a-z0-9][a-z0-9._:-]*/[a-z0-9*._/-]+$"  # host/repository, with * and **
PATTERN_SHORTEST, PATTERN_LENGTH, PATTERNS_MOST = 3, 300, 100
GROUP_LENGTH, GROUPS_MOST = 200, 50
DESCRIPTION_LENGTH = 400
_CHANGEABLE = ("description", "patterns", "groups", "engine")


def named(session: Connection, actor: Actor, name: str) -> str:
    """The name of a project that the actor sees.

    Raises NotFoundError for one that does not exist and for another's, alike.
    """
    actor.require_project(name)
    if not projects.exists(session, name):
        raise NotFoundError("there is no such project", field="project")
    return name


def create(
    session: Connection,
    actor: Actor,
    name: str,
    *,
    description: str = "",
    patterns: Sequence[str] = (),
    groups: Sequence[str] = (),
    engine: str = "",
) -> projects.ProjectView:
    """Add a project.

    Raises UsageError naming the field, ConflictError for a name or a pattern that is taken, RefusedError.
    """
    actor.require_every_project()
    hint = "lower-case letters, digits, and . _ - between them"
    fields.matching("name", name, fields.NAME, fields.NAME_LENGTH, hint)
    _check(description, patterns, groups, engine)
    project = projects.create(session, name, description=description, patterns=patterns, groups=groups, engine=engine)
    if project.patterns:
        gate.invalidate(session)
    detail = {"patterns": list(project.patterns), "groups": list(project.groups)}
    audit.record(session, actor, Action.PROJECT_CREATE, project.name, detail=detail)
    return project


def change(
    session: Connection,
    actor: Actor,
    name: str,
    *,
    description: str | None = None,
    patterns: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    engine: str | None = None,
) -> projects.ProjectView:
    """Change what is given.

    Images whose repository comes to belong to another project move to it. Raises as `create`.
    """
    actor.require_every_project()
    _check(description or "", patterns or (), groups or (), engine or "")
    before = projects.get(session, name)
    project = projects.update(session, name, description=description, patterns=patterns, groups=groups, engine=engine)
    if project.patterns != before.patterns:
        gate.invalidate(session)
    detail = {
        member: {"before": getattr(before, member), "after": getattr(project, member)}
        for member in _CHANGEABLE
        if getattr(before, member) != getattr(project, member)
    }
    audit.record(session, actor, Action.PROJECT_CHANGE, name, detail=detail)
    return project


def add_member(session: Connection, actor: Actor, name: str, user_id: str) -> None:
    """Make a user a member. Raises NotFoundError, RefusedError."""
    actor.require_every_project()
    user = accounts.get_user(session, user_id)
    projects.add_member(session, name, user.id)
    detail = {"user": user.id, "name": user.name}
    audit.record(session, actor, Action.PROJECT_MEMBER_ADD, name, detail=detail)


def remove_member(session: Connection, actor: Actor, name: str, user_id: str) -> None:
    """Take a user out, effective at once, also for the user's tokens. Raises NotFoundError, RefusedError."""
    actor.require_every_project()
    member = next((member for member in projects.members(session, name) if member.user_id == user_id), None)
    projects.remove_member(session, name, user_id)
    detail = {"user": user_id, "name": member.name if member else ""}
    audit.record(session, actor, Action.PROJECT_MEMBER_REMOVE, name, detail=detail)


def engine_for(session: Connection, project: str, default: str) -> str:
    """The engine of a project's scans that name none: the project's choice, else the server's (``default``)."""
    return projects.engine_of(session, project) or default


def check_engine(engine: str, field: str = "engine") -> str:
    """An engine that a scan may name, or nothing. Raises UsageError."""
    if engine and engine not in catalog.engine_choices():
        hint = "one of " + ", ".join(catalog.engine_choices())
        raise fields.invalid(field, f"there is no engine {engine[:64]!r}", hint)
    return engine


def _check(description: str, patterns: Sequence[str], groups: Sequence[str], engine: str) -> None:
    fields.text("description", description, DESCRIPTION_LENGTH)
    for pattern in fields.at_most("patterns", patterns, PATTERNS_MOST):
        fields.pattern_of_names("patterns", pattern, PATTERN, PATTERN_LENGTH)
    for group in fields.at_most("groups", groups, GROUPS_MOST):
        fields.text("groups", group, GROUP_LENGTH, shortest=1)
    check_engine(engine)
