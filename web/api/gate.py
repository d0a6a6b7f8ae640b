"""The gate: whether an image may be shipped. A decision with its reasons, or "pending".

A digest with a current decision is answered by one query, without serialization. A tag is never taken from the store: a
scan in the ``gate`` lane resolves it at the registry first. Missing evidence denies, marked as undecided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

import orjson
from flask import Response, g, request
from pydantic import Field, StringConstraints

from scanner import queue
from scanner.errors import UsageError
from scanner.model.actor import Actor
from scanner.model.decision import Change, Reason, Verdict
from scanner.model.reference import Digest, Reference
from scanner.model.scan import Lane, ScanState
from scanner.model.workload import Workload
from scanner.services import break_glass, gate_reports
from scanner.services.gate import Document, GateRequest, undecided
from scanner.services.workloads import parse_workload
from scanner.store import break_glass as stored_break_glass
from scanner.store import gate as store_gate
from scanner.store import scans
from web.api.base import Body, DigestText, ImageText, Model, Name, Whole, answer, blueprint, problems
from web.api.scans import location, parse_image, project_of
from web.auth import bearer, check_bad_tokens, current_principal, gate_caller, permission, principal
from web.resources import engine_for, resources
from web.security import admission
from web.waiting import waited

api = blueprint("gate", "Gate", "Whether an image may be shipped.")

MAX_WAIT = 120
_PLAIN = frozenset({"image", "environment", "wait_seconds"})
_RETRY_AFTER = 2


class GateIn(Body):
    image: ImageText
    environment: Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9._-]{0,62})?$")] = Field(
        "", description="Environment in which it will run; selects policies.", examples=["production"]
    )
    workload: str | dict[str, Any] | None = Field(
        None,
        description="The workload that will run it: a Compose file, pod spec or `docker inspect` output, as text or "
        "object. It is evaluated together with the image.",
    )
    wait_seconds: Whole = Field(
        0, ge=0, le=MAX_WAIT, description="Seconds to wait for a decision before answering 202."
    )
    project: Name | None = Field(None, description="Default: the project that owns the repository.")
    reports: list[Name] = Field(
        [],
        max_length=8,
        description="Report formats that the answer also holds, as text, for a pipeline that keeps them.",
        examples=[["sarif", "junit"]],
    )


class DecisionOut(Model):
    """``undecided``: it denies only because evidence is missing. Members that a failed scan cannot know are null."""

    verdict: Verdict
    undecided: bool
    image: str
    digest: DigestText | None
    environment: str
    reasons: list[Reason]
    changes: list[Change] = Field(description="The smallest set of changes that would change the verdict.")
    policy: str
    policy_version: int
    policy_digest: DigestText | None
    subject: DigestText | None
    evidence: DigestText | None
    decided_at: str | None = Field(json_schema_extra={"format": "date-time"})
    valid_until: str | None = Field(
        json_schema_extra={"format": "date-time"},
        description="Time alone cannot change the decision before this; null: it never does.",
    )
    images: list[tuple[DigestText, Verdict]] = Field(description="For an index: the verdict of each child.")
    reports: dict[str, str] | None = Field(
        None, description="Text by format, if the question named `reports`. Empty: the format cannot say it."
    )


class PendingOut(Model):
    """Not decided yet. Repeat the request after ``retry_after`` seconds, or watch the scan."""

    scan: UUID
    state: ScanState
    retry_after: int


def authenticate() -> Actor:
    """Authenticate the token, and in the same query read the current decision if the request is about a digest."""
    header = request.headers.get("Authorization", "")
    if not header:
        return current_principal()
    check_bad_tokens()
    body = _peek()
    reference, environment = _asked_for(body)
    digest, repository = (str(reference.digest or ""), reference.name) if reference else ("", "")
    caller = gate_caller(bearer(header), digest, repository, environment)
    asked = caller.lookup
    if asked.row is not None and asked.current and not asked.broken_glass and _is_plain(body):
        g.ready = Response(asked.row.document, mimetype="application/json")
    return caller.actor


def _peek() -> Any:
    """The body if it is JSON. An invalid body is reported only to callers who are authenticated."""
    if admission():
        return None
    try:
        return request.get_json() if request.mimetype == "application/json" else None
    except UsageError:
        return None


def _asked_for(body: Any) -> tuple[Reference | None, str]:
    """Reference and environment of an unvalidated body. Invalid values are reported by the validation later."""
    if not isinstance(body, dict) or not isinstance(body.get("image"), str) or "@" not in body["image"]:
        return None, ""
    try:
        reference = Reference.parse(body["image"])
    except UsageError:
        return None, ""
    environment = body.get("environment", "")
    return reference, environment if isinstance(environment, str) else ""


def _is_plain(body: Any) -> bool:
    """True if the body has only the members that the query answers, so it is valid without further checks."""
    seconds, environment = body.get("wait_seconds", 0), body.get("environment", "")
    return body.keys() <= _PLAIN and type(seconds) is int and 0 <= seconds <= MAX_WAIT and isinstance(environment, str)


@api.post("/gate", responses={"200": DecisionOut, "202": PendingOut, **problems(404)})
@permission("gate", authenticate=authenticate)
def ask(body: GateIn) -> Response:
    """Ask whether an image may be shipped

    200 with a decision: `allow`, `warn` or `deny`, with reasons. 202 while there is none. A tag is resolved at its
    registry first; deploy the digest in the answer.
    """
    reference = parse_image(body.image)
    gate_reports.check(body.reports)
    workloads = parse_workload(body.workload, reference) if body.workload is not None else None
    project = project_of(body.project, reference)
    question = _Question(reference, body.environment, principal().projects)
    document = question.decided(ask_again=True) if reference.digest else None
    if document is None and (glass := question.broken_glass()) is not None:
        document = break_glass.unscanned(reference, body.environment, glass)
    if document is None:
        scan = question.scan_for(project)
        document = question.wait(scan.id, body.wait_seconds) if scan.state.terminal or body.wait_seconds else None
        if document is None:
            pending = PendingOut(scan=UUID(scan.id), state=scan.state, retry_after=_RETRY_AFTER)
            return answer(pending, 202, {**location(scan.id), "Retry-After": str(_RETRY_AFTER)})
    if workloads is not None and (judged := question.judged_with(document, workloads)):
        document = orjson.loads(judged)
    if document["verdict"] == "deny" and (glass := question.broken_glass(document["digest"])) is not None:
        document = break_glass.applied(document, glass)
    if body.reports:
        with resources().database.read() as session:
            document = document | {"reports": gate_reports.render(session, document, body.reports)}
    return Response(orjson.dumps(document), mimetype="application/json")


class _Question(GateRequest):
    """A request to the gate that the first query could not answer."""

    def decided(self, digest: str | None = None, *, ask_again: bool = False) -> Document | None:
        """See ``GateRequest.recorded``."""
        digest = digest or self.reference.digest
        assert digest is not None
        return resources().database.uncrossed(lambda s: self.recorded(s, Digest(digest), ask_again=ask_again))

    def scan_for(self, project: str) -> scans.ScanView:
        """See ``GateRequest.scan``."""
        engine, who = engine_for(project), principal().name
        ticket, view = resources().database.uncrossed(lambda s: self.scan(s, project, engine, who, "gate"))
        if ticket.created:
            queue.enqueue(resources().celery, ticket.scan_id, Lane.GATE)
        return view

    def wait(self, scan_id: str, seconds: float) -> Document | None:
        """Wait for a scan. Returns None if there is no answer yet. See ``waited``."""
        scan = waited(scan_id, seconds, self.projects)
        return self._ended(scan) if scan.state.terminal else None

    def _ended(self, scan: scans.ScanView) -> Document:
        document = self.decided(scan.digest) if scan.state is ScanState.DONE and scan.digest else None
        if document is None:
            with resources().database.session() as session:
                store_gate.note_failure_reported(session, scan.id)
        return document or undecided(scan, self.environment)

    def broken_glass(self, digest: str | None = None) -> stored_break_glass.BreakGlassView | None:
        """Whether a person lets what is asked about through; ``digest`` where it is known by now."""
        digests = [each for each in (self.reference.digest, digest) if each]
        with resources().database.read() as session:
            return stored_break_glass.in_force(session, digests) if digests else None

    def judged_with(self, document: Document, workloads: Sequence[Workload]) -> str | None:
        """See ``GateRequest.with_workloads``."""
        with resources().database.read() as session:
            made = self.with_workloads(session, document, workloads)
        return made.document if made else None
