"""The gate: return the decision about an image, or the scan that will lead to one.

The API, the admission webhook and the other adapters all call it. None evaluates a policy itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.model.decision import RESCAN_TELLS, Decision, Verdict
from scanner.model.reference import Digest, Reference
from scanner.model.scan import Lane, ScanRequest, ScanState
from scanner.model.untrusted import clean_text
from scanner.model.workload import Workload
from scanner.policy import named_images
from scanner.policy.named_images import NamedImage
from scanner.reports.json import change_document, reason_document
from scanner.services import decisions
from scanner.store import gate as store_gate
from scanner.store import images, scans

# Repeated requests for one tag share a scan for this long. It limits how many scans a client can start.
_RESOLVED_SECONDS = 60.0

Document = dict[str, Any]


def environment_in_force(session: Connection, environment: str) -> str:
    """Return the environment whose decisions count: the one that is asked for if an enabled policy names it, otherwise
    none.
    """
    active = decisions.enabled_policies(session, catalog.known_names())
    return environment if environment in {name for one in active for name in one.policy.environments} else ""


@dataclass(frozen=True)
class GateRequest:
    """An image and its target environment. ``projects`` are those that the caller can see; None: all."""

    reference: Reference
    environment: str
    projects: frozenset[str] | None

    def recorded(self, session: Connection, digest: Digest, *, ask_again: bool = False) -> Document | None:
        """Return the current decision as its JSON document. An outdated one is renewed from the stored evidence.

        None: there is no evidence, or ``ask_again`` is set and only a new scan can answer (signatures or evidence are
        too old). Writes, so run it in ``Database.uncrossed``.
        """
        known = catalog.known_names()
        environment = environment_in_force(session, self.environment)
        row = store_gate.current_decision(session, digest, environment, self.reference.name, self.projects)
        # The environment may be new. The decision without environment leads to the evidence from which the missing
        # one is made.
        row = row or store_gate.current_decision(session, digest, "", self.reference.name, self.projects)
        if row is None:
            return None
        document: Document = orjson.loads(row.document)
        if document["environment"] != environment or not store_gate.is_valid(session, row):
            found = images.evidence(session, row.report_id)
            made = decisions.decide_all(session, found, known, catalog.remedies(), [environment])
            # Signatures expire and evidence gets too old for a policy. Deciding again from the same evidence would
            # deny for ever.
            if ask_again and any(rescan_may_help(m.decision) for m in made if m.decision.environment == environment):
                return None
            images.redecide(session, row.report_id, found, made, row.project)
            document = orjson.loads(next(m.document for m in made if m.decision.environment == environment))
        return document | {"environment": self.environment}

    def scan(
        self, session: Connection, project: str, engine: str, requested_by: str, source: str
    ) -> tuple[scans.Ticket, scans.ScanView]:
        """Return the scan that will lead to a decision: a recent one of the same target, or a new one in lane ``gate``.

        The caller enqueues a created ticket after the commit.
        """
        asked = ScanRequest(
            target=str(self.reference),
            engine=engine,
            lane=Lane.GATE,
            project=project,
            requested_by=requested_by,
            source=source,
        )
        recent = store_gate.recent_scan(session, asked, _RESOLVED_SECONDS)
        if recent and self.reference.digest and _was_decided(recent):
            # The caller asks because this scan's decision is outdated, so the scan cannot answer.
            recent = None
        ticket = scans.Ticket(recent.id, created=False) if recent else scans.request(session, asked)
        return ticket, scans.get(session, ticket.scan_id, self.projects)

    def with_workloads(
        self, session: Connection, document: Document, workloads: Iterable[Workload]
    ) -> images.DecisionRecord | None:
        """Return the decision about image and workloads together. None: the image has no evidence."""
        if document["evidence"] is None:
            return None
        found = images.evidence(session, Digest(document["evidence"]).hex)
        known = catalog.known_names()
        active = decisions.enabled_policies(session, known)
        return decisions.decide(
            session, found, active, known, catalog.remedies(), self.environment, workloads=tuple(workloads)
        )


def with_others(document: Document, others: Sequence[NamedImage]) -> Document:
    """Return the answer about an image together with the other images of its workload: the worst verdict counts."""
    answers = [(Verdict(document["verdict"]), bool(document["undecided"]))]
    answers += [(each.verdict, each.undecided) for each in others]
    verdict = max((one for one, _ in answers), key=lambda one: one.rank)
    own = document["changes"] if document["verdict"] == verdict else []
    times = [each.valid_until.isoformat() for each in others if each.valid_until]
    times += [document["valid_until"]] if document["valid_until"] else []
    added = [reason_document(reason) for each in others if (reason := each.reason) is not None]
    return document | {
        "verdict": str(verdict),
        # A denial for a known reason outweighs one for a gap: scanning again would not help.
        "undecided": verdict is Verdict.DENY and all(gap for one, gap in answers if one is Verdict.DENY),
        "reasons": [*document["reasons"], *added],
        "changes": [*own, *map(change_document, named_images.changes(others, verdict))],
        "valid_until": min(times, key=datetime.fromisoformat, default=None),
        "workload_images": [
            {
                "image": clean_text(each.use.image, 300),
                "use": each.use.text,
                "digest": each.digest,
                "verdict": str(each.verdict),
                "undecided": each.undecided,
            }
            for each in others
        ],
    }


def rescan_may_help(decision: Decision) -> bool:
    """Return whether a new scan could change the decision."""
    return any(reason.slug in RESCAN_TELLS for reason in decision.reasons)


def _was_decided(scan: scans.ScanView) -> bool:
    return scan.state is ScanState.DONE and scan.reason != scans.NOT_AN_IMAGE


def undecided(scan: scans.ScanView, environment: str) -> Document:
    """Return the denial for a scan that ended without evidence. The command line exits with 3 for it."""
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
