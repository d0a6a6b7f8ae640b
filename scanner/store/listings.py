"""Queries about listed images: one row for each name of a digest.

Every function takes ``projects`` (None: all) and ignores images of other projects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from scanner.errors import NotFoundError
from scanner.model.decision import Verdict
from scanner.model.scan import ScanReport
from scanner.store import inventory
from scanner.store.images import evidence, purl_key
from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import (
    break_glass,
    component,
    decision,
    finding,
    first_seen,
    image,
    image_stack,
    listing,
    verdict,
    vulnerability,
)

# Values of a filter that are offered, the most frequent ones.
_FREQUENT = 50
UNSIGNED = "-"  # filter value: no verified signature


@dataclass(frozen=True)
class ListedImage:
    """A row of the images list: a digest under one name. ``counts``: findings by severity."""

    id: int
    project: str
    repository: str
    tag: str  # empty: the image was scanned by digest
    digest: str
    verdict: Verdict
    undecided: bool
    counts: Mapping[str, int]
    fixable: int
    failed_checks: int
    incomplete: int  # what could not be examined; it is never counted as clean
    size: int  # bytes, as transferred
    scanned_at: datetime
    report_id: str = ""  # of the evidence that is shown
    exploited: int = 0  # findings that are known to be exploited
    signer: str = ""  # of a verified signature; empty: none
    base: str = ""  # name of the base image; empty: unknown

    @property
    def name(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "")


@dataclass(frozen=True)
class DecisionView:
    id: int
    policy: str
    policy_version: int  # 0: the built-in policy
    environment: str
    verdict: Verdict
    undecided: bool
    decided_at: datetime
    scan_id: str | None  # None: decided again, from stored evidence
    document: str  # JSON, as the API answers it


@dataclass(frozen=True)
class AffectedImage:
    """An image with a vulnerability."""

    digest: str
    repository: str
    tag: str
    package: str
    version: str  # the installed one
    fixable: bool
    verdict: Verdict
    project: str
    first_seen: datetime | None  # in this repository, in this version of the package
    fixed: str = ""  # the version to upgrade the package to; empty: unknown, or none
    undecided: bool = False


@dataclass(frozen=True)
class Filter:
    """Criteria for images. All given ones must match.

    ``verdicts`` may contain ``undecided``. ``severities``: the image has a finding of one of them.
    """

    search: str = ""  # in repository, tag and digest
    verdicts: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    project: str = ""
    host: str = ""  # of the registry
    fixable: bool = False
    exploited: bool = False  # only with a finding that is known to be exploited
    signer: str = ""  # ``UNSIGNED``: only images without a verified signature
    base: str = ""
    repository: str | None = None  # the exact name; None: any
    running_in: str = ""  # an environment
    denied_in: str | None = None  # the gate denies it there: an environment, or "" for no environment
    new: timedelta | None = None  # something was first seen in its repository within this time

    def apply(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """Return the query with the criteria."""
        if self.search:
            pattern = "%" + literal(self.search.lower()) + "%"
            full = sa.func.lower(listing.c.repository + ":" + listing.c.tag + "@" + listing.c.digest)
            query = query.where(full.like(pattern, escape="\\"))
        if self.verdicts:
            plain = [v for v in self.verdicts if v != "undecided"]
            chosen = sa.and_(listing.c.verdict.in_(plain), listing.c.undecided.is_(False))
            query = query.where(
                sa.or_(chosen, listing.c.undecided.is_(True)) if "undecided" in self.verdicts else chosen
            )
        if self.severities:
            query = query.where(sa.or_(*(listing.c[name] > 0 for name in self.severities)))
        if self.project:
            query = query.where(listing.c.project == self.project)
        if self.host:
            query = query.where(listing.c.repository.like(literal(self.host) + "/%", escape="\\"))
        if self.fixable:
            query = query.where(listing.c.fixable > 0)
        if self.exploited:
            query = query.where(listing.c.exploited > 0)
        if self.signer:
            query = query.where(listing.c.signer == ("" if self.signer == UNSIGNED else self.signer))
        if self.base:
            query = query.where(listing.c.base == self.base)
        if self.repository is not None:
            query = query.where(listing.c.repository == self.repository)
        if self.running_in:
            query = query.where(listing.c.digest.in_(inventory.digests_in(self.running_in)))
        if self.denied_in is not None:
            query = query.where(_denied_in(self.denied_in))
        if self.new is not None:
            query = query.where(_newly_found(self.new))
        return query


def _denied_in(environment: str) -> sa.ColumnElement[bool]:
    """The current decision for an environment is a denial, and nobody lets the digest through in an emergency."""
    denied = (
        sa.select(verdict.c.digest)
        .join(decision, decision.c.id == verdict.c.decision_id)
        .where(
            verdict.c.digest == listing.c.digest,
            verdict.c.repository == listing.c.repository,
            verdict.c.environment == environment,
            decision.c.verdict == "deny",
        )
    )
    now = datetime.now(UTC).timestamp()
    let_through = sa.select(break_glass.c.digest).where(
        break_glass.c.digest == listing.c.digest, break_glass.c.ended_at.is_(None), break_glass.c.until > now
    )
    return sa.and_(sa.exists(denied), ~sa.exists(let_through))


def _newly_found(within: timedelta) -> sa.ColumnElement[bool]:
    since = datetime.now(UTC) - within
    found = (
        sa.select(first_seen.c.repository)
        .join(
            finding,
            (finding.c.component_id == first_seen.c.component_id)
            & (finding.c.vulnerability_id == first_seen.c.vulnerability_id),
        )
        .join(image, image.c.id == finding.c.image_id)
        .join(image_stack, image_stack.c.digest == image.c.digest)
        .where(
            first_seen.c.repository == listing.c.repository,
            first_seen.c.at >= since,
            image_stack.c.subject == listing.c.digest,
        )
    )
    return sa.exists(found)


_BIG = 1_000_000.0  # more findings of one severity than an image has
SORTS: Mapping[str, Any] = {
    "name": listing.c.repository + ":" + listing.c.tag,
    "verdict": sa.case(
        (listing.c.undecided.is_(True), 2), else_=sa.case({"allow": 0, "warn": 1, "deny": 3}, value=listing.c.verdict)
    ),
    "severity": ((sa.cast(listing.c.critical, sa.Float) * _BIG + listing.c.high) * _BIG + listing.c.medium),
    "fixable": listing.c.fixable,
    "failed_checks": listing.c.failed_checks,
    "scanned": listing.c.scanned_epoch,
}


@dataclass(frozen=True)
class Facets:
    """The number of images for each value of the filters."""

    verdicts: Mapping[str, int]
    projects: Mapping[str, int]
    hosts: Mapping[str, int]  # of registries
    signers: Mapping[str, int]  # the most frequent; ``UNSIGNED`` for images without a verified signature
    bases: Mapping[str, int]  # the most frequent
    exploited: int  # images with such a finding


def newest_report(session: Connection, digest: str, projects: frozenset[str] | None) -> tuple[str, ScanReport]:
    """Return the id and the newest evidence of a digest. Raises NotFoundError, also for other projects' images."""
    query = sa.select(listing.c.report_id).where(listing.c.digest == digest)
    if projects is not None:
        query = query.where(listing.c.project.in_(projects))
    report_id = session.execute(query.order_by(listing.c.scanned_epoch.desc()).limit(1)).scalar()
    if report_id is None:
        raise NotFoundError("there is no such image", hint="scan it first")
    return report_id, evidence(session, report_id)


def names(session: Connection, digest: str, projects: frozenset[str] | None) -> tuple[ListedImage, ...]:
    """Return up to 100 names of a digest, the last scanned first."""
    query = sa.select(*listing.c).where(listing.c.digest == digest).order_by(listing.c.scanned_epoch.desc()).limit(100)
    if projects is not None:
        query = query.where(listing.c.project.in_(projects))
    return tuple(listed_image(row._mapping) for row in session.execute(query))


def list_images(
    session: Connection,
    projects: frozenset[str] | None,
    narrowed: Filter | None = None,
    *,
    sort: str = "",
    cursor: str | None = None,
    limit: int = 50,
) -> Page[ListedImage]:
    """Return images, the last scanned first.

    ``sort``: one of ``SORTS``, with a leading minus for descending. An unknown one is ignored.
    """
    # An unknown sort is not an error: it comes from a bookmark or a saved view of another version.
    named = sort.removeprefix("-") if sort.removeprefix("-") in SORTS else "scanned"
    falling = sort.startswith("-") or named != sort
    key = SORTS[named].label("sort_key")
    columns = (key, listing.c.id)
    query: sa.Select[Any] = (
        sa.select(*listing.c, key).order_by(*(c.desc() if falling else c.asc() for c in columns)).limit(limit + 1)
    )
    if projects is not None:
        query = query.where(listing.c.project.in_(projects))
    query = (narrowed or Filter()).apply(query)
    if cursor:
        at, identifier = decode_cursor(cursor, (str if named == "name" else float, int))
        place, ordered = sa.tuple_(sa.literal(at), sa.literal(identifier)), sa.tuple_(SORTS[named], listing.c.id)
        query = query.where(ordered < place if falling else ordered > place)
    rows = [row._mapping for row in session.execute(query)]
    more = encode_cursor(rows[limit - 1]["sort_key"], rows[limit - 1]["id"]) if len(rows) > limit else None
    return Page(tuple(listed_image(row) for row in rows[:limit]), more)


def facets(session: Connection, projects: frozenset[str] | None) -> Facets:
    """Return the counts for the filters. A host is the part of a repository before its first slash."""
    slash = sa.func.instr if session.dialect.name == "sqlite" else sa.func.strpos
    host = sa.func.substr(listing.c.repository, 1, slash(listing.c.repository, "/") - 1)
    query = sa.select(listing.c.verdict, listing.c.undecided, listing.c.project, host.label("host"), sa.func.count())
    query = query.group_by(listing.c.verdict, listing.c.undecided, listing.c.project, sa.literal_column("host"))
    if projects is not None:
        query = query.where(listing.c.project.in_(projects))
    verdicts, names, hosts = Counter[str](), Counter[str](), Counter[str]()
    for name, undecided, project, where, count in session.execute(query):
        verdicts["undecided" if undecided else name] += count
        names[project] += count
        if where:
            hosts[where] += count
    signers = _frequent(session, listing.c.signer, projects)
    bases = _frequent(session, listing.c.base, projects)
    unsigned = signers.pop("", 0)
    bases.pop("", None)
    exploited = _within(sa.select(sa.func.count()).where(listing.c.exploited > 0), projects)
    return Facets(
        verdicts,
        names,
        hosts,
        {**signers, UNSIGNED: unsigned} if signers else {},
        bases,
        session.execute(exploited).scalar_one(),
    )


def listed_image(row: RowMapping) -> ListedImage:
    counts = {s: row[s] for s in ("critical", "high", "medium", "low", "unknown")}
    return ListedImage(
        row["id"],
        row["project"],
        row["repository"],
        row["tag"],
        row["digest"],
        Verdict(row["verdict"]),
        bool(row["undecided"]),
        counts,
        row["fixable"],
        row["failed_checks"],
        row["incomplete"],
        row["size"],
        row["scanned_at"],
        row["report_id"],
        row["exploited"],
        row["signer"],
        row["base"],
    )


def decisions(
    session: Connection,
    digest: str,
    projects: frozenset[str] | None = None,
    *,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[DecisionView]:
    """Return all decisions about a digest, the newest first, limited to its repositories in ``projects``."""
    query = sa.select(*decision.c).where(decision.c.digest == digest).order_by(decision.c.id.desc()).limit(limit + 1)
    if projects is not None:
        # A digest can be pushed to repositories of several projects. Decisions about another project's repository
        # name its policy and exemptions.
        own = sa.and_(listing.c.digest == digest, listing.c.project.in_(projects))
        query = query.where(decision.c.repository.in_(sa.select(listing.c.repository).where(own)))
    if cursor:
        query = query.where(decision.c.id < decode_cursor(cursor, (int,))[0])
    rows = session.execute(query).all()
    items = tuple(
        DecisionView(
            r.id,
            r.policy,
            r.policy_version,
            r.environment,
            Verdict(r.verdict),
            bool(r.undecided),
            r.decided_at,
            r.scan_id,
            r.document,
        )
        for r in rows[:limit]
    )
    return Page(items, encode_cursor(rows[limit - 1].id) if len(rows) > limit else None)


def is_fixable(session: Connection, project: str, name: str, purl: str = "") -> bool:
    """Return whether an image of the project has this vulnerability (in this package) and a fix is available."""
    return _has(session, project, name, purl, finding.c.fixable.is_(True))


def is_exploited(session: Connection, project: str, name: str, purl: str = "") -> bool:
    """Return whether an image of the project has this vulnerability (in this package) and it is known to be
    exploited.
    """
    return _has(session, project, name, purl, vulnerability.c.document["known_exploited"].as_boolean().is_(True))


def _has(session: Connection, project: str, name: str, purl: str, condition: sa.ColumnElement[bool]) -> bool:
    query = (
        sa.select(finding.c.image_id)
        .join(vulnerability, vulnerability.c.id == finding.c.vulnerability_id)
        .join(image, image.c.id == finding.c.image_id)
        .join(image_stack, image_stack.c.digest == image.c.digest)
        .join(listing, listing.c.digest == image_stack.c.subject)
        .where(vulnerability.c.name == name, listing.c.project == project, condition)
    )
    if purl:
        query = query.join(component, component.c.id == finding.c.component_id).where(
            component.c.purl == purl_key(purl)
        )
    return session.execute(query.limit(1)).first() is not None


def affected_images(
    session: Connection, name: str, projects: frozenset[str] | None, *, limit: int = 200
) -> tuple[RowMapping, tuple[AffectedImage, ...]]:
    """Return a vulnerability's row and the affected images.

    Raises NotFoundError if no image of ``projects`` has it, so that other projects' vulnerabilities do not leak.
    """
    advisory = session.execute(sa.select(*vulnerability.c).where(vulnerability.c.name == name)).first()
    if advisory is None:
        raise NotFoundError("no scanned image has such a vulnerability")
    query = (
        sa.select(
            listing.c.digest,
            listing.c.repository,
            listing.c.tag,
            component.c.name,
            component.c.version,
            finding.c.fixable,
            listing.c.verdict,
            listing.c.project,
            first_seen.c.at,
            finding.c.fixed,
            listing.c.undecided,
        )
        .select_from(finding)
        .join(component, component.c.id == finding.c.component_id)
        .join(image, image.c.id == finding.c.image_id)
        # A listing may be of an index, of which the image is one platform.
        .join(image_stack, image_stack.c.digest == image.c.digest)
        .join(listing, listing.c.digest == image_stack.c.subject)
        .outerjoin(
            first_seen,
            (first_seen.c.repository == listing.c.repository)
            & (first_seen.c.component_id == finding.c.component_id)
            & (first_seen.c.vulnerability_id == finding.c.vulnerability_id),
        )
        .where(finding.c.vulnerability_id == advisory.id)
        .order_by(listing.c.scanned_epoch.desc())
        .limit(limit)
    )
    if projects is not None:
        query = query.where(listing.c.project.in_(projects))
    found = (
        AffectedImage(
            r.digest,
            r.repository,
            r.tag,
            r.name,
            r.version,
            bool(r.fixable),
            Verdict(r.verdict),
            r.project,
            r.at,
            r.fixed or "",
            bool(r.undecided),
        )
        for r in session.execute(query)
    )
    rows = tuple(dict.fromkeys(found))  # several platforms of an index have the same package
    # Only for a caller who is limited. One who sees every project gets the advisory with an empty list: the image
    # that had it may have been pruned.
    if not rows and projects is not None:
        raise NotFoundError("no scanned image has such a vulnerability")
    return advisory._mapping, rows


def affected_products(
    session: Connection, name: str, project: str, *, limit: int = 5_000
) -> tuple[tuple[str, str, str], ...]:
    """Return repository, image digest and package URL of everything in a project that has a vulnerability.

    The digest is of the image itself, not of an index. A package URL that is too long to be stored is left out.
    """
    query = (
        sa.select(listing.c.repository, image.c.digest, component.c.purl)
        .select_from(finding)
        .join(vulnerability, vulnerability.c.id == finding.c.vulnerability_id)
        .join(component, component.c.id == finding.c.component_id)
        .join(image, image.c.id == finding.c.image_id)
        .join(image_stack, image_stack.c.digest == image.c.digest)
        .join(listing, listing.c.digest == image_stack.c.subject)
        .where(vulnerability.c.name == name, listing.c.project == project, component.c.purl.like("pkg:%"))
        .distinct()
        .order_by(listing.c.repository, image.c.digest, component.c.purl)
        .limit(limit)
    )
    return tuple((row.repository, str(row.digest), row.purl) for row in session.execute(query))


def literal(text: str) -> str:
    """Return ``text`` escaped for a LIKE pattern with the escape character ``\\``."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _frequent(session: Connection, column: sa.Column[Any], projects: frozenset[str] | None) -> dict[str, int]:
    query = _within(sa.select(column, sa.func.count().label("n")), projects).group_by(column)
    rows = session.execute(query.order_by(sa.literal_column("n").desc(), column).limit(_FREQUENT))
    return {row[0]: row[1] for row in rows}


def _within(query: sa.Select[Any], projects: frozenset[str] | None) -> sa.Select[Any]:
    return query if projects is None else query.where(listing.c.project.in_(projects))
