"""The gate's single question: who asks, and what is the decision in force? One statement, answered from indexes.

Everything the gate needs of a token, its owner and the decision comes back in one row; the decision is the JSON as it is
answered, so that asking costs neither an ORM nor a serializer (performance: one lookup, 0.6 x a bare route).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.store.images import GateRow
from scanner.store.schema import scan, token, user, verdict
from scanner.store.session import epoch

_NOTED_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A living token, and the decision in force for what it asks about; None: there is none for that name and environment.

    ``current`` is False when time may have changed the decision, ``unnoted`` True when the token's use should be noted.
    """

    token_id: str
    name: str
    scopes: tuple[str, ...]
    projects: tuple[str, ...]
    owner_id: str | None
    owner_role: str
    unnoted: bool
    row: GateRow | None
    current: bool


def _statement(now: str) -> sa.TextClause:
    return sa.text(
        f"""
        SELECT t.id, t.name, t.scopes, t.projects, t.owner_id, t.expires_at, t.last_used_at, u.role,
               v.document, v.valid_until, v.repository, v.report_id, v.project, {now} AS now
        FROM {token.name} t
        LEFT JOIN {user.name} u ON u.id = t.owner_id
        LEFT JOIN {verdict.name} v ON v.digest = :digest AND v.repository = :repository AND v.environment = :environment
        WHERE t.hash = :hash AND t.revoked_at IS NULL AND (u.id IS NULL OR NOT u.disabled)
        """  # noqa: S608  the names are our own tables'
    )


_STATEMENTS: dict[str, Any] = {
    "sqlite": _statement("(julianday('now') - 2440587.5) * 86400.0").columns(
        expires_at=token.c.expires_at.type, last_used_at=token.c.last_used_at.type
    ),
    "postgresql": _statement("extract(epoch FROM clock_timestamp())::float8"),
}


def ask(session: Connection, token_hash: str, digest: str, repository: str, environment: str) -> Asked | None:
    """The one statement. None: no living token has this hash. The caller judges scopes and projects."""
    values = {"hash": token_hash, "digest": digest, "repository": repository, "environment": environment}
    row = session.execute(_STATEMENTS[session.dialect.name], values).first()
    if row is None or (row.expires_at is not None and _epoch(row.expires_at) <= row.now):
        return None
    projects = tuple(_list(row.projects))
    visible = row.document is not None and (not projects or row.project in projects)
    found = GateRow(row.document, row.valid_until, row.repository, row.report_id, row.project) if visible else None
    return Asked(
        row.id,
        row.name,
        tuple(_list(row.scopes)),
        projects,
        row.owner_id,
        row.role or "",
        row.last_used_at is None or _epoch(row.last_used_at) < row.now - _NOTED_EVERY,
        found,
        found is not None and (found.valid_until is None or found.valid_until > row.now),
    )


def _list(value: Any) -> list[str]:
    found: list[str] = json.loads(value) if isinstance(value, str) else value  # PostgreSQL's json comes decoded
    return found


def _epoch(moment: datetime) -> float:
    return moment.timestamp()


def invalidate(session: Connection) -> int:
    """Policies or exemptions changed: every decision in force is to be made anew when it is next asked for."""
    return session.execute(verdict.update().values(valid_until=0.0)).rowcount


def resolved(session: Connection, target: str, project: str, seconds: float) -> str | None:
    """The newest scan of this very reference that was asked for within ``seconds``: whoever asks again meanwhile means that one."""
    found = session.execute(
        sa.select(scan.c.id)
        .where(scan.c.created_epoch > epoch(session) - seconds, scan.c.target == target, scan.c.project == project)
        .order_by(scan.c.created_epoch.desc())
        .limit(1)
    ).scalar()
    return str(found) if found else None


def holds(session: Connection, row: GateRow) -> bool:
    """Whether time alone cannot have changed the decision yet, by the database's clock."""
    return row.valid_until is None or row.valid_until > epoch(session)
