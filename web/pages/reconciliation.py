"""The page of a registry's polls and import: settings, last result, lost pushes, progress of the import."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from flask import Blueprint, Response, request, url_for
from sqlalchemy.engine import Connection

from scanner.errors import NotFoundError
from scanner.services import reconciliation as use_cases
from scanner.store import deliveries, reconciliation, registries
from scanner.store.reconciliation import FoundKind, ListBy
from web.auth import permission, principal
from web.pages.base import here, page
from web.pages.forms import carry_out, showable, whole_number
from web.resources import resources

bp = Blueprint("reconciliation_page", __name__)
_SHOWN = 25
INTERVALS = {
    0: "off",
    900: "every 15 minutes",
    3600: "every hour",
    6 * 3600: "every 6 hours",
    86400: "every day",
}

LISTS = {
    ListBy.AUTO.value: "the best list that answers",
    ListBy.OWN.value: "the registry's own API",
    ListBy.CATALOG.value: "the catalogue (/v2/_catalog)",
    ListBy.KNOWN.value: "what pushes and scans have named",
}


@bp.get("/registries/<registry_id>/polls")
@permission("manage")
def index(registry_id: str) -> str:
    """Show how a registry is polled, what polls found, and its import."""
    return _page(registry_id)


@bp.post("/registries/<registry_id>/polls")
@permission("manage")
def change(registry_id: str) -> Response:
    """Change the interval, the patterns and the list."""
    given = {"include": request.form.get("include", "").split(), "exclude": request.form.get("exclude", "").split()}
    seconds = whole_number(request.form.get("interval", ""))
    chosen = request.form.get("list_by", ListBy.AUTO.value)

    def work(session: Connection) -> object:
        list_by = use_cases.list_by(chosen)
        return use_cases.change(session, principal(), registry_id, seconds=seconds, list_by=list_by, **given)

    return _run_and_show(registry_id, work, {**given, "interval": seconds, "list_by": chosen})


@bp.post("/registries/<registry_id>/polls/<action>")
@permission("manage")
def act(registry_id: str, action: str) -> Response:
    """Poll now; count, start or cancel an import."""
    selected = {name: request.form.get(f"import_{name}", "").split() for name in ("include", "exclude")}

    def work(session: Connection) -> object:
        if action == "now":
            return use_cases.poll(session, principal(), registry_id)
        if action == "cancel-import":
            return use_cases.cancel_import(session, principal(), registry_id)
        return use_cases.start_import(session, principal(), registry_id, dry_run=action == "count", **selected)

    if action not in ("now", "count", "import", "cancel-import"):
        raise NotFoundError("unknown action")

    return _run_and_show(registry_id, work, {f"import_{name}": patterns for name, patterns in selected.items()})


@bp.get("/registries/<registry_id>/polls/progress")
@permission("manage")
def progress(registry_id: str) -> str:
    """Show the state of the poll and the import. The fragment refreshes while one is unfinished."""
    return page("registry_runs.html", **_runs(registry_id))


def _run_and_show(registry_id: str, work: Callable[[Connection], object], kept: dict[str, Any]) -> Response:
    principal().require_every_project()
    return carry_out(
        work,
        lambda refused: _page(registry_id, kept, refused.problems, refused.fields),
        url_for("reconciliation_page.index", registry_id=registry_id),
    )


def _runs(registry_id: str) -> dict[str, Any]:
    with resources().database.read() as session:
        view = registries.get(session, registry_id, principal().projects)
        poll = use_cases.settings(session, principal(), registry_id)
        run = use_cases.last_poll(session, principal(), registry_id)
        imported = use_cases.last_import(session, principal(), registry_id)
    active = (run is not None and not run.state.terminal) or (imported is not None and not imported.state.terminal)
    return {
        "registry": view,
        "poll": poll,
        "run": run,
        "imported": imported,
        "active": active,
        "duration": use_cases.duration,
        "may_edit": principal().projects is None,
    }


def _page(
    registry_id: str,
    kept: dict[str, Any] | None = None,
    problems: Sequence[str] = (),
    wrong: Collection[str] = (),
) -> str:
    runs = _runs(registry_id)
    with resources().database.read() as session:
        found = reconciliation.list_found_tags(
            session,
            principal().projects,
            registry_id=registry_id,
            kinds=(FoundKind.LOST, FoundKind.UNANNOUNCED, FoundKind.FIRST),
            cursor=request.args.get("cursor"),
            limit=_SHOWN,
        )
        hooks = [h for h in deliveries.list_hooks(session, principal().projects) if h.registry_id == registry_id]
        lost = reconciliation.lost_by_webhook(session)
    poll: reconciliation.PollView = runs["poll"]
    values = {"interval": poll.seconds, "include": poll.include, "exclude": poll.exclude, "list_by": poll.list_by}
    values |= showable(kept)
    intervals = INTERVALS | (
        {} if poll.seconds in INTERVALS else {poll.seconds: f"every {use_cases.duration(poll.seconds)}"}
    )
    return page(
        "registry_polls.html",
        **runs,
        found=found,
        hooks=hooks,
        lost=lost,
        values=values,
        intervals=dict(sorted(intervals.items())),
        lists=LISTS,
        problems=problems,
        wrong=wrong,
        here=here,
    )
