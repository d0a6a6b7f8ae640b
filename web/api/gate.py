"""The gate: whether an image may be shipped. A decision with its reasons, or "pending".

A digest with a current decision is answered by one query, without serialization. A tag is never taken from the store: a
scan in the ``gate`` lane resolves it at the registry first. Missing evidence denies, marked as undecided.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

import orjson
from flask import Response, g, request
from pydantic import Field, StringConstraints
from sqlalchemy.engine import Connection

from scanner import queue
from scanner.errors import NotFoundError, UsageError
from scanner.model.actor import Actor
from scanner.model.decision import Change, Reason, Verdict
from scanner.model.reference import Digest, Reference
from scanner.model.scan import Lane, ScanState
from scanner.model.workload import Workload
from scanner.policy import named_images
from scanner.policy.named_images import NamedImage
from scanner.services import break_glass, gate_reports
from scanner.services.gate import Document, GateRequest, undecided, with_others
from scanner.services.workloads import AskedWorkload, OtherImage, parse_workload
from scanner.store import break_glass as stored_break_glass
from scanner.store import gate as store_gate
from scanner.store import scans
from web.api.base import Body, DigestText, ImageText, Model, Name, Whole, answer, blueprint, problems
from web.api.scans import location, parse_image, project_of
from web.auth import bearer, current_principal, gate_caller, permission, principal
from web.resources import engine_for, resources, take_new_scan
from web.security import admission
from web.waiting import wait_for_end

api = blueprint("gate", "Gate", "Whether an image may be shipped.")

MAX_WAIT = 120  # Seconds: proxies cut requests that stay silent for longer. A client polls on.
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
        "object. It is evaluated together with the image, and so is every other image that starts with it: of init, "
        "sidecar and ephemeral containers, and of image volumes.",
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


class WorkloadImageOut(Model):
    """Another image that the workload names, with what was decided about it and the containers that run it."""

    image: str
    use: str = Field(description="What it is named for.", examples=["the init container setup runs"])
    digest: str = Field(description="Empty: not known.")
    verdict: Verdict
    undecided: bool


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
    workload_images: list[WorkloadImageOut] | None = Field(
        None, description="With a workload: the other images that it names. The worst verdict of all counts."
    )
    reports: dict[str, str] | None = Field(
        None, description="Text by format, if the question named `reports`. Empty: the format cannot say it."
    )


class PendingOut(Model):
    """Not decided yet. Repeat the request after ``retry_after`` seconds, or watch the scan."""

    scan: UUID
    state: ScanState
    message: str
    retry_after: int


def authenticate() -> Actor:
    """Authenticate the token, and in the same query read the current decision if the request is about a digest."""
    header = request.headers.get("Authorization", "")
    if not header:
        return current_principal()
    body = _peek()
    reference, environment = _asked_for(body)
    digest, repository = (str(reference.digest or ""), reference.name) if reference else ("", "")
    caller = gate_caller(bearer(header), digest, repository, environment)
    asked = caller.lookup
    # The answer is ready before the body was validated. It is sent only for a body that validation would accept as it
    # is, see `_is_plain`.
    if asked.row is not None and asked.current and not asked.broken_glass and _is_plain(body):
        g.ready = Response(asked.row.document, mimetype="application/json")
    return caller.actor


def _peek() -> Any:
    """The body if it is JSON. An invalid body is reported only to callers who are authenticated."""
    # A large body is not read before its sender is known.
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
    # `type` and not `isinstance`: `true` is an int in Python, and validation refuses it.
    return body.keys() <= _PLAIN and type(seconds) is int and 0 <= seconds <= MAX_WAIT and isinstance(environment, str)


@api.post("/gate", responses={"200": DecisionOut, "202": PendingOut, **problems(404)})
@permission("gate", authenticate=authenticate)
def ask(body: GateIn) -> Response:
    """Ask whether an image may be shipped

    200 with a decision: `allow`, `warn` or `deny`, with reasons. 202 while there is none. A tag is resolved at its
    registry first; deploy the digest in the answer.

    429 if one caller asks for many images that are not known: 300 new scans at once, then 5 a second; 1,000 and 20 for
    all callers together. Known images are not counted.
    """
    reference = parse_image(body.image)
    gate_reports.check(body.reports)
    workload = parse_workload(body.workload, reference) if body.workload is not None else None
    project = project_of(body.project, reference)
    ends = time.monotonic() + body.wait_seconds
    question = _Question(reference, body.environment, principal().projects)
    others = _OtherImages(body.environment, workload) if workload is not None else None
    document = question.answer(project, ends, workload.containers if workload else ())
    if isinstance(document, scans.ScanView):
        return _pending_response(document)
    if others is not None:
        found = others.answers(ends)
        if isinstance(found, scans.ScanView):
            return _pending_response(found)
        document = with_others(document, found)
    if body.reports:
        with resources().database.read() as session:
            document = document | {"reports": gate_reports.render(session, document, body.reports)}
    return Response(orjson.dumps(document), mimetype="application/json")


def _pending_response(scan: scans.ScanView) -> Response:
    failed = scan.message if scan.state is ScanState.RETRY_WAIT else ""
    pending = PendingOut(scan=UUID(scan.id), state=scan.state, message=failed, retry_after=_RETRY_AFTER)
    return answer(pending, 202, {**location(scan.id), "Retry-After": str(_RETRY_AFTER)})


class _OtherImages:
    """The other images of a workload. Scans of those that nothing is known of begin at once, not one by one."""

    def __init__(self, environment: str, workload: AskedWorkload) -> None:
        self._environment, self._others = environment, tuple(workload.others.values())
        self._started = [self._answer(each, ends=0.0) for each in self._others]

    def answers(self, ends: float) -> list[NamedImage] | scans.ScanView:
        """Return what was decided about each, or the scan of one that is not decided yet."""
        found = []
        for other, started in zip(self._others, self._started, strict=True):
            answered = self._answer(other, ends) if isinstance(started, scans.ScanView) else started
            if isinstance(answered, scans.ScanView):
                return answered
            found.append(answered)
        return found

    def _answer(self, other: OtherImage, ends: float) -> NamedImage | scans.ScanView:
        try:
            reference = Reference.parse(other.use.image)
            project = project_of(None, reference)
        except UsageError as error:
            return named_images.unknown(other.use, f"not an image reference: {error}")
        except NotFoundError:
            return named_images.unknown(other.use, "the token has no access to the image's project")
        question = _Question(reference, self._environment, principal().projects)
        answered = question.answer(project, ends, other.containers)
        return answered if isinstance(answered, scans.ScanView) else named_images.of_document(other.use, answered)


class _Question(GateRequest):
    """A request to the gate that the first query could not answer."""

    def answer(self, project: str, ends: float, containers: Sequence[Workload]) -> Document | scans.ScanView:
        """Return the decision about the image and the containers that run it, or the scan that has not ended.

        Waits for the scan until ``ends`` of the monotonic clock.
        """
        document = self.decided(ask_again=True) if self.reference.digest else None
        if document is None and (glass := self.broken_glass()) is not None:
            document = break_glass.unscanned_document(self.reference, self.environment, glass)
        if document is None:
            scan, left = self.scan_for(project), max(0.0, ends - time.monotonic())
            document = self.wait(scan.id, left) if scan.state.terminal or left else None
            if document is None:
                return scan
        if containers and (judged := self.judged_with(document, containers)):
            document = orjson.loads(judged)
        if document["verdict"] == "deny" and (glass := self.broken_glass(document["digest"])) is not None:
            document = break_glass.apply_override(document, glass)
        return document

    def decided(self, digest: str | None = None, *, ask_again: bool = False) -> Document | None:
        """See ``GateRequest.recorded``."""
        digest = digest or self.reference.digest
        assert digest is not None
        return resources().database.uncrossed(lambda s: self.recorded(s, Digest(digest), ask_again=ask_again))

    def scan_for(self, project: str) -> scans.ScanView:
        """See ``GateRequest.scan``."""
        engine, caller = engine_for(project), principal()
        who = caller.name

        def request_scan(session: Connection) -> tuple[scans.Ticket, scans.ScanView]:
            ticket, view = self.scan(session, project, engine, who, "gate")
            if ticket.created:
                take_new_scan("gate", caller.id)  # here, so that a refusal takes the scan back
            return ticket, view

        ticket, view = resources().database.uncrossed(request_scan)
        if ticket.created:
            queue.enqueue(resources().celery, ticket.scan_id, Lane.GATE)
        return view

    def wait(self, scan_id: str, seconds: float) -> Document | None:
        """Wait for a scan. Returns None if there is no answer yet. See ``wait_for_end``."""
        scan = wait_for_end(scan_id, seconds, self.projects)
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
