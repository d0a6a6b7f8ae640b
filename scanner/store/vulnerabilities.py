"""The list of vulnerabilities of all images, with the number of affected images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.model.finding import Severity
from scanner.store.listings import literal
from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import component, finding, first_seen, image, image_stack, listing, vulnerability
from scanner.store.session import moment

_LISTINGS_AT_ONCE = 500
_EXPORTED = ("image", "platform", "package", "version", "purl", "vulnerability", "severity", "fixable")
_WORST_FIRST = ("critical", "unknown", "high", "medium", "low", "none")


@dataclass(frozen=True)
class ListedVulnerability:
    """A vulnerability of a scanned image.

    ``fixable``: at least one affected package has a fix. ``fixes``: up to three of the versions to upgrade to; empty if
    none is known. ``published``: when its advisory was published; None: unknown.
    """

    name: str
    severity: Severity
    title: str
    images: int  # how many the caller can see
    fixable: bool
    fixes: tuple[str, ...] = ()
    more_fixes: bool = False  # there are more versions than ``fixes`` lists
    exploited: bool = False  # in CISA's catalogue of known exploited vulnerabilities
    published: datetime | None = None


@dataclass(frozen=True)
class Filter:
    """Criteria for vulnerabilities. All given ones must match. ``search`` matches id and title.

    ``new``: first seen in a repository within this time.
    """

    search: str = ""
    severities: tuple[str, ...] = ()  # empty: all
    fixable: bool = False  # at least one affected package has a fix
    exploited: bool = False
    new: timedelta | None = None

    def apply(self, session: Connection, query: sa.Select[Any], projects: frozenset[str] | None) -> sa.Select[Any]:
        """Return the query with the criteria, but for the severities."""
        if self.search:
            text = sa.func.lower(vulnerability.c.name + " " + vulnerability.c.title)
            query = query.where(text.like("%" + literal(self.search.lower()) + "%", escape="\\"))
        found = images_with_findings(projects).where(finding.c.vulnerability_id == vulnerability.c.id)
        # Always with this condition: a vulnerability that no image of the caller's projects has must not appear, not
        # even by its name.
        query = query.where(sa.exists(found.where(finding.c.fixable.is_(True)) if self.fixable else found))
        if self.exploited:
            query = query.where(vulnerability.c.document["known_exploited"].as_boolean().is_(True))
        if self.new is not None:
            query = query.where(sa.exists(newly_seen(session, projects, self.new).correlate(vulnerability)))
        return query


def newly_seen(session: Connection, projects: frozenset[str] | None, within: timedelta) -> sa.Select[Any]:
    """Return when a vulnerability was first seen in repositories of ``projects``, for those within this time."""
    query = sa.select(first_seen.c.at).where(
        first_seen.c.vulnerability_id == vulnerability.c.id, first_seen.c.at >= moment(session) - within
    )
    if projects is not None:
        theirs = sa.select(listing.c.repository).where(listing.c.project.in_(projects))
        query = query.where(first_seen.c.repository.in_(theirs))
    return query


def list_vulnerabilities(
    session: Connection,
    projects: frozenset[str] | None,
    narrowed: Filter | None = None,
    *,
    sort: str = "",
    cursor: str | None = None,
    limit: int = 50,
) -> Page[ListedVulnerability]:
    """Return vulnerabilities of images of ``projects``: the worst first, of one severity the newest first.

    ``sort``: ``name`` or ``published``, with a leading minus for descending. An unknown one is ignored.
    """
    narrowed = narrowed or Filter()
    query = narrowed.apply(session, sa.select(*_SHOWN), projects)
    if sort.removeprefix("-") in ("name", "published"):
        if narrowed.severities:
            query = query.where(vulnerability.c.severity.in_(narrowed.severities))
        rows = _in_order(session, query, sort, cursor, limit)
        last = rows[limit - 1] if len(rows) > limit else None
        following = encode_cursor(getattr(last, sort.removeprefix("-")), last.name) if last else None
    else:
        rows = _worst_first(session, query, narrowed.severities, cursor, limit)
        last = rows[limit - 1] if len(rows) > limit else None
        following = encode_cursor(_WORST_FIRST.index(last.severity), last.published, last.name) if last else None
    shown = [row.id for row in rows[:limit]]
    counts, fixes = _counts(session, projects, shown), _fixes(session, projects, shown)
    items = tuple(
        ListedVulnerability(
            row.name,
            Severity(row.severity),
            row.title,
            *counts.get(row.id, (0, False)),
            tuple(fixes.get(row.id, ())[:_FIXES]),
            len(fixes.get(row.id, ())) > _FIXES,
            row.document.get("known_exploited") is True,
            datetime.fromtimestamp(row.published, UTC) if row.published else None,
        )
        for row in rows[:limit]
    )
    return Page(items, following)


def export_findings(session: Connection, projects: frozenset[str] | None) -> Iterator[dict[str, Any]]:
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


def _worst_first(
    session: Connection, query: sa.Select[Any], severities: Sequence[str], cursor: str | None, limit: int
) -> list[sa.Row[Any]]:
    rank, published, after = decode_cursor(cursor, (int, float, str)) if cursor else (0, 0.0, "")
    rows: list[sa.Row[Any]] = []
    columns = (vulnerability.c.published, vulnerability.c.name)
    for number, severity in list(enumerate(_WORST_FIRST))[rank:]:
        # One query per severity, so that the index (severity, published, name) returns sorted rows.
        if len(rows) <= limit and (not severities or severity in severities):
            one = query.where(vulnerability.c.severity == severity)
            if cursor and number == rank:
                one = one.where(sa.tuple_(*columns) < sa.tuple_(sa.literal(published), sa.literal(after)))
            rows += session.execute(one.order_by(*(c.desc() for c in columns)).limit(limit + 1 - len(rows)))
    return rows


def _in_order(
    session: Connection, query: sa.Select[Any], sort: str, cursor: str | None, limit: int
) -> list[sa.Row[Any]]:
    """Sort by one column, and by name where it is equal."""
    name = sort.removeprefix("-")
    columns = (vulnerability.c[name], vulnerability.c.name)
    if cursor:
        value, after = decode_cursor(cursor, (float if name == "published" else str, str))
        place = sa.tuple_(sa.literal(value), sa.literal(after))
        query = query.where(sa.tuple_(*columns) < place if sort.startswith("-") else sa.tuple_(*columns) > place)
    ordered = query.order_by(*(c.desc() if sort.startswith("-") else c.asc() for c in columns))
    return list(session.execute(ordered.limit(limit + 1)))


_FIXES = 3
_SHOWN = (
    vulnerability.c.id,
    vulnerability.c.name,
    vulnerability.c.severity,
    vulnerability.c.title,
    vulnerability.c.document,
    vulnerability.c.published,
)


def _fixes(session: Connection, projects: frozenset[str] | None, ids: Sequence[int]) -> dict[int, list[str]]:
    """The versions that fix each vulnerability, without those of images of other projects."""
    rows = (
        images_with_findings(projects)
        .where(finding.c.vulnerability_id.in_(ids), finding.c.fixed > "")
        .with_only_columns(finding.c.vulnerability_id, finding.c.fixed)
        .distinct()
        .order_by(finding.c.vulnerability_id, finding.c.fixed)
    )
    found: dict[int, list[str]] = defaultdict(list)
    for number, fixed in session.execute(rows):
        found[number].append(fixed)
    return found


def images_with_findings(projects: frozenset[str] | None) -> sa.Select[tuple[int]]:
    """Return the images of ``projects`` with findings, for a condition on the findings."""
    query = sa.select(finding.c.image_id)
    if projects is not None:
        query = query.join(image, image.c.id == finding.c.image_id)
        query = query.join(image_stack, image_stack.c.digest == image.c.digest)
        query = query.join(listing, listing.c.digest == image_stack.c.subject)
        query = query.where(listing.c.project.in_(projects))
    return query


def _counts(session: Connection, projects: frozenset[str] | None, ids: Sequence[int]) -> dict[int, tuple[int, bool]]:
    found = (
        images_with_findings(projects)
        .where(finding.c.vulnerability_id.in_(ids))
        .add_columns(finding.c.vulnerability_id, finding.c.fixable)
    )
    rows = found.subquery()
    query = sa.select(
        rows.c.vulnerability_id,
        sa.func.count(sa.distinct(rows.c.image_id)),
        sa.func.max(sa.cast(rows.c.fixable, sa.Integer)),
    ).group_by(rows.c.vulnerability_id)
    return {number: (count, bool(fixable)) for number, count, fixable in session.execute(query)}
