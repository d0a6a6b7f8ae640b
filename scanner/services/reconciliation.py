"""Reconciliation: polls of a registry find pushes that its webhooks lost, and imports scan what was there before.

Both are jobs of a worker. A server connects to the registry with its stored credentials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.engine import Connection

from scanner.config import Retention
from scanner.errors import ConflictError, NotFoundError
from scanner.model import glob
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.scan import ScanState
from scanner.services import _fields as fields
from scanner.store import audit, jobs, reconciliation, registries
from scanner.store.session import moment

SHORTEST, LONGEST = 300, 7 * 86400  # seconds between polls
PATTERNS_MOST = 50
_ENOUGH = 5  # ended scans, before their pace predicts the rest


@dataclass(frozen=True)
class ImportView:
    """An import, or the count of one.

    ``phase``: counting, queueing, scanning or ended. ``tags`` were found in ``repositories``; ``known`` of them have
    been scanned before. ``queued`` scans were requested, ``ended`` of them ended, ``failed`` of those without a result.
    ``seconds_left`` None: it cannot be estimated yet.
    """

    id: str
    dry_run: bool  # tags are counted, and no scan is queued
    phase: str
    state: ScanState
    repositories: int
    tags: int
    known: int
    queued: int
    ended: int
    failed: int
    seconds_left: int | None
    problems: tuple[str, ...]
    message: str
    job: jobs.JobView
    listed_by: reconciliation.ListedBy = reconciliation.ListedBy()

    @property
    def remaining(self) -> int:
        """How many tags are not scanned yet."""
        return max(0, self.tags - self.known - self.ended)


def settings(session: Connection, actor: Actor, registry_id: str) -> reconciliation.PollView:
    """Return how a registry is polled, and its last result. Raises NotFoundError."""
    return reconciliation.get(session, registries.get(session, registry_id, actor.projects).id)


def change(
    session: Connection,
    actor: Actor,
    registry_id: str,
    *,
    seconds: int | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    list_by: reconciliation.ListBy | None = None,
) -> reconciliation.PollView:
    """Change the given fields. ``seconds`` 0: no polls. Raises UsageError naming the field, NotFoundError."""
    actor.require_every_project()
    registry = registries.get(session, registry_id)
    former = reconciliation.get(session, registry.id)
    if seconds is not None and seconds != 0 and not SHORTEST <= seconds <= LONGEST:
        raise fields.invalid(
            "interval", "a registry is polled every 5 minutes to 7 days", "write for example 1h, or off"
        )
    for name, patterns in (("include", include), ("exclude", exclude)):
        _check(name, patterns or ())
    found = reconciliation.put_settings(
        session,
        registry.id,
        former.seconds if seconds is None else seconds,
        former.include if include is None else include,
        former.exclude if exclude is None else exclude,
        former.list_by if list_by is None else list_by,
    )
    detail = {"host": registry.host, "members": ["poll"], "interval": found.seconds, "list_by": found.list_by.value}
    audit.record(session, actor, Action.REGISTRY_CHANGE, registry.id, detail=detail)
    return found


def interval(text: str) -> int:
    """Parse an interval, such as ``15m`` or ``1h``; ``off``: 0. Raises UsageError."""
    if text.strip().lower() == "off":
        return 0
    try:
        return Retention.parse(text).seconds
    except ValueError:
        raise fields.invalid(
            "interval", f"not an interval: {text[:40]!r}", "write for example 15m, 1h, 1d or off"
        ) from None


def list_by(text: str) -> reconciliation.ListBy:
    """Parse where repositories are to be listed. Raises UsageError."""
    try:
        return reconciliation.ListBy(text)
    except ValueError:
        hint = "one of " + ", ".join(reconciliation.ListBy)
        raise fields.invalid("list_by", f"not a list of repositories: {text[:40]!r}", hint) from None


def duration(seconds: int) -> str:
    """Return ``3 h 20 min`` for estimates and intervals."""
    if seconds < 90:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours // 24} d {hours % 24} h" if hours >= 48 else f"{hours} h {minutes} min"


def _check(name: str, patterns: Sequence[str]) -> None:
    for pattern in fields.at_most(name, patterns, PATTERNS_MOST):
        if wrong := glob.problem(pattern):
            hint = "write a repository without its host, such as shop/**"
            raise fields.invalid(name, f"{pattern[:100]!r} cannot be a pattern: {wrong}", hint)


def poll(session: Connection, actor: Actor, registry_id: str) -> jobs.JobView:
    """Request a poll now, or hasten the unfinished one. Raises NotFoundError, RefusedError."""
    actor.require_every_project()
    registry = registries.get(session, registry_id)
    job = jobs.get(session, jobs.request(session, jobs.POLL, registry.id, actor.name, {"now": True}))
    if not job.parameters.get("held"):  # a pause that the registry asked for is kept
        jobs.hasten(session, job.id, {**job.parameters, "now": True})
    audit.record(session, actor, Action.REGISTRY_POLL, registry.host, detail={"job": job.id})
    return job


def last_poll(session: Connection, actor: Actor, registry_id: str) -> jobs.JobView | None:
    """Return the newest poll of a registry, which may be running. Raises NotFoundError."""
    return jobs.last(session, jobs.POLL, registries.get(session, registry_id, actor.projects).id)


def schedule(session: Connection) -> int:
    """Request the polls that are due. Returns their number."""
    number = 0
    for registry_id in reconciliation.due(session):
        # The row is moved on first, and only the process that moved it requests the poll: several schedulers request
        # one.
        if reconciliation.postpone(session, registry_id):
            jobs.request(session, jobs.POLL, registry_id, "schedule")
            number += 1
    return number


def start_import(
    session: Connection,
    actor: Actor,
    registry_id: str,
    *,
    dry_run: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> ImportView:
    """Request an import of the registry's images, or with ``dry_run`` the count of what it would scan.

    An unfinished count is replaced. Raises ConflictError(reason="in_progress") while an import is unfinished,
    UsageError naming the field, NotFoundError, RefusedError.
    """
    actor.require_every_project()
    registry = registries.get(session, registry_id)
    _check("include", include)
    _check("exclude", exclude)
    last = jobs.last(session, jobs.IMPORT, registry.id)
    if last is not None and not last.state.terminal:
        if not last.parameters.get("dry_run"):
            hint = "wait for its end, or cancel it"
            raise ConflictError(f"an import of {registry.host} is unfinished", reason="in_progress", hint=hint)
        # A count has no effect besides its result, so a new request replaces it.
        jobs.cancel(session, last.id)
    parameters = {"dry_run": dry_run, "include": list(include), "exclude": list(exclude)}
    job = jobs.get(session, jobs.request(session, jobs.IMPORT, registry.id, actor.name, parameters))
    if not dry_run:
        audit.record(session, actor, Action.REGISTRY_IMPORT, registry.host, detail={"job": job.id})
    return _view(session, job)


def last_import(session: Connection, actor: Actor, registry_id: str) -> ImportView | None:
    """Return the newest import or count of a registry. None: there is none. Raises NotFoundError."""
    job = jobs.last(session, jobs.IMPORT, registries.get(session, registry_id, actor.projects).id)
    return _view(session, job) if job else None


def cancel_import(session: Connection, actor: Actor, registry_id: str) -> ImportView:
    """Cancel the unfinished import, and its scans that wait. Finished scans are kept.

    Raises NotFoundError, RefusedError, ConflictError if there is none.
    """
    actor.require_every_project()
    registry = registries.get(session, registry_id)
    last = jobs.last(session, jobs.IMPORT, registry.id)
    if last is None:
        raise NotFoundError(f"{registry.host} was never imported")
    if not jobs.cancel(session, last.id):
        raise ConflictError(f"the import is already {last.state}", reason="already_ended")
    stopped = reconciliation.cancel_scans(session, last.id)
    detail = {"registry": registry.host, "scans": stopped}
    audit.record(session, actor, Action.JOB_CANCEL, last.id, detail=detail)
    return _view(session, jobs.get(session, last.id))


def _view(session: Connection, job: jobs.JobView) -> ImportView:
    counts = job.parameters.get("counts") or {}
    queued, ended, failed = reconciliation.scans_of(session, job.id)
    dry_run = bool(job.parameters.get("dry_run"))
    tags, known = int(counts.get("total", 0)), int(counts.get("known", 0))
    phase = "ended" if job.state.terminal else str(job.parameters.get("phase") or "counting")
    left = None
    if dry_run:
        left = round((tags - known) * reconciliation.seconds_per_scan(session)) or None
    elif ended >= _ENOUGH and not job.state.terminal and job.started_at:
        pace = (moment(session) - job.started_at) / ended
        left = round(max(timedelta(), pace * (tags - known - ended)).total_seconds())
    return ImportView(
        job.id,
        dry_run,
        phase,
        job.state,
        int(counts.get("repositories", 0)),
        tags,
        known,
        queued,
        ended,
        failed,
        left,
        tuple(job.parameters.get("problems") or ()),
        job.message,
        job,
        reconciliation.listed_by(job.parameters),
    )
