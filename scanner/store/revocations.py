"""Revoked engines and advisory databases. Evidence based on them counts as unknown until it is renewed."""

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
    """A revocation. ``lifted_at`` None: it is active."""

    id: str
    what: Revoked
    reason: str
    revoked_by: str
    revoked_at: datetime
    lifted_by: str  # empty: active
    lifted_at: datetime | None


@dataclass(frozen=True)
class AffectedListing:
    """A listing whose evidence is based on something revoked."""

    listing_id: int
    project: str
    repository: str
    tag: str
    digest: str
    verdict: str
    engine: str
    version: str  # of the engine


def parse_revoked(engine: str = "", version: str = "", digest: str = "") -> Revoked:
    """Return what a user wants to revoke. Raises UsageError unless it is either engine and version, or a digest."""
    if bool(engine) != bool(version) or bool(engine) == bool(digest):
        raise UsageError(
            "give either an engine and its version, or a digest",
            hint="the digest is that of an engine's binary or of a database",
            field="digest" if not engine and not version else "version" if engine else "engine",
        )
    try:
        return Revoked(engine, version, str(Digest(digest)) if digest else "")
    except ImageError as error:
        raise UsageError(
            str(error), hint="write sha256: and 64 hex digits, as 'advisories status' prints it", field="digest"
        ) from error


def revoke(session: Connection, what: Revoked, reason: str, revoked_by: str) -> RevocationView:
    """Insert a revocation, invalidate all decisions and request the job that queues new scans.

    Raises UsageError if ``what`` is incomplete.
    """
    if not (what.digest or (what.engine and what.version)):
        raise UsageError(
            "the subject of the revocation is missing",
            hint="give an engine and its version, or the digest of a binary or database",
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
    # A job, because it may concern every image: requesting the scans here would hold the write lock for minutes.
    jobs.request(session, jobs.REQUEUE, identifier, revoked_by, {"revocation": identifier})
    return get(session, identifier)


def lift(session: Connection, identifier: str, lifted_by: str) -> RevocationView:
    """Lift a revocation and invalidate all decisions. Raises NotFoundError if it does not exist or was lifted."""
    lifted = session.execute(
        revocation.update()
        .where(revocation.c.id == identifier, revocation.c.lifted_at.is_(None))
        .values(lifted_by=lifted_by[:200], lifted_at=moment(session))
    )
    if lifted.rowcount != 1:
        raise NotFoundError("there is no such active revocation")
    gate.invalidate(session)
    return get(session, identifier)


def get(session: Connection, identifier: str) -> RevocationView:
    """Return a revocation. Raises NotFoundError."""
    row = session.execute(sa.select(*revocation.c).where(revocation.c.id == identifier)).first()
    if row is None:
        raise NotFoundError("there is no such revocation")
    return _view(row)


def list_revocations(session: Connection) -> tuple[RevocationView, ...]:
    """Return all revocations, including lifted ones, the newest first."""
    return tuple(
        _view(row) for row in session.execute(sa.select(*revocation.c).order_by(revocation.c.revoked_at.desc()))
    )


def active(session: Connection, at: datetime | None = None) -> tuple[Revoked, ...]:
    """Return what is revoked now, or was at a past moment."""
    query = sa.select(revocation.c.engine, revocation.c.version, revocation.c.digest)
    if at is None:
        query = query.where(revocation.c.lifted_at.is_(None))
    else:
        lifted_later = sa.or_(revocation.c.lifted_at.is_(None), revocation.c.lifted_at > at)
        query = query.where(revocation.c.revoked_at <= at, lifted_later)
    rows = session.execute(query)
    return tuple(Revoked(*row) for row in rows)


def affected_listings(
    session: Connection, what: Revoked, projects: frozenset[str] | None = None, *, limit: int = 1000, after: int = 0
) -> tuple[AffectedListing, ...]:
    """Return listings whose evidence is based on ``what``, with ids above ``after``, by id."""
    if what.digest:
        is_revoked = sa.or_(rests_on.c.binary == what.digest, rests_on.c.advisories == what.digest)
    else:
        is_revoked = sa.and_(rests_on.c.engine == what.engine, rests_on.c.version == what.version)
    columns = (listing.c.project, listing.c.repository, listing.c.tag, listing.c.digest, listing.c.verdict)
    query = (
        sa.select(listing.c.id, *columns, sa.func.min(rests_on.c.engine), sa.func.min(rests_on.c.version))
        .join(rests_on, rests_on.c.listing_id == listing.c.id)
        .where(is_revoked, listing.c.id > after)
        .group_by(listing.c.id, *columns)
        .order_by(listing.c.id)
        .limit(limit)
    )
    if projects is not None:
        query = query.where(listing.c.project.in_(projects))
    return tuple(AffectedListing(*row) for row in session.execute(query))


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
