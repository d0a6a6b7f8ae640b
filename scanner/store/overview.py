"""The data of the overview page. Every query is limited and uses an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.model.finding import Severity
from scanner.store.listings import ListedImage, listed
from scanner.store.schema import decision, first_seen, listing, scan, verdict, vulnerability
from scanner.store.session import moment

PRODUCTION = "production"


@dataclass(frozen=True)
class DeniedImage:
    """An image that is denied in an environment."""

    digest: str
    repository: str
    environment: str
    undecided: bool
    decided_at: datetime


@dataclass(frozen=True)
class NewVulnerability:
    """A vulnerability that was first seen recently. ``repositories``: the number of affected ones."""

    name: str
    severity: Severity
    title: str
    repositories: int
    first_seen: datetime


def denied(
    session: Connection, projects: frozenset[str] | None, environment: str = PRODUCTION, limit: int = 6
) -> tuple[int, Sequence[DeniedImage]]:
    """Return the number of denied images of an environment, and the last decided ones."""
    query = (
        sa.select(
            verdict.c.digest, verdict.c.repository, verdict.c.environment, decision.c.undecided, decision.c.decided_at
        )
        .join(decision, decision.c.id == verdict.c.decision_id)
        .where(verdict.c.environment == environment, decision.c.verdict == "deny")
    )
    if projects is not None:
        query = query.where(verdict.c.project.in_(projects))
    count = session.execute(sa.select(sa.func.count()).select_from(query.subquery())).scalar_one()
    rows = session.execute(query.order_by(decision.c.id.desc()).limit(limit))
    return count, [DeniedImage(r.digest, r.repository, r.environment, bool(r.undecided), r.decided_at) for r in rows]


def new_vulnerabilities(
    session: Connection, projects: frozenset[str] | None, since: timedelta = timedelta(days=1), limit: int = 6
) -> tuple[int, Sequence[NewVulnerability]]:
    """Return the number of new critical, high and unrated vulnerabilities within ``since``, and the worst ones.

    An unknown severity is included, because it may be critical.
    """
    severe = (Severity.CRITICAL, Severity.HIGH, Severity.UNKNOWN)
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
        .where(first_seen.c.at >= moment(session) - since, vulnerability.c.severity.in_(severe))
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


def undecided(
    session: Connection, projects: frozenset[str] | None, limit: int = 6
) -> tuple[int, Sequence[ListedImage]]:
    """Return the number of undecided images and the last scanned ones: their evidence is incomplete."""
    query = sa.select(*listing.c).where(listing.c.undecided.is_(True))
    if projects is not None:
        query = query.where(listing.c.project.in_(projects))
    count = session.execute(sa.select(sa.func.count()).select_from(query.subquery())).scalar_one()
    newest = query.order_by(listing.c.scanned_epoch.desc(), listing.c.id.desc()).limit(limit)
    return count, [listed(row._mapping) for row in session.execute(newest)]


def given_up(session: Connection, projects: frozenset[str] | None) -> int:
    """Return the number of failed scans of the last 7 days that were not repeated."""
    again = sa.select(scan.c.supersedes).where(scan.c.supersedes.is_not(None))
    recent = scan.c.created_at >= moment(session) - timedelta(days=7)
    query = sa.select(sa.func.count()).where(scan.c.state.in_(("dead", "failed")), recent, scan.c.id.not_in(again))
    if projects is not None:
        query = query.where(scan.c.project.in_(projects))
    return int(session.execute(query).scalar_one())
