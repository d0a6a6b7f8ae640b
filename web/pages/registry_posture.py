"""The page of one registry: security posture, evidence, remedies and check history."""

from __future__ import annotations

from flask import Blueprint, Response, redirect, url_for

from scanner import catalog, queue
from scanner.model.finding import CheckResult, Failed, Severity
from scanner.model.scan import Lane
from scanner.services import registries as use_cases
from scanner.store import registries, registry_checks
from web.auth import permission, principal
from web.pages.base import page
from web.resources import resources

bp = Blueprint("registry_posture_page", __name__)
_ORDER = ("failed", "incomplete", "passed", "not-applicable")


@bp.get("/registries/<registry_id>")
@permission("manage")
def one(registry_id: str) -> str:
    """Show the newest posture, failures first, and the latest checks."""
    with resources().database.read() as session:
        view = registries.get(session, registry_id, principal().projects)
        found = registry_checks.latest(session, registry_id)
        past = registry_checks.history(session, registry_id, 10)
    results = sorted(found.results, key=_rank) if found else []
    kinds: list[str] = [result.outcome.kind for result in results]
    counts = {kind: kinds.count(kind) for kind in _ORDER}
    waiting = bool(past) and past[0].ended_at is None
    return page(
        "registry.html",
        registry=view,
        posture=found,
        results=results,
        counts=counts,
        past=past,
        waiting=waiting,
        severity_of=_severity,
        catalog=catalog.registry_checks(),
    )


@bp.post("/registries/<registry_id>/check")
@permission("manage")
def check(registry_id: str) -> Response:
    """Queue a check. A worker runs it."""
    with resources().database.session() as session:
        use_cases.examine(session, principal(), registry_id)
    queue.enqueue(resources().celery, "", Lane.BACKGROUND)
    return redirect(url_for("registry_posture_page.one", registry_id=registry_id), 303)  # type: ignore[return-value]


def _severity(result: CheckResult) -> Severity:
    return (isinstance(result.outcome, Failed) and result.outcome.severity) or result.severity


def _rank(result: CheckResult) -> tuple[int, int]:
    return _ORDER.index(result.outcome.kind), -_severity(result).rank
