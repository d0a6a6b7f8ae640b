"""Daily figures: one row per day and project, with the day's last values.

Workers update the row every few minutes. Days without a worker are missing, not zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.store.schema import listing, trend
from scanner.store.session import moment, put

EVERY = timedelta(minutes=10)
_COUNTED = ("critical", "high", "medium", "low", "unknown", "fixable")
_VERDICTS = ("allow", "warn", "deny", "undecided")


@dataclass(frozen=True)
class Day:
    """The last figures of a day: images by verdict, findings by severity."""

    day: date
    allow: int
    warn: int
    deny: int
    undecided: int
    critical: int
    high: int
    medium: int
    low: int
    unknown: int
    fixable: int  # findings with a fix, of any severity

    @property
    def images(self) -> int:
        return self.allow + self.warn + self.deny + self.undecided


def note(session: Connection) -> bool:
    """Record today's figures unless they were recorded within ``EVERY``. Returns whether it did."""
    now = moment(session)
    last = session.execute(sa.select(sa.func.max(trend.c.noted_at, type_=trend.c.noted_at.type))).scalar()
    if last is not None and now - last < EVERY:
        return False
    decided = {
        name: sa.and_(listing.c.verdict == name, listing.c.undecided.is_(False)) for name in ("allow", "warn", "deny")
    }
    decided["undecided"] = listing.c.undecided.is_(True)
    columns = [sa.func.sum(sa.case((condition, 1), else_=0)).label(name) for name, condition in decided.items()]
    columns += [sa.func.sum(listing.c[name]).label(name) for name in _COUNTED]
    for row in (
        session.execute(sa.select(listing.c.project, *columns).group_by(listing.c.project).order_by(listing.c.project))
        .mappings()
        .all()
    ):
        put(session, trend, {**row, "day": now.date(), "noted_at": now}, ("project", "day"))
    return True


def days(session: Connection, projects: frozenset[str] | None, since: date) -> Sequence[Day]:
    """Return the summed figures of the projects, the oldest day first."""
    summed = [sa.func.sum(trend.c[name]).label(name) for name in (*_VERDICTS, *_COUNTED)]
    query = sa.select(trend.c.day, *summed).where(trend.c.day >= since).group_by(trend.c.day).order_by(trend.c.day)
    if projects is not None:
        query = query.where(trend.c.project.in_(projects))
    return [Day(**row) for row in session.execute(query).mappings()]
