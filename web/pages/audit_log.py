"""The audit log page: who did what, when and from which address."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from flask import Blueprint, request

from scanner.errors import UsageError
from scanner.model.audit import by_subject
from scanner.services import audit_log
from scanner.store import audit
from web.auth import everywhere, permission
from web.pages.base import PAGE_SIZE, NavigationItem, here, page
from web.resources import resources

bp = Blueprint("audit_log_page", __name__)
NAVIGATION = NavigationItem(90, "audit_log_page.index", "Audit log", "audit")


@bp.get("/audit-log")
@permission("audit")
def index() -> str:
    """List entries, newest first, filtered by actor, action, object and date."""
    everywhere()
    given = {name: request.args.get(name, "").strip()[:400] for name in ("actor", "action", "object", "since", "until")}
    since, until = _day(given["since"]), _day(given["until"])
    chosen = audit.Filter(
        given["actor"], given["action"], given["object"], since, until + timedelta(days=1) if until else None
    )
    with resources().database.read() as session:
        found = audit.list_entries(session, chosen, cursor=request.args.get("cursor"), limit=PAGE_SIZE)
        readable_entries = audit_log.readable(session, found.items)
    template = "audit_log_list.html" if request.headers.get("HX-Request") else "audit_log.html"
    return page(
        template,
        found=found,
        readable_entries=readable_entries,
        given=given,
        filtered=chosen != audit.Filter(),
        chosen=chosen,
        actions=by_subject(),
        here=here,
    )


def _day(text: str) -> datetime | None:
    """Parse a date as its start in UTC. Raises UsageError if the text is not a date."""
    try:
        return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC) if text else None
    except ValueError:
        raise UsageError(f"{text!r} is not a date", reason="invalid", hint="use YYYY-MM-DD") from None
