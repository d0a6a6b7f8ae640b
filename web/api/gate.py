"""The gate: may this image be shipped? A decision with its reasons, or "not yet".

A digest with a decision in force is answered by one query and no serializer. A tag is never believed: a scan in the
``gate`` lane resolves it at the registry first. What could not be found out denies, and says that it does so
undecided.
"""

from __future__ import annotations

import time
from typing import Annotated, Any
from uuid import UUID

import orjson
from flask import Response, g, request
from pydantic import Field, StringConstraints
from sqlalchemy.engine import Connection

from scanner import catalog, queue
from scanner.errors import UsageError
from scanner.model.actor import Actor
from scanner.model.decision import STALE, Change, Decision, Reason, Verdict
from scanner.model.reference import Digest, Reference
from scanner.model.scan import Lane, ScanRequest, ScanState
from scanner.services import decisions
from scanner.services.workloads import parse_workload
from scanner.store import accounts, images, scans
from scanner.store import gate as store_gate
from web.api.base import Body, DigestText, ImageText, Model, Name, Whole, answer, blueprint, problems
from web.api.scans import location, parse_image, project_of
from web.auth import (
    bad_token,
    bearer,
    check_bad_tokens,
    current_principal,
    permission,
    principal,
    throttle_bad_tokens,
    token_principal,
)
from web.security import admission, leaving
from web.services import engine_for, services

api = blueprint("gate", "Gate", "May this image be shipped?")

MAX_WAIT = 120
_RESOLVED_SECONDS = 60.0
_PLAIN = frozenset({"image", "environment", "wait_seconds"})
_RETRY_AFTER = 2
_FIRST_POLL, _LAST_POLL = 0.1, 1.0


class GateIn(Body):
    image: ImageText
    environment: Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9._-]{0,62})?$")] = Field(
        "", description="Where it is to run: selects the policies that name it.", examples=["production"]
    )
    workload: str | dict[str, Any] | None = Field(
        None,
        description="How it is to be run: a compose file, a pod spec, `docker inspect`, as text or as an "
        "object. Judged with the image.",
    )
    wait_seconds: Whole = Field(
        0, ge=0, le=MAX_WAIT, description="How long to wait for a decision before answering 202."
    )
    project: Name | None = Field(None, description="The project that owns the repository when absent.")


class DecisionOut(Model):
    """``undecided``: it denies only because something could not be found out.

    Members a failed scan cannot know are null.
    """

    verdict: Verdict
    undecided: bool
    image: str
    digest: DigestText | None
    environment: str
    reasons: list[Reason]
    changes: list[Change] = Field(description="The smallest set of changes that would flip the decision.")
    policy: str
    policy_version: int
    policy_digest: DigestText | None
    subject: DigestText | None
    evidence: DigestText | None
    decided_at: str | None = Field(json_schema_extra={"format": "date-time"})
    valid_until: str | None = Field(
        json_schema_extra={"format": "date-time"},
        description="Until when time alone cannot change it; null: never by time alone.",
    )
    images: list[tuple[DigestText, Verdict]] = Field(description="Of an index: each child's verdict.")


class PendingOut(Model):
    """Not decided yet. Ask again after ``retry_after`` seconds, or watch the scan."""

    scan: UUID
    state: ScanState
    retry_after: int


def authenticate() -> Actor:
    """Who asks, and with the same query the decision in force, for a token that asks about a digest."""
    header = request.headers.get("Authorization", "")
    if not header:
        return current_principal()
    check_bad_tokens()
    body = _peek()
    reference, environment = _asked_for(body)
    digest, repository = (str(reference.digest or ""), reference.name) if reference else ("", "")
    asked = None
    for token_hash in (known := accounts.hashes(bearer(header), services().secret_key)):
        asked = asked or services().gate.ask(token_hash, digest, repository, environment)
    throttle_bad_tokens(asked is not None)
    if asked is None:
        raise bad_token()
    if asked.unnoted:
        with services().database.session() as session:
            accounts.touch_token(session, asked.token_id, known[0])
    if asked.row is not None and asked.current and _is_plain(body):
        g.ready = Response(asked.row.document, mimetype="application/json")
    return token_principal(
        asked.token_id, asked.name, asked.scopes, asked.projects, owner_id=asked.owner_id, owner_role=asked.owner_role
    )


def _peek() -> Any:
    """The body, if it is JSON. What is wrong with one that is not is told only to those who may ask."""
    if admission():
        return None
    try:
        return request.get_json() if request.mimetype == "application/json" else None
    except UsageError:
        return None


def _asked_for(body: Any) -> tuple[Reference | None, str]:
    """Reference and environment of a body that may still be anything: what does not fit is found wanting later."""
    if not isinstance(body, dict) or not isinstance(body.get("image"), str) or "@" not in body["image"]:
        return None, ""
    try:
        reference = Reference.parse(body["image"])
    except UsageError:
        return None, ""
    environment = body.get("environment", "")
    return reference, environment if isinstance(environment, str) else ""


def _is_plain(body: Any) -> bool:
    """Whether a body whose image and environment were found asks for nothing more, and so is valid as it stands."""
    seconds, environment = body.get("wait_seconds", 0), body.get("environment", "")
    return body.keys() <= _PLAIN and type(seconds) is int and 0 <= seconds <= MAX_WAIT and isinstance(environment, str)


@api.post("/gate", responses={"200": DecisionOut, "202": PendingOut, **problems(404)})
@permission("gate", authenticate=authenticate)
def ask(body: GateIn) -> Response:
    """May this image be shipped?

    200 with a decision: `allow`, `warn` or `deny`, each with its reasons. 202 while there is none yet. A tag is
    resolved at its registry first; the answer names the digest, which is what to deploy.
    """
    reference = parse_image(body.image)
    workloads = parse_workload(body.workload, reference) if body.workload is not None else None
    question = _Question(reference, body, project_of(body.project, reference))
    document = question.recorded(ask_again=True) if reference.digest else None
    if document is None:
        scan = question.scan()
        document = question.wait(scan.id, body.wait_seconds) if scan.state.terminal or body.wait_seconds else None
        if document is None:
            pending = PendingOut(scan=UUID(scan.id), state=scan.state, retry_after=_RETRY_AFTER)
            return answer(pending, 202, {**location(scan.id), "Retry-After": str(_RETRY_AFTER)})
    if workloads is not None and (judged := question.with_workload(document, workloads)):
        document = judged
    return Response(document, mimetype="application/json")


def is_stale(decision: Decision) -> bool:
    """Whether the decision would be another if the signatures were verified now."""
    return any(reason.slug == STALE for reason in decision.reasons)


class _Question:
    """One request to the gate that its first query could not answer."""

    def __init__(self, reference: Reference, body: GateIn, project: str) -> None:
        self.reference, self.body, self.project = reference, body, project
        self.projects = principal().projects

    def recorded(self, digest: Digest | None = None, *, ask_again: bool = False) -> str | None:
        """The decision in force, made anew from the stored evidence where time or a changed policy has passed over it.

        ``ask_again``: None where signatures were verified too long ago, because a new scan would tell.
        """
        digest = digest or self.reference.digest
        assert digest is not None
        document = services().database.uncrossed(lambda session: self._recorded(session, digest, ask_again))
        if document is None:
            return None
        return orjson.dumps(document | {"environment": self.body.environment}).decode()

    def _recorded(self, session: Connection, digest: Digest, ask_again: bool) -> dict[str, Any] | None:
        known = catalog.known()
        active = decisions.in_force(session, known)
        named = {name for one in active for name in one.policy.environments}
        environment = self.body.environment if self.body.environment in named else ""
        row = store_gate.in_force(session, digest, environment, self.reference.name, self.projects)
        row = row or store_gate.in_force(session, digest, "", self.reference.name, self.projects)
        if row is None:
            return None
        document: dict[str, Any] = orjson.loads(row.document)
        if document["environment"] != environment or not store_gate.holds(session, row):
            found = images.evidence(session, row.report_id)
            made = decisions.decide_all(session, found, known, catalog.remedies(), [environment])
            if ask_again and any(is_stale(m.decision) for m in made if m.decision.environment == environment):
                return None
            images.redecide(session, row.report_id, found, made, row.project)
            document = orjson.loads(next(m.document for m in made if m.decision.environment == environment))
        return document

    def scan(self) -> scans.ScanView:
        """The scan that will tell: one asked for a moment ago, or a new one that somebody waits for."""
        asked = ScanRequest(
            target=str(self.reference),
            engine=engine_for(self.project),
            lane=Lane.GATE,
            project=self.project,
            requested_by=principal().name,
            source="gate",
        )

        def ask(session: Connection) -> tuple[scans.Ticket, scans.ScanView]:
            recent = store_gate.resolved(session, asked, _RESOLVED_SECONDS)
            if recent and self.reference.digest and _was_decided(recent):
                recent = None  # its decision does not stand any more, else nobody would ask: it has nothing new to tell
            ticket = scans.Ticket(recent.id, created=False) if recent else scans.request(session, asked)
            return ticket, scans.get(session, ticket.scan_id, self.projects)

        ticket, view = services().database.uncrossed(ask)
        if ticket.created:
            queue.enqueue(services().celery, ticket.scan_id, Lane.GATE)
        return view

    def wait(self, scan_id: str, seconds: float) -> str | None:
        """Poll the scan until it ends or the time is over.

        Only so many may wait at once: each holds one of the server's threads.
        """
        ends, pause = time.monotonic() + seconds, _FIRST_POLL
        waiting = seconds > 0 and services().waiters.acquire(blocking=False)
        try:
            while True:
                with services().database.read() as session:
                    scan = scans.get(session, scan_id, self.projects)
                if scan.state.terminal:
                    return self._ended(scan)
                if not waiting or time.monotonic() + pause > ends or leaving().wait(pause):
                    return None
                pause = min(pause * 1.5, _LAST_POLL)
        finally:
            if waiting:
                services().waiters.release()

    def _ended(self, scan: scans.ScanView) -> str:
        document = self.recorded(scan.digest) if scan.state is ScanState.DONE and scan.digest else None
        if document is None:
            with services().database.session() as session:
                store_gate.note_told(session, scan.id)
        return document or undecided(scan, self.body.environment)

    def with_workload(self, document: str, workloads: Any) -> str | None:
        """The decision with the workload judged too. None where there is no evidence to judge it with."""
        decided = orjson.loads(document)
        if decided["evidence"] is None:
            return None
        with services().database.read() as session:
            found = images.evidence(session, Digest(decided["evidence"]).hex)
            known = catalog.known()
            active = decisions.in_force(session, known)
            made = decisions.decide(
                session, found, active, known, catalog.remedies(), self.body.environment, workloads=workloads
            )
        return made.document


def _was_decided(scan: scans.ScanView) -> bool:
    return scan.state is ScanState.DONE and scan.reason != scans.NOT_AN_IMAGE


def undecided(scan: scans.ScanView, environment: str) -> str:
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
    document = dict.fromkeys(("policy_digest", "subject", "evidence", "decided_at", "valid_until"))
    document |= {"verdict": "deny", "undecided": True, "image": scan.request.target, "digest": scan.digest}
    document |= {"environment": environment, "reasons": [reason], "changes": [], "images": []}
    document |= {"policy": "", "policy_version": 0, "decided_at": scan.finished_at}
    return orjson.dumps(document).decode()
