"""Scans: request, watch, cancel, repeat."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from flask import Response, stream_with_context
from pydantic import Field, StringConstraints
from sqlalchemy.engine import Connection

from scanner import queue
from scanner.errors import UsageError
from scanner.model.reference import Digest, Platform, Reference
from scanner.model.scan import Lane, ScanRequest, ScanState, Stage
from scanner.services import scans as use_cases
from scanner.store import scans
from web.api.base import PREFIX, Body, DigestText, ImageText, Model, Name, PageQuery, answer, blueprint, problems
from web.auth import permission, principal
from web.resources import engine_for, resources, take_scan
from web.security import shutdown_event

api = blueprint("scans", "Scans", "Scan requests and their progress.")

_WATCH_SECONDS = 25  # a stream ends and is opened again, so that a thread is not held for a whole scan
_IDEMPOTENCY_KEY = r"^[A-Za-z0-9._:-]{1,128}$"


class ScanIn(Body):
    image: ImageText
    platform: (
        Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{1,32}/[a-z0-9_.-]{1,32}(/[a-z0-9_.-]{1,32})?$")] | None
    ) = Field(
        None,
        description="One platform of an index. Default: all images of the index.",
        examples=["linux/amd64"],
    )
    engine: Name | None = Field(
        None,
        description="An engine's id, or `both` for Trivy and Clair. Default: the engine of the project, "
        "or of the server.",
        examples=["trivy"],
    )
    force: bool = Field(False, description="Scan even if there is a current result.")
    project: Name | None = Field(None, description="Default: the project that owns the repository.")


class ProgressOut(Model):
    """``total`` 0: unknown."""

    stage: Stage
    message: str
    done: int
    total: int


class ScanOut(Model):
    id: UUID
    image: str
    digest: DigestText | None = Field(description="The digest that the reference resolved to, once known.")
    state: ScanState
    lane: Lane
    progress: ProgressOut | None
    outcome: Literal["decided", "not_an_image"] | None = Field(
        description="Result of a finished scan. `not_an_image`: a signature, chart or other artifact, "
        "which is not evaluated."
    )
    reason: str = Field(description="Reason of a failure or retry, as a stable slug; otherwise empty.")
    message: str
    attempt: int = Field(description="Number of failed attempts.")
    lost: int = Field(description="Number of attempts that were lost with their worker.")
    engine: str
    platform: str | None
    project: str
    source: str
    requested_by: str
    created_at: datetime
    finished_at: datetime | None
    supersedes: UUID | None


class ScanPage(Model):
    items: list[ScanOut]
    next_cursor: str | None


class ScanPath(Model):
    scan_id: UUID


class ScanQuery(PageQuery):
    state: list[ScanState] = Field(
        [], description="States to include. `dead`: scans that were given up and need attention."
    )
    project: Name | None = None
    digest: DigestText | None = None


class IdempotencyHeader(Model):
    model_config = Model.model_config | {"extra": "ignore"}

    idempotency_key: str | None = Field(
        None,
        alias="Idempotency-Key",
        pattern=_IDEMPOTENCY_KEY,
        description="Requests with the same key get the same scan.",
    )


def show(scan: scans.ScanView) -> ScanOut:
    progress = scan.progress
    return ScanOut(
        id=UUID(scan.id),
        image=scan.request.target,
        digest=scan.digest,
        state=scan.state,
        lane=scan.request.lane,
        progress=ProgressOut(stage=progress.stage, message=progress.message, done=progress.done, total=progress.total)
        if progress
        else None,
        outcome=outcome(scan),
        reason=scan.reason,
        message=scan.message,
        attempt=scan.attempt,
        lost=scan.lost,
        engine=scan.request.engine,
        platform=str(scan.request.platform) if scan.request.platform else None,
        project=scan.request.project,
        source=scan.request.source,
        requested_by=scan.request.requested_by,
        created_at=scan.created_at,
        finished_at=scan.finished_at,
        supersedes=UUID(scan.supersedes) if scan.supersedes else None,
    )


def outcome(scan: scans.ScanView) -> Literal["decided", "not_an_image"] | None:
    if scan.state is not ScanState.DONE:
        return None
    return "not_an_image" if scan.reason == scans.NOT_AN_IMAGE else "decided"


def parse_image(text: str) -> Reference:
    """Parse the reference of a request.

    Raises UsageError (422) if invalid: ``oci:``, ``archive:`` and paths are targets of the command line only.
    """
    try:
        return Reference.parse(text)
    except UsageError as error:
        raise UsageError(str(error), reason="bad_reference", hint=error.hint) from error


def project_of(asked: str | None, reference: Reference) -> str:
    """The requested project, or the one that owns the repository.

    Raises NotFoundError if it is missing or not visible.
    """
    with resources().database.read() as session:
        return use_cases.project_of(session, principal(), asked, reference)


def location(scan_id: str) -> dict[str, str]:
    return {"Location": f"{PREFIX}/scans/{scan_id}"}


@api.post("/scans", responses={"200": ScanOut, "202": ScanOut, **problems(404, 409)})
@permission("scan")
def create(body: ScanIn, header: IdempotencyHeader) -> Response:
    """Request a scan

    202 with its location, or 200 with a scan whose result is current: same digest, engine and advisory database.
    Requests for the same image share one running scan.
    """
    reference = parse_image(body.image)
    project = project_of(body.project, reference)
    engine = body.engine or engine_for(project)
    take_scan(project)
    scan_request = ScanRequest(
        target=str(reference),
        platform=Platform.parse(body.platform) if body.platform else None,
        engine=engine,
        lane=Lane.PUSH,
        force=body.force,
        project=project,
        source="api",
    )
    with resources().database.session() as session:
        if (
            reference.digest
            and not body.force
            and (current := _current(session, reference.digest, scan_request, reference.name))
        ):
            return answer(show(current), 200, location(current.id))
        ticket, scan = use_cases.request(session, principal(), scan_request, idempotency_key=header.idempotency_key)
    # After the transaction: a worker that is notified before the commit finds no scan.
    if ticket.created:
        queue.enqueue(resources().celery, ticket.scan_id, scan_request.lane)
    return answer(show(scan), 202, location(scan.id))


def _current(session: Connection, digest: Digest, wanted: ScanRequest, repository: str) -> scans.ScanView | None:
    return scans.current(
        session, digest, wanted.engine, wanted.project, repository=repository, platform=wanted.platform
    )


@api.get("/scans", responses={"200": ScanPage, **problems(404)})
@permission("read")
def index(query: ScanQuery) -> Response:
    """List scans, newest first

    `?state=dead` lists scans that were given up, with reasons; `rescan` repeats one.
    """
    with resources().database.read() as session:
        page = scans.list_scans(
            session,
            principal().projects,
            states=query.state,
            project=query.project,
            digest=query.digest,
            cursor=query.cursor,
            limit=query.limit,
        )
    return answer(ScanPage(items=[show(scan) for scan in page.items], next_cursor=page.next_cursor))


@api.get("/scans/<uuid:scan_id>", responses={"200": ScanOut, **problems(404)})
@permission("read")
def get(path: ScanPath) -> Response:
    """Read a scan"""
    with resources().database.read() as session:
        return answer(show(scans.get(session, str(path.scan_id), principal().projects)))


@api.get(
    "/scans/<uuid:scan_id>/events",
    responses={
        "200": {
            "description": "a stream of `scan` events",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(404),
    },
)
@permission("read")
def events(path: ScanPath) -> Response:
    """Watch a scan

    Server-sent events: one `scan` event at once, and one for every change. The stream ends with the scan, or after 25
    seconds; a browser's EventSource then reconnects. A server with many watchers sends the first event only.
    """
    scan_id, projects = str(path.scan_id), principal().projects
    with resources().database.read() as session:
        first = show(scans.get(session, scan_id, projects))
    return Response(
        stream_with_context(_watch(scan_id, projects, first)),
        mimetype="text/event-stream",
        # nginx would otherwise hold the events back until its buffer is full.
        headers={"X-Accel-Buffering": "no"},
    )


def _watch(scan_id: str, projects: frozenset[str] | None, shown: ScanOut) -> Iterator[bytes]:
    """Yield the events.

    A stream occupies one of the server's threads, so their number (``GATE_WAITERS``) and duration are limited.
    """
    yield b"retry: 2000\n\n" + _event(shown)
    # Without a free thread the stream ends after its first event. EventSource comes back after ``retry``, so the
    # watcher polls.
    if shown.state.terminal or not resources().waiters.acquire(blocking=False):
        return
    try:
        # Read again and again, because the worker that writes is another process.
        ends = time.monotonic() + _WATCH_SECONDS
        while time.monotonic() < ends and not shown.state.terminal and not shutdown_event().wait(0.5):
            with resources().database.read() as session:
                scan = show(scans.get(session, scan_id, projects))
            if scan != shown:
                shown = scan
                yield _event(scan)
    finally:
        resources().waiters.release()


def _event(scan: ScanOut) -> bytes:
    return b"event: scan\ndata: " + scan.model_dump_json().encode() + b"\n\n"


@api.post("/scans/<uuid:scan_id>/cancel", responses={"200": ScanOut, **problems(404, 409)})
@permission("scan")
def cancel(path: ScanPath) -> Response:
    """Cancel a scan

    Its worker notices within seconds and writes nothing more. 409 if the scan has already ended.
    """
    with resources().database.session() as session:
        return answer(show(use_cases.cancel(session, principal(), str(path.scan_id))))


@api.post("/scans/<uuid:scan_id>/rescan", responses={"202": ScanOut, **problems(404, 409)})
@permission("scan")
def rescan(path: ScanPath) -> Response:
    """Repeat a scan

    Starts a new scan of the same target; this one is kept. 409 while it has not ended.
    """
    with resources().database.session() as session:
        ticket, again = use_cases.rescan(session, principal(), str(path.scan_id))
    if ticket.created:
        queue.enqueue(resources().celery, ticket.scan_id, again.request.lane)
    return answer(show(again), 202, location(again.id))
