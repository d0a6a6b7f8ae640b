"""Projects: who sees what. Registries, scans, images and tokens belong to one; ``default`` is always there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.errors import ConflictError
from scanner.store.schema import project
from scanner.store.session import moment

DEFAULT = "default"


@dataclass(frozen=True)
class ProjectView:
    name: str
    created_at: datetime | None


def create(session: Connection, name: str) -> ProjectView:
    """Raises ConflictError for a name in use."""
    if exists(session, name):
        raise ConflictError(f"there is a project {name!r} already")
    now = moment(session)
    session.execute(project.insert().values(name=name, created_at=now))
    return ProjectView(name, now)


def exists(session: Connection, name: str) -> bool:
    return (
        name == DEFAULT or session.execute(sa.select(project.c.name).where(project.c.name == name)).first() is not None
    )


def list_(session: Connection, projects: frozenset[str] | None) -> tuple[ProjectView, ...]:
    """Those that may be seen, by name."""
    rows = session.execute(sa.select(project.c.name, project.c.created_at).order_by(project.c.name))
    found = [ProjectView(row.name, row.created_at) for row in rows]
    if DEFAULT not in {view.name for view in found}:
        found.insert(0, ProjectView(DEFAULT, None))
    return tuple(view for view in found if projects is None or view.name in projects)
