"""Projects: the boundary of what users and tokens can see.

Registries, scans, images, policies and tokens belong to a project. The project ``default`` always exists. A repository
belongs to the project with the most specific matching pattern, or else to its registry's project.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.errors import ConflictError, NotFoundError
from scanner.model.glob import most_specific
from scanner.store import inventory
from scanner.store.schema import listing, project, project_member, registry, user, verdict
from scanner.store.session import moment

DEFAULT = "default"


@dataclass(frozen=True)
class ProjectView:
    """A project.

    ``patterns``: globs over host/repository that it owns. ``groups``: groups of the identity provider whose users
    become members.
    """

    name: str
    created_at: datetime | None  # None: ``default`` before anything was written about it
    description: str = ""
    patterns: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    engine: str = ""  # the default of its scans; empty: the server's


@dataclass(frozen=True)
class Member:
    """A member. ``source``: "local" (added by an administrator) or "oidc" (by a group at the last sign-in)."""

    user_id: str
    name: str
    role: str
    source: str
    added_at: datetime


def create(
    session: Connection,
    name: str,
    *,
    description: str = "",
    patterns: Sequence[str] = (),
    groups: Sequence[str] = (),
    engine: str = "",
) -> ProjectView:
    """Insert a project. Raises ConflictError for a name in use or a pattern of another project."""
    if session.execute(sa.select(project.c.name).where(project.c.name == name)).first() is not None:
        raise ConflictError(f"a project {name!r} exists already")
    session.execute(
        project.insert().values(name=name, created_at=moment(session), description="", patterns=[], groups=[])
    )
    return update(session, name, description=description, patterns=patterns, groups=groups, engine=engine)


def update(
    session: Connection,
    name: str,
    *,
    description: str | None = None,
    patterns: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    engine: str | None = None,
) -> ProjectView:
    """Change the given fields. Images of repositories that now match another project move to it.

    Raises as `create`, and NotFoundError.
    """
    # ``default`` exists before it is changed. Its row is written with its first change.
    if name == DEFAULT and session.execute(sa.select(project.c.name).where(project.c.name == name)).first() is None:
        session.execute(
            project.insert().values(name=name, created_at=moment(session), description="", patterns=[], groups=[])
        )
    before = get(session, name)
    values: dict[str, object] = {}
    if description is not None:
        values["description"] = description
    if engine is not None:
        values["engine"] = engine
    if groups is not None:
        values["groups"] = sorted(set(groups))
    if patterns is not None:
        values["patterns"] = sorted(set(patterns))
        # One pattern in two projects would leave the owner of its repositories to chance.
        taken = {p: view.name for view in list_projects(session, None) if view.name != name for p in view.patterns}
        if both := sorted(taken.keys() & set(patterns)):
            raise ConflictError(f"the pattern {both[0]!r} belongs to project {taken[both[0]]!r}", reason="in_use")
    if values:
        session.execute(project.update().where(project.c.name == name).values(**values))
    if patterns is not None and set(patterns) != set(before.patterns):
        _rehome(session)
    return get(session, name)


def get(session: Connection, name: str, projects: frozenset[str] | None = None) -> ProjectView:
    """Return a project. Raises NotFoundError both for a missing one and for one that cannot be seen."""
    found = next((view for view in list_projects(session, projects) if view.name == name), None)
    if found is None:
        raise NotFoundError("there is no such project")
    return found


def engine_of(session: Connection, name: str) -> str:
    """Return a project's engine; empty: the server's."""
    return session.execute(sa.select(project.c.engine).where(project.c.name == name)).scalar() or ""


def exists(session: Connection, name: str) -> bool:
    return (
        name == DEFAULT or session.execute(sa.select(project.c.name).where(project.c.name == name)).first() is not None
    )


def list_projects(session: Connection, projects: frozenset[str] | None) -> tuple[ProjectView, ...]:
    """Return the visible projects, by name. ``default`` is included even if it has no row yet."""
    rows = session.execute(sa.select(*project.c).order_by(project.c.name))
    found = [
        ProjectView(row.name, row.created_at, row.description, tuple(row.patterns), tuple(row.groups), row.engine)
        for row in rows
    ]
    if DEFAULT not in {view.name for view in found}:
        found.insert(0, ProjectView(DEFAULT, None))
    return tuple(view for view in found if projects is None or view.name in projects)


# Owners of repositories


def owner(session: Connection, repository: str) -> str:
    """Return the project of a repository (``host/name``)."""
    return owners(session, [repository])[repository]


def owners(session: Connection, repositories: Iterable[str]) -> Mapping[str, str]:
    """Return the project of each repository; ``default`` if neither a pattern nor a registry matches."""
    owner_of = _owner_lookup(session)
    return {repository: owner_of(repository) or DEFAULT for repository in repositories}


def _owner_lookup(session: Connection) -> Callable[[str], str | None]:
    by_pattern = {
        pattern: row.name
        for row in session.execute(sa.select(project.c.name, project.c.patterns))
        for pattern in row.patterns
    }
    by_host = {row.host: row.project for row in session.execute(sa.select(registry.c.host, registry.c.project))}
    return owner_lookup(by_pattern, by_host)


def owner_lookup(by_pattern: Mapping[str, str], by_host: Mapping[str, str]) -> Callable[[str], str | None]:
    """Return a function from repository to project, by all patterns and registries. None: nothing matches."""

    def one(repository: str) -> str | None:
        pattern = most_specific(by_pattern, repository)
        return by_pattern[pattern] if pattern else by_host.get(repository.partition("/")[0])

    return one


def _rehome(session: Connection) -> None:
    """Move listings, verdicts and workloads to the projects that now own their repositories."""
    owner_of = _owner_lookup(session)
    for table in (listing, verdict):
        for row in session.execute(sa.select(table.c.repository, table.c.project).distinct()).all():
            now = owner_of(row.repository)
            if now is None or now == row.project:
                continue
            if table is listing:
                _drop_doubles(session, row.repository, row.project, now)
            mine = sa.and_(table.c.repository == row.repository, table.c.project == row.project)
            session.execute(table.update().where(mine).values(project=now))
    inventory.rehome(session, owner_of)


def _drop_doubles(session: Connection, repository: str, former: str, now: str) -> None:
    """Delete listings of the former owner that the new owner has, too: moving them would violate the unique key."""
    theirs = listing.alias()
    there = sa.select(theirs.c.id).where(
        theirs.c.project == now,
        theirs.c.repository == listing.c.repository,
        theirs.c.tag == listing.c.tag,
        theirs.c.digest == listing.c.digest,
    )
    mine = sa.and_(listing.c.repository == repository, listing.c.project == former)
    session.execute(listing.delete().where(mine, there.exists()))


# Members


def members(session: Connection, name: str) -> tuple[Member, ...]:
    """Return the members of a project, by name."""
    columns = (user.c.id, user.c.name, user.c.role, project_member.c.source, project_member.c.added_at)
    query = sa.select(*columns).join(user, user.c.id == project_member.c.user_id)
    return tuple(
        Member(*row) for row in session.execute(query.where(project_member.c.project == name).order_by(user.c.name))
    )


def add_member(session: Connection, name: str, user_id: str) -> None:
    """Add a member independently of groups. Adding twice has no effect. Raises NotFoundError."""
    if session.execute(sa.select(user.c.id).where(user.c.id == user_id)).first() is None:
        raise NotFoundError("there is no such user")
    if not exists(session, name):
        raise NotFoundError("there is no such project")
    # A membership that came from a group becomes a local one, which the next sign-in does not remove.
    session.execute(project_member.delete().where(_is(name, user_id)))
    values = {"user_id": user_id, "project": name, "source": "local", "added_at": moment(session)}
    session.execute(project_member.insert().values(**values))


def remove_member(session: Connection, name: str, user_id: str) -> None:
    """Remove a member at once. A group may add the user again at the next sign-in. Raises NotFoundError."""
    if session.execute(project_member.delete().where(_is(name, user_id))).rowcount != 1:
        raise NotFoundError("there is no such member")


def _is(name: str, user_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(project_member.c.project == name, project_member.c.user_id == user_id)
