"""Engines and databases that must not be believed any more.

What rests on them is not known until it was looked at again.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.errors import ImageError, NotFoundError, UsageError
from scanner.model.decision import Revoked
from scanner.model.reference import Digest
from scanner.store import gate, jobs
from scanner.store.schema import listing, rests_on, revocation
from scanner.store.session import moment


@dataclass(frozen=True)
class RevocationView:
    """One revocation. ``lifted_at`` None: it holds."""

    id: str
    what: Revoked
    reason: str
    revoked_by: str
    revoked_at: datetime
    lifted_by: str
    lifted_at: datetime | None


@dataclass(frozen=True)
class Resting:
    """A name whose decision rests on what was revoked."""

    listing_id: int
    project: str
    repository: str
    tag: str
    digest: str
    verdict: str
    engine: str
    version: str


def named(engine: str = "", version: str = "", digest: str = "") -> Revoked:
    """What a person named.

    Raises UsageError unless it is one thing: an engine's version, or the digest of a binary or database.
    """
    if bool(engine) != bool(version) or bool(engine) == bool(digest):
        raise UsageError("name one thing", hint="an engine and its version, or the digest of a binary or database")
    try:
        return Revoked(engine, version, str(Digest(digest)) if digest else "")
    except ImageError as error:
        raise UsageError(str(error), hint="sha256: and 64 digits, as the status shows it") from error


def revoke(session: Connection, what: Revoked, reason: str, revoked_by: str) -> RevocationView:
    """Believe it no more, from the moment that this commits: every decision in force is made anew when it is next
    asked for.

    Asks for the job that queues scans of what rests on it. Raises UsageError for a revocation of nothing in
    particular.
    """
    if not (what.digest or (what.engine and what.version)):
        raise UsageError(
            "name what is revoked", hint="an engine and its version, or the digest of a binary or database"
        )
    identifier = str(uuid.uuid4())
    session.execute(
        revocation.insert().values(
            id=identifier,
            engine=what.engine,
            version=what.version,
            digest=what.digest,
            reason=reason[:500],
            revoked_by=revoked_by[:200],
            revoked_at=moment(session),
        )
    )
    gate.invalidate(session)
    jobs.request(session, jobs.REQUEUE, identifier, revoked_by, {"revocation": identifier})
    return get(session, identifier)


def lift(session: Connection, identifier: str, lifted_by: str) -> RevocationView:
    """Believe it again. Raises NotFoundError for a revocation that there is not, or that does not hold any more."""
    lifted = session.execute(
        revocation.update()
        .where(revocation.c.id == identifier, revocation.c.lifted_at.is_(None))
        .values(lifted_by=lifted_by[:200], lifted_at=moment(session))
    )
    if lifted.rowcount != 1:
        raise NotFoundError("no such revocation is in force")
    gate.invalidate(session)
    return get(session, identifier)


def get(session: Connection, identifier: str) -> RevocationView:
    """One revocation. Raises NotFoundError."""
    row = session.execute(sa.select(*revocation.c).where(revocation.c.id == identifier)).first()
    if row is None:
        raise NotFoundError("there is no such revocation")
    return _view(row)


def list_(session: Connection) -> tuple[RevocationView, ...]:
    """Every revocation, newest first, those that were lifted too."""
    return tuple(
        _view(row) for row in session.execute(sa.select(*revocation.c).order_by(revocation.c.revoked_at.desc()))
    )


def in_force(session: Connection) -> tuple[Revoked, ...]:
    """What must not be believed now."""
    rows = session.execute(
        sa.select(revocation.c.engine, revocation.c.version, revocation.c.digest).where(
            revocation.c.lifted_at.is_(None)
        )
    )
    return tuple(Revoked(*row) for row in rows)


def resting(
    session: Connection, what: Revoked, projects: frozenset[str] | None = None, *, limit: int = 1000, after: int = 0
) -> tuple[Resting, ...]:
    """Names whose evidence rests on it, in order of their numbers from ``after`` on."""
    if what.digest:
        named = sa.or_(rests_on.c.binary == what.digest, rests_on.c.advisories == what.digest)
    else:
        named = sa.and_(rests_on.c.engine == what.engine, rests_on.c.version == what.version)
    columns = (listing.c.project, listing.c.repository, listing.c.tag, listing.c.digest, listing.c.verdict)
    query = (
        sa.select(listing.c.id, *columns, sa.func.min(rests_on.c.engine), sa.func.min(rests_on.c.version))
        .join(rests_on, rests_on.c.listing_id == listing.c.id)
        .where(named, listing.c.id > after)
        .group_by(listing.c.id, *columns)
        .order_by(listing.c.id)
        .limit(limit)
    )
    if projects is not None:
        query = query.where(listing.c.project.in_(projects))
    return tuple(Resting(*row) for row in session.execute(query))


def _view(row: sa.Row[tuple[object, ...]]) -> RevocationView:
    return RevocationView(
        row.id,
        Revoked(row.engine, row.version, row.digest),
        row.reason,
        row.revoked_by,
        row.revoked_at,
        row.lifted_by,
        row.lifted_at,
    )
