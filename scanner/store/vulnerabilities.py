"""The list of vulnerabilities of all images, with the number of affected images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.model.finding import Severity
from scanner.store.listings import literal
from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import component, finding, image, image_stack, listing, vulnerability

_LISTINGS_AT_ONCE = 500
_EXPORTED = ("image", "platform", "package", "version", "purl", "vulnerability", "severity", "fixable")
_WORST_FIRST = ("critical", "unknown", "high", "medium", "low", "none")


@dataclass(frozen=True)
class ListedVulnerability:
    """A vulnerability of a scanned image. ``fixable``: at least one affected package has a fix."""

    name: str
    severity: Severity
    title: str
    images: int
    fixable: bool


def list_(
    session: Connection,
    projects: frozenset[str] | None,
    *,
    search: str = "",
    severities: Sequence[str] = (),
    cursor: str | None = None,
    limit: int = 50,
) -> Page[ListedVulnerability]:
    """Return vulnerabilities of images of ``projects``, the worst first. ``search`` matches id and title."""
    rank, after = decode_cursor(cursor, (int, str)) if cursor else (0, "")
    query = sa.select(vulnerability.c.id, vulnerability.c.name, vulnerability.c.severity, vulnerability.c.title)
    query = query.where(sa.exists(_touched(projects).where(finding.c.vulnerability_id == vulnerability.c.id)))
    if search:
        text = sa.func.lower(vulnerability.c.name + " " + vulnerability.c.title)
        query = query.where(text.like("%" + literal(search.lower()) + "%", escape="\\"))
    rows: list[sa.Row[Any]] = []
    for number, severity in list(enumerate(_WORST_FIRST))[rank:]:
        # One query per severity, so that the index (severity, name) returns sorted rows.
        if len(rows) <= limit and (not severities or severity in severities):
            one = query.where(vulnerability.c.severity == severity)
            one = one.where(vulnerability.c.name > after) if cursor and number == rank else one
            rows += session.execute(one.order_by(vulnerability.c.name).limit(limit + 1 - len(rows)))
    counts = _counts(session, projects, [row.id for row in rows[:limit]])
    items = tuple(
        ListedVulnerability(row.name, Severity(row.severity), row.title, *counts.get(row.id, (0, False)))
        for row in rows[:limit]
    )
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(items, encode_cursor(_WORST_FIRST.index(last.severity), last.name) if last else None)


def exported(session: Connection, projects: frozenset[str] | None) -> Iterator[dict[str, Any]]:
    """Yield every finding of every listed image, a listing at a time: a fleet has millions of them."""
    columns = (listing.c.id, listing.c.project, listing.c.repository, listing.c.tag, listing.c.digest)
    query = sa.select(*columns, listing.c.verdict, listing.c.undecided, listing.c.scanned_at).order_by(listing.c.id)
    if projects is not None:
        query = query.where(listing.c.project.in_(projects))
    last = 0
    while rows := session.execute(query.where(listing.c.id > last).limit(_LISTINGS_AT_ONCE)).all():
        for row in rows:
            name = {c: getattr(row, c) for c in ("project", "repository", "tag", "digest", "verdict", "undecided")}
            name["scanned_at"] = row.scanned_at.isoformat()
            for one in session.execute(_findings_of(row.digest)):
                yield name | dict(zip(_EXPORTED, one, strict=True))
        last = rows[-1].id


def _findings_of(digest: str) -> sa.Select[Any]:
    return (
        sa.select(
            image.c.digest.label("image"),
            image.c.platform,
            component.c.name.label("package"),
            component.c.version,
            component.c.purl,
            vulnerability.c.name.label("vulnerability"),
            vulnerability.c.severity,
            finding.c.fixable,
        )
        .select_from(image_stack)
        .join(image, image.c.digest == image_stack.c.digest)
        .join(finding, finding.c.image_id == image.c.id)
        .join(component, component.c.id == finding.c.component_id)
        .join(vulnerability, vulnerability.c.id == finding.c.vulnerability_id)
        .where(image_stack.c.subject == digest)
        .order_by(image.c.digest, component.c.purl, vulnerability.c.name)
    )


def _touched(projects: frozenset[str] | None) -> sa.Select[tuple[int]]:
    query = sa.select(finding.c.image_id)
    if projects is not None:
        query = query.join(image, image.c.id == finding.c.image_id)
        query = query.join(image_stack, image_stack.c.digest == image.c.digest)
        query = query.join(listing, listing.c.digest == image_stack.c.subject)
        query = query.where(listing.c.project.in_(projects))
    return query


def _counts(session: Connection, projects: frozenset[str] | None, ids: Sequence[int]) -> dict[int, tuple[int, bool]]:
    touched = (
        _touched(projects)
        .where(finding.c.vulnerability_id.in_(ids))
        .add_columns(finding.c.vulnerability_id, finding.c.fixable)
    )
    rows = touched.subquery()
    query = sa.select(
        rows.c.vulnerability_id,
        sa.func.count(sa.distinct(rows.c.image_id)),
        sa.func.max(sa.cast(rows.c.fixable, sa.Integer)),
    ).group_by(rows.c.vulnerability_id)
    return {number: (count, bool(fixable)) for number, count, fixable in session.execute(query)}
