"""The overview page: what needs attention now, and the trend of the last 90 days."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from flask import Blueprint, current_app

from scanner.services.gate import environment_in_force
from scanner.store import exemptions, inventory, listings, overview, trend, trust
from web.auth import permission, principal
from web.pages.base import NavigationItem, page
from web.pages.charts import Part, bar
from web.pages.exemptions import SOON
from web.resources import resources

bp = Blueprint("overview_page", __name__)
NAVIGATION = NavigationItem(10, "overview_page.index", "Overview", "read")

_DAYS, _SHOWN = 90, 6
_SIGNED_SOON = timedelta(days=30)


@bp.get("/overview")
@permission("read")
def index() -> str:
    """Show denials in production, new findings since yesterday, undecided images, and how current our own data is."""
    projects = principal().projects
    with resources().database.read() as session:
        counts = listings.facets(session, projects).verdicts
        where = environment_in_force(session, overview.PRODUCTION)
        denied_count, denied = overview.denied_tags(session, projects, where)
        running = inventory.facets(session, projects)
        worst = inventory.list_workloads(
            session, projects, inventory.Filter(verdicts=("deny", "undecided")), limit=_SHOWN
        )
        new_count, new = overview.new_vulnerabilities(session, projects)
        unknown_count, unknown = overview.undecided(session, projects)
        given_up = overview.given_up(session, projects)
        now = datetime.now(UTC)
        ending = exemptions.list_exemptions(
            session, projects, states=("approved",), ends_before=now + SOON, limit=_SHOWN
        ).items
        unsigned_soon, signatures = trust.ending_signatures(session, projects, now + _SIGNED_SOON)
        waiting = exemptions.counts(session, projects).get("requested", 0)
        days = trend.days(session, projects, now.date() - timedelta(days=_DAYS))
    labels = (("allow", "allowed"), ("warn", "allowed with warnings"), ("deny", "denied"), ("undecided", "not decided"))
    parts = [Part(name, label, counts.get(name, 0)) for name, label in labels]
    readiness = current_app.extensions["readiness"].checks(resources())
    return page(
        "overview.html",
        running=running,
        worst=worst.items,
        total=sum(counts.values()),
        parts=parts,
        segments=bar(parts),
        denied_count=denied_count,
        production=overview.PRODUCTION,
        severe=[severity.value for severity in overview.SEVERE],
        denied=denied,
        new_count=new_count,
        new=new,
        unknown_count=unknown_count,
        unknown=unknown,
        given_up=given_up,
        days=days,
        series=_series(days),
        unsigned_soon=unsigned_soon,
        signatures=signatures,
        ending=ending,
        waiting=waiting,
        unwell=[check for check in readiness if not check.ok],
    )


def _series(days: Sequence[trend.Day]) -> dict[str, list[float]]:
    """The data series of the chart, oldest first; ``x`` is seconds since 1970 at midnight UTC."""
    return {
        "x": [datetime(d.day.year, d.day.month, d.day.day, tzinfo=UTC).timestamp() for d in days],
        "denied": [d.deny + d.undecided for d in days],
        "critical": [d.critical for d in days],
        "high": [d.high for d in days],
    }
