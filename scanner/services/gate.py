"""The gate's use case: what is decided about an image, by digest, and which scan will tell where nothing is.

The API, the admission webhook and every other door ask it; none holds a second copy of a policy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.model.decision import RESCAN_TELLS, Decision
from scanner.model.reference import Digest, Reference
from scanner.model.scan import Lane, ScanRequest, ScanState
from scanner.model.workload import Workload
from scanner.services import decisions
from scanner.store import gate as store_gate
from scanner.store import images, scans

_RESOLVED_SECONDS = 60.0

Document = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """An image and where it is to run. ``projects`` are those that the asker sees; None: every one."""

    reference: Reference
    environment: str
    projects: frozenset[str] | None

    def recorded(self, session: Connection, digest: Digest, *, ask_again: bool = False) -> Document | None:
        """The decision in force, made anew from the stored evidence where time or a changed policy has passed over it.

        ``ask_again``: None where the signatures were verified, or the image was examined, too long ago.
        A new scan would tell.
        Run it in ``Database.uncrossed``.
        """
        known = catalog.known()
        active = decisions.in_force(session, known)
        named = {name for one in active for name in one.policy.environments}
        environment = self.environment if self.environment in named else ""
        row = store_gate.in_force(session, digest, environment, self.reference.name, self.projects)
        row = row or store_gate.in_force(session, digest, "", self.reference.name, self.projects)
        if row is None:
            return None
        document: Document = orjson.loads(row.document)
        if document["environment"] != environment or not store_gate.holds(session, row):
            found = images.evidence(session, row.report_id)
            made = decisions.decide_all(session, found, known, catalog.remedies(), [environment])
            if ask_again and any(rescan_tells(m.decision) for m in made if m.decision.environment == environment):
                return None
            images.redecide(session, row.report_id, found, made, row.project)
            document = orjson.loads(next(m.document for m in made if m.decision.environment == environment))
        return document | {"environment": self.environment}

    def scan(
        self, session: Connection, project: str, engine: str, requested_by: str, source: str
    ) -> tuple[scans.Ticket, scans.ScanView]:
        """The scan that will tell: one asked for a moment ago, or a new one in the lane ``gate``.

        The caller enqueues a ticket that was created, after the commit.
        """
        asked = ScanRequest(
            target=str(self.reference),
            engine=engine,
            lane=Lane.GATE,
            project=project,
            requested_by=requested_by,
            source=source,
        )
        recent = store_gate.resolved(session, asked, _RESOLVED_SECONDS)
        if recent and self.reference.digest and _was_decided(recent):
            recent = None  # its decision does not stand any more, else nobody would ask: it has nothing new to tell
        ticket = scans.Ticket(recent.id, created=False) if recent else scans.request(session, asked)
        return ticket, scans.get(session, ticket.scan_id, self.projects)

    def with_workloads(
        self, session: Connection, document: Document, workloads: Iterable[Workload]
    ) -> images.Made | None:
        """The decision with how the image is run judged too. None where there is no evidence to judge it with."""
        if document["evidence"] is None:
            return None
        found = images.evidence(session, Digest(document["evidence"]).hex)
        known = catalog.known()
        active = decisions.in_force(session, known)
        return decisions.decide(
            session, found, active, known, catalog.remedies(), self.environment, workloads=tuple(workloads)
        )


def rescan_tells(decision: Decision) -> bool:
    """Whether the decision would be another if the image were scanned, or its signatures verified, now."""
    return any(reason.slug in RESCAN_TELLS for reason in decision.reasons)


def _was_decided(scan: scans.ScanView) -> bool:
    return scan.state is ScanState.DONE and scan.reason != scans.NOT_AN_IMAGE


def undecided(scan: scans.ScanView, environment: str) -> Document:
    """A scan that ended without evidence: a denial that says so, and which the command line tells apart (exit 3)."""
    message = scan.message or f"the scan is {scan.state}"
    reason = {
        "rule": "scan",
        "kind": "incomplete",
        "action": "deny",
        "message": message,
        "subject": "",
        "evidence": [],
        "remedy": "",
        "count": 1,
        "exemption": "",
        "slug": scan.reason or str(scan.state),
    }
    document: Document = dict.fromkeys(("policy_digest", "subject", "evidence", "decided_at", "valid_until"))
    document |= {"verdict": "deny", "undecided": True, "image": scan.request.target, "digest": scan.digest}
    document |= {"environment": environment, "reasons": [reason], "changes": [], "images": []}
    document |= {"policy": "", "policy_version": 0, "decided_at": scan.finished_at}
    return document
