"""Projects: patterns of the repositories that they own, engine and members. Changes need access to every project."""

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
# Characters of a pattern, and patterns of a project.
PATTERN_SHORTEST, PATTERN_LENGTH, PATTERNS_MOST = 3, 300, 100
GROUP_LENGTH, GROUPS_MOST = 200, 50
DESCRIPTION_LENGTH = 400
_CHANGEABLE = ("description", "patterns", "groups", "engine")


def visible_name(session: Connection, actor: Actor, name: str) -> str:
    """Return the name of a project that the actor can see.

    Raises NotFoundError both for a missing project and for one without access, so that names do not leak.
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
    """Create a project.

    Raises UsageError naming the field, ConflictError for a name or pattern that is in use, RefusedError.
    """
    actor.require_every_project()
    hint = "use lower-case letters and digits, with . _ - between them"
    fields.check_pattern("name", name, fields.NAME, fields.NAME_LENGTH, hint)
    _check(description, patterns, groups, engine)
    if patterns:
        gate.begin_change(session)
    project = projects.create(session, name, description=description, patterns=patterns, groups=groups, engine=engine)
    # Patterns decide which project a repository belongs to, and with it which policies and exemptions apply.
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
    """Change the given fields.

    Images of repositories that now match another project move to that project. Raises as `create`.
    """
    actor.require_every_project()
    _check(description or "", patterns or (), groups or (), engine or "")
    if patterns is not None:
        gate.begin_change(session)
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
    """Add a member. Raises NotFoundError, RefusedError."""
    actor.require_every_project()
    user = accounts.get_user(session, user_id)
    projects.add_member(session, name, user.id)
    detail = {"user": user.id, "name": user.name}
    audit.record(session, actor, Action.PROJECT_MEMBER_ADD, name, detail=detail)


def remove_member(session: Connection, actor: Actor, name: str, user_id: str) -> None:
    """Remove a member. The user's tokens lose access at once, too. Raises NotFoundError, RefusedError."""
    actor.require_every_project()
    member = next((member for member in projects.members(session, name) if member.user_id == user_id), None)
    projects.remove_member(session, name, user_id)
    detail = {"user": user_id, "name": member.name if member else ""}
    audit.record(session, actor, Action.PROJECT_MEMBER_REMOVE, name, detail=detail)


def engine_for(session: Connection, project: str, default: str) -> str:
    """Return the project's engine, or ``default`` (the server's)."""
    return projects.engine_of(session, project) or default


def check_engine(engine: str, field: str = "engine") -> str:
    """Return ``engine`` if it exists or is empty. Raises UsageError naming the field."""
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
