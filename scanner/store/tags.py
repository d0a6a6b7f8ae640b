"""The tag ledger: what each tag named, since when, and who told us. A tag is noted whenever it names another digest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import listing, tag_move
from scanner.store.session import moment


@dataclass(frozen=True)
class TagMove:
    """A tag came to name a digest.

    ``source`` is what asked for the scan that saw it (``webhook``, ``api``, ``page``), or ``poll``. ``previous`` is the
    digest that the tag named before; empty: none is known. ``rollback``: the tag had named this digest earlier.
    """

    id: int
    repository: str
    tag: str
    digest: str  # what it names from ``seen_at`` on
    seen_at: datetime
    source: str = ""
    previous: str = ""
    rollback: bool = False


def note(session: Connection, repository: str, tag: str, digest: str, source: str) -> str:
    """Note what a tag names. Returns the digest that it named before; empty: it was not moved, or is seen first."""
    query = sa.select(tag_move.c.digest).where(tag_move.c.repository == repository, tag_move.c.tag == tag)
    row = session.execute(query.order_by(tag_move.c.id.desc()).limit(1)).first()
    if row is not None and row.digest == digest:
        return ""
    move = {"repository": repository, "tag": tag, "digest": digest, "source": source[:32], "seen_at": moment(session)}
    session.execute(tag_move.insert().values(**move))
    return row.digest if row else ""


def current(session: Connection, repository: str, names: Collection[str]) -> Mapping[str, str]:
    """Return the digests that tags of a repository named last. Tags that were never seen are missing."""
    newest = sa.select(sa.func.max(tag_move.c.id)).group_by(tag_move.c.tag)
    newest = newest.where(tag_move.c.repository == repository, tag_move.c.tag.in_(list(names)))
    rows = session.execute(sa.select(tag_move.c.tag, tag_move.c.digest).where(tag_move.c.id.in_(newest)))
    return {row.tag: row.digest for row in rows}


def is_named_last() -> sa.ColumnElement[bool]:
    """Select listings whose tag has not been moved to another image. A listing without a tag is selected."""
    newest = (
        sa.select(sa.func.max(tag_move.c.id))
        .where(tag_move.c.repository == listing.c.repository, tag_move.c.tag == listing.c.tag)
        .correlate(listing)
        .scalar_subquery()
    )
    last = sa.select(tag_move.c.digest).where(tag_move.c.id == newest).correlate(listing).scalar_subquery()
    return sa.or_(last.is_(None), last == listing.c.digest)


def first(session: Connection, repository: str, tag: str) -> TagMove | None:
    """What a tag named when it was first seen. None: it was never seen."""
    query = sa.select(*tag_move.c).where(tag_move.c.repository == repository, tag_move.c.tag == tag)
    row = session.execute(query.order_by(tag_move.c.id).limit(1)).first()
    if row is None:
        return None
    return TagMove(row.id, row.repository, row.tag, row.digest, row.seen_at, row.source)


def history(
    session: Connection,
    projects: frozenset[str] | None,
    *,
    repository: str | None = None,
    tag: str | None = None,
    moved: bool = False,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[TagMove]:
    """List what tags named, the newest note first. ``moved``: only where a tag came to name something else."""
    same, older = tag_move.alias("same"), tag_move.alias("older")
    name = (older.c.repository == tag_move.c.repository, older.c.tag == tag_move.c.tag, older.c.id < tag_move.c.id)
    previous = sa.select(older.c.digest).where(*name).order_by(older.c.id.desc()).limit(1).scalar_subquery()
    # A tag that returns to a digest that it named before is the sign of a rollback: of a release, or by an attacker
    # who wants a vulnerable version back.
    again = sa.exists().where(
        same.c.repository == tag_move.c.repository,
        same.c.tag == tag_move.c.tag,
        same.c.id < tag_move.c.id,
        same.c.digest == tag_move.c.digest,
    )
    query = sa.select(*tag_move.c, previous.label("previous"), again.label("rollback"))
    query = query.order_by(tag_move.c.id.desc()).limit(limit + 1)
    if repository is not None:
        query = query.where(tag_move.c.repository == repository)
    if tag is not None:
        query = query.where(tag_move.c.tag == tag)
    if moved:
        query = query.where(sa.exists().where(*name))
    if projects is not None:
        own = sa.select(listing.c.repository).where(listing.c.project.in_(projects))
        query = query.where(tag_move.c.repository.in_(own))
    if cursor:
        query = query.where(tag_move.c.id < decode_cursor(cursor, (int,))[0])
    rows = session.execute(query).all()
    items = tuple(
        TagMove(r.id, r.repository, r.tag, r.digest, r.seen_at, r.source, r.previous or "", bool(r.rollback))
        for r in rows[:limit]
    )
    return Page(items, encode_cursor(rows[limit - 1].id) if len(rows) > limit else None)
