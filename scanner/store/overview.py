"""The data of the overview page. Every query is limited and uses an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.model.finding import Severity
from scanner.store.listings import Filter, ListedImage, list_images
from scanner.store.scans import unrepeated_failures
from scanner.store.schema import finding, first_seen, listing, scan, vulnerability
from scanner.store.session import moment
from scanner.store.vulnerabilities import images_with_findings

PRODUCTION = "production"
SEVERE = (Severity.CRITICAL, Severity.HIGH, Severity.UNKNOWN)  # an unknown severity may be critical


@dataclass(frozen=True)
class NewVulnerability:
    """A vulnerability that was first seen recently. ``repositories``: the number of affected ones."""

    name: str
    severity: Severity
    title: str
    repositories: int
    first_seen: datetime


NEW = timedelta(days=1)


def denied_tags(
    session: Connection, projects: frozenset[str] | None, environment: str = PRODUCTION, limit: int = 6
) -> tuple[int, Sequence[ListedImage]]:
    """Return the number of tags that the gate denies in an environment, and the last scanned ones.

    ``environment``: the one whose decisions count there; see ``services.gate.environment_in_force``.
    """
    return _images(session, projects, Filter(denied_in=environment), limit)


def new_vulnerabilities(
    session: Connection, projects: frozenset[str] | None, since: timedelta = NEW, limit: int = 6
) -> tuple[int, Sequence[NewVulnerability]]:
    """Return the number of new critical, high and unrated vulnerabilities within ``since``, and the worst ones.

    An unknown severity is included, because it may be critical.
    """
    query = (
        sa.select(
            vulnerability.c.name,
            vulnerability.c.severity,
            vulnerability.c.title,
            sa.func.count(sa.distinct(first_seen.c.repository)).label("repositories"),
            sa.func.min(first_seen.c.at, type_=first_seen.c.at.type).label("first_seen"),
            sa.func.count().over().label("total"),  # of the groups, before the limit
        )
        .join(vulnerability, vulnerability.c.id == first_seen.c.vulnerability_id)
        .where(first_seen.c.at >= moment(session) - since, vulnerability.c.severity.in_(SEVERE), _present(projects))
        .group_by(vulnerability.c.id, vulnerability.c.name, vulnerability.c.severity, vulnerability.c.title)
    )
    if projects is not None:
        theirs = sa.select(listing.c.repository).where(listing.c.project.in_(projects))
        query = query.where(first_seen.c.repository.in_(theirs))
    worst = sa.case({"critical": 0, "unknown": 1}, value=vulnerability.c.severity, else_=2)
    ordered = query.order_by(worst, sa.literal_column("repositories").desc(), vulnerability.c.name).limit(limit)
    rows = session.execute(ordered).all()
    found = [NewVulnerability(r.name, Severity(r.severity), r.title, r.repositories, r.first_seen) for r in rows]
    return (rows[0].total if rows else 0), found


def _present(projects: frozenset[str] | None) -> sa.ColumnElement[bool]:
    """An image that is listed has it: what only former images had is not new."""
    return sa.exists(images_with_findings(projects).where(finding.c.vulnerability_id == vulnerability.c.id))


def undecided(
    session: Connection, projects: frozenset[str] | None, limit: int = 6
) -> tuple[int, Sequence[ListedImage]]:
    """Return the number of undecided images and the last scanned ones: their evidence is incomplete."""
    return _images(session, projects, Filter(verdicts=("undecided",)), limit)


def _images(
    session: Connection, projects: frozenset[str] | None, narrowed: Filter, limit: int
) -> tuple[int, Sequence[ListedImage]]:
    """Count and list by the filter of the images list, so that the numbers are those of the list they link to."""
    query = narrowed.apply(sa.select(sa.func.count()).select_from(listing))
    if projects is not None:
        query = query.where(listing.c.project.in_(projects))
    return session.execute(query).scalar_one(), list_images(session, projects, narrowed, limit=limit).items


def given_up(session: Connection, projects: frozenset[str] | None) -> int:
    """Return the number of failed scans of the last 7 days that were not repeated."""
    query = sa.select(sa.func.count()).where(*unrepeated_failures(session))
    if projects is not None:
        query = query.where(scan.c.project.in_(projects))
    return int(session.execute(query).scalar_one())
