"""Scans that somebody asks for: which project they belong to, asking again, stopping one, replaying a delivery.

The caller enqueues the tickets that were created, after its transaction.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.errors import ConflictError, NotFoundError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.reference import Reference
from scanner.model.scan import ScanRequest
from scanner.services import projects
from scanner.store import audit, deliveries, scans
from scanner.store import projects as stored_projects


def project_of(session: Connection, actor: Actor, asked: str | None, reference: Reference) -> str:
    """The project that was asked for, else the one that owns the repository.

    Raises NotFoundError unless it exists and the actor sees it: the same answer for both.
    """
    if asked is None:
        asked = stored_projects.owner(session, reference.name)
        own = actor.projects
        if own is not None and len(own) == 1 and asked not in own:
            (asked,) = own  # whether somebody else owns the name is not told: the scan finds no such registry there
    return projects.named(session, actor, asked)


def request(
    session: Connection, actor: Actor, asked: ScanRequest, *, idempotency_key: str | None = None
) -> tuple[scans.Ticket, scans.ScanView]:
    """Record a request, or join one for the same thing that is still queued; ``asked.project`` is from `project_of`.

    ``idempotency_key`` is the actor's own: the same key again leads to the same scan. Raises NotFoundError for an
    engine that does not exist, ConflictError(reason="idempotency_key_reused") when the key was used for another
    request.
    """
    if asked.engine not in catalog.engine_choices():
        hint = "one of " + ", ".join(catalog.engine_choices())
        raise NotFoundError(f"there is no engine {asked.engine!r}", hint=hint, field="engine")
    key = f"{actor.id}:{idempotency_key}" if idempotency_key else None
    ticket = scans.request(session, replace(asked, requested_by=actor.name), idempotency_key=key)
    scan = scans.get(session, ticket.scan_id, actor.projects)
    if key and _identity(scan.request) != _identity(asked):
        raise ConflictError("this Idempotency-Key was used for another request", reason="idempotency_key_reused")
    if ticket.created:
        detail = {"scan": ticket.scan_id, "project": asked.project}
        audit.record(session, actor, Action.SCAN_REQUEST, asked.target, detail=detail)
    return ticket, scan


def cancel(session: Connection, actor: Actor, scan_id: str) -> scans.ScanView:
    """Stop a scan. A worker that has it notices within seconds and writes nothing more.

    Raises NotFoundError, ConflictError(reason="already_ended").
    """
    scan = scans.get(session, scan_id, actor.projects)
    if scan.state.terminal:
        raise ConflictError(f"the scan is already {scan.state}", reason="already_ended")
    scans.cancel(session, scan.id)
    audit.record(session, actor, Action.SCAN_CANCEL, scan.id, detail={"target": scan.request.target})
    return scans.get(session, scan.id, actor.projects)


def rescan(session: Connection, actor: Actor, scan_id: str) -> tuple[scans.Ticket, scans.ScanView]:
    """A new scan of what this one was of; this one stays as it is.

    Raises NotFoundError, ConflictError(reason="not_ended").
    """
    former = scans.get(session, scan_id, actor.projects)
    if not former.state.terminal:
        raise ConflictError(f"the scan is still {former.state}", reason="not_ended")
    ticket = scans.rescan(session, former.id, actor.name)
    audit.record(session, actor, Action.SCAN_RESCAN, former.id, detail={"target": former.request.target})
    return ticket, scans.get(session, ticket.scan_id, actor.projects)


def replay(session: Connection, actor: Actor, delivery_id: str) -> list[tuple[scans.Ticket, scans.ScanView]]:
    """The scans that a delivery leads to now, each with the one before: new for those that have ended, else the one
    under way.

    Raises NotFoundError, ConflictError(reason="nothing_to_replay").
    """
    delivery = deliveries.get(session, delivery_id, actor.projects)
    if not delivery.scans:
        raise ConflictError("this delivery led to no scan", reason="nothing_to_replay")
    tickets: list[tuple[scans.Ticket, scans.ScanView]] = []
    for scan_id in delivery.scans:
        former = scans.get(session, scan_id, actor.projects)
        known = scans.Ticket(former.id, created=False)
        ticket = scans.rescan(session, former.id, actor.name) if former.state.terminal else known
        tickets.append((ticket, former))
    detail = {"registry": delivery.host, "scans": [ticket.scan_id for ticket, _ in tickets]}
    audit.record(session, actor, Action.EVENT_REPLAY, delivery.id, detail=detail)
    return tickets


def _identity(asked: ScanRequest) -> tuple[object, ...]:
    """All that makes two requests the same one."""
    return asked.target, asked.platform, asked.engine, asked.project, asked.force
