"""Scans: request, cancel, rescan, and replay of deliveries.

The caller enqueues created tickets after its transaction.
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
    """Return the requested project, or the one that owns the repository.

    Raises NotFoundError both for a missing project and for one without access, so that names do not leak.
    """
    if asked is None:
        asked = stored_projects.owner(session, reference.name)
        own = actor.projects
        if own is not None and len(own) == 1 and asked not in own:
            # Not an error, which would reveal that another project owns the repository. The scan finds no registry.
            (asked,) = own
    return projects.visible_name(session, actor, asked)


def request(
    session: Connection, actor: Actor, asked: ScanRequest, *, idempotency_key: str | None = None
) -> tuple[scans.Ticket, scans.ScanView]:
    """Record a request, or return the queued scan of an equal one. ``asked.project`` is from `project_of`.

    The same ``idempotency_key`` of the same actor leads to the same scan. Raises NotFoundError for an
    engine that does not exist, ConflictError(reason="idempotency_key_reused") when the key was used for another
    request.
    """
    if asked.engine not in catalog.engine_choices():
        hint = "one of " + ", ".join(catalog.engine_choices())
        raise NotFoundError(f"there is no engine {asked.engine!r}", hint=hint, field="engine")
    # Of this actor only: clients choose their keys, and one that guesses another's key must not get that scan.
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
    """Cancel a scan. A worker that runs it stops within seconds and writes nothing more.

    Raises NotFoundError, ConflictError(reason="already_ended").
    """
    scan = scans.get(session, scan_id, actor.projects)
    if scan.state.terminal:
        raise ConflictError(f"the scan is already {scan.state}", reason="already_ended")
    scans.cancel(session, scan.id)
    audit.record(session, actor, Action.SCAN_CANCEL, scan.id, detail={"target": scan.request.target})
    return scans.get(session, scan.id, actor.projects)


def rescan(session: Connection, actor: Actor, scan_id: str) -> tuple[scans.Ticket, scans.ScanView]:
    """Request a new scan of the same image. The old scan is kept.

    Raises NotFoundError, ConflictError(reason="not_ended").
    """
    former = scans.get(session, scan_id, actor.projects)
    if not former.state.terminal:
        raise ConflictError(f"the scan is still {former.state}", reason="not_ended")
    ticket = scans.rescan(session, former.id, actor.name)
    audit.record(session, actor, Action.SCAN_RESCAN, former.id, detail={"target": former.request.target})
    return ticket, scans.get(session, ticket.scan_id, actor.projects)


def replay(session: Connection, actor: Actor, delivery_id: str) -> list[tuple[scans.Ticket, scans.ScanView]]:
    """Scan the images of a delivery again. Returns pairs of ticket and previous scan.

    An unfinished scan is not repeated: its ticket is returned.

    Raises NotFoundError, ConflictError(reason="nothing_to_replay").
    """
    delivery = deliveries.get(session, delivery_id, actor.projects)
    if not delivery.scans:
        raise ConflictError("this delivery started no scan", reason="nothing_to_replay")
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
    """Return the values that must be equal for one idempotency key."""
    return asked.target, asked.platform, asked.engine, asked.project, asked.force
