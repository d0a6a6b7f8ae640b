"""Imported VEX documents and their statements. A document exists once per project, or once for all projects."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.errors import ConflictError, NotFoundError
from scanner.model.reference import Digest
from scanner.model.vex import VexStatement, VexStatus
from scanner.store.page import Page, cursor_moment, decode_cursor, encode_cursor
from scanner.store.schema import vex_document, vex_statement
from scanner.store.session import moment

_CHUNK = 500  # rows of one statement


@dataclass(frozen=True)
class DocumentView:
    """A VEX document. ``project`` empty: it applies to every project. ``statements`` is their number."""

    id: str
    project: str
    name: str
    author: str
    version: str
    digest: str  # of the document's bytes: an equal one is not imported twice
    statements: int
    imported_by: str
    imported_at: datetime


def add(
    session: Connection,
    project: str,
    data: bytes,
    by: str,
    *,
    name: str,
    author: str,
    version: str,
    statements: Sequence[VexStatement],
) -> DocumentView:
    """Insert a document that the caller has validated. Raises ConflictError if it exists."""
    identifier, digest = str(uuid.uuid4()), Digest.of(data)
    same = sa.and_(vex_document.c.project == project, vex_document.c.digest == digest)
    if session.execute(sa.select(vex_document.c.id).where(same)).first():
        raise ConflictError("this document is already imported", reason="already_imported")
    session.execute(
        vex_document.insert().values(
            id=identifier,
            project=project,
            name=name,
            author=author,
            version=version,
            digest=digest,
            statements=len(statements),
            imported_by=by,
            imported_at=moment(session),
        )
    )
    rows = [
        {
            "document_id": identifier,
            "vulnerability": s.vulnerability,
            "products": list(s.products),
            "subcomponents": list(s.subcomponents),
            "status": s.status.value,
            "justification": s.justification,
            "impact": s.impact,
            "stated_at": s.timestamp,
        }
        for s in statements
    ]
    session.execute(vex_statement.insert(), rows)
    return get(session, identifier)


@dataclass(frozen=True)
class StatementView:
    """One statement about a vulnerability, with its document. ``products`` is the number of its products."""

    status: str  # of OpenVEX, such as not_affected
    justification: str
    impact: str  # the author's sentence, for not_affected
    author: str
    project: str
    stated_at: datetime | None  # None: the document gives no time
    products: int


def about(
    session: Connection, vulnerability: str, projects: frozenset[str] | None, *, limit: int = 20
) -> tuple[StatementView, ...]:
    """Return the newest statements about a vulnerability. Rows of one statement are counted as its products."""
    shown = (
        vex_statement.c.status,
        vex_statement.c.justification,
        vex_statement.c.impact,
        vex_document.c.author,
        vex_document.c.project,
        vex_statement.c.stated_at,
    )
    query = (
        sa.select(*shown, sa.func.count())
        .join(vex_document, vex_document.c.id == vex_statement.c.document_id)
        .where(vex_statement.c.vulnerability == vulnerability)
        .group_by(vex_document.c.id, *shown)
        .order_by(sa.func.max(vex_statement.c.id).desc())
        .limit(limit)
    )
    if projects is not None:
        query = query.where(vex_document.c.project.in_(["", *projects]))
    return tuple(StatementView(*row) for row in session.execute(query))


def remove(session: Connection, identifier: str) -> None:
    """Delete a document and its statements. Raises NotFoundError."""
    session.execute(vex_statement.delete().where(vex_statement.c.document_id == identifier))
    if session.execute(vex_document.delete().where(vex_document.c.id == identifier)).rowcount != 1:
        raise NotFoundError("there is no such document")


def get(session: Connection, identifier: str, projects: frozenset[str] | None = None) -> DocumentView:
    """Return the document. Raises NotFoundError, also for another project's."""
    row = session.execute(sa.select(*vex_document.c).where(vex_document.c.id == identifier)).first()
    if row is None or (projects is not None and row.project and row.project not in projects):
        raise NotFoundError("there is no such document")
    return DocumentView(*row)


def list_documents(
    session: Connection, projects: frozenset[str] | None, *, cursor: str | None = None, limit: int = 50
) -> Page[DocumentView]:
    """Return the documents that apply to these projects, the newest import first."""
    query = sa.select(*vex_document.c).order_by(vex_document.c.imported_at.desc(), vex_document.c.id.desc())
    if projects is not None:
        query = query.where(vex_document.c.project.in_(["", *projects]))
    if cursor:
        at, identifier = decode_cursor(cursor, (cursor_moment, str))
        place = sa.literal(at, vex_document.c.imported_at.type)
        query = query.where(
            sa.tuple_(vex_document.c.imported_at, vex_document.c.id) < sa.tuple_(place, sa.literal(identifier))
        )
    rows = session.execute(query.limit(limit + 1)).all()
    more = encode_cursor(rows[limit - 1].imported_at.isoformat(), rows[limit - 1].id) if len(rows) > limit else None
    return Page(tuple(DocumentView(*row) for row in rows[:limit]), more)


def applicable(
    session: Connection, project: str, vulnerabilities: Collection[str], at: datetime | None = None
) -> tuple[VexStatement, ...]:
    """Return the statements about these vulnerabilities (ids or aliases) that apply to a project.

    ``at``: only those that had been imported by then.
    """
    wanted, found = sorted(vulnerabilities), list[Any]()
    for start in range(0, len(wanted), _CHUNK):
        query = (
            sa.select(*vex_statement.c, vex_document.c.author)
            .join(vex_document, vex_document.c.id == vex_statement.c.document_id)
            .where(
                vex_document.c.project.in_(["", project]),
                vex_statement.c.vulnerability.in_(wanted[start : start + _CHUNK]),
            )
        )
        if at is not None:
            # By the import, not by the statement's own time: a statement says that time itself, and could claim to
            # have counted in the past.
            query = query.where(vex_document.c.imported_at <= at)
        found += session.execute(query.order_by(vex_statement.c.id)).all()
    return tuple(
        VexStatement(
            r.vulnerability,
            tuple(r.products),
            VexStatus(r.status),
            r.justification,
            r.impact,
            r.author,
            r.stated_at,
            tuple(r.subcomponents),
        )
        for r in found
    )
