"""Scans: ask for one, watch it, stop it, ask again."""

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
from web.security import leaving

api = blueprint("scans", "Scans", "Requests to look at an image, and how far they are.")

_WATCH_SECONDS = 25
_IDEMPOTENCY_KEY = r"^[A-Za-z0-9._:-]{1,128}$"


class ScanIn(Body):
    image: ImageText
    platform: (
        Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{1,32}/[a-z0-9_.-]{1,32}(/[a-z0-9_.-]{1,32})?$")] | None
    ) = Field(
        None,
        description="One platform of an index; every child that is an image when absent.",
        examples=["linux/amd64"],
    )
    engine: Name | None = Field(
        None,
        description="An engine's id, or `both` for Trivy and Clair. When absent: the project's choice, "
        "or the server's.",
        examples=["trivy"],
    )
    force: bool = Field(False, description="Scan even though there is a current result.")
    project: Name | None = Field(None, description="The project that owns the repository when absent.")


class ProgressOut(Model):
    """``total`` 0: not known."""

    stage: Stage
    message: str
    done: int
    total: int


class ScanOut(Model):
    id: UUID
    image: str
    digest: DigestText | None = Field(description="What the reference resolved to, once it has been.")
    state: ScanState
    lane: Lane
    progress: ProgressOut | None
    outcome: Literal["decided", "not_an_image"] | None = Field(
        description="What a scan that is done came to. `not_an_image`: a signature, chart or other artifact, "
        "which is not judged."
    )
    reason: str = Field(description="Why it failed, is being retried or was given up: a stable slug, else empty.")
    message: str
    attempt: int = Field(description="How often the scan itself failed and was tried again.")
    lost: int = Field(description="How often its worker vanished.")
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
    state: list[ScanState] = Field([], description="Any of these. `dead` lists what was given up and needs a person.")
    project: Name | None = None
    digest: DigestText | None = None


class IdempotencyHeader(Model):
    model_config = Model.model_config | {"extra": "ignore"}

    idempotency_key: str | None = Field(
        None,
        alias="Idempotency-Key",
        pattern=_IDEMPOTENCY_KEY,
        description="The same key gives the same scan, however often it is sent.",
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
    """The reference a caller wrote.

    422 for what is none: ``oci:``, ``archive:`` and paths are the command line's, never a server's.
    """
    try:
        return Reference.parse(text)
    except UsageError as error:
        raise UsageError(str(error), reason="bad_reference", hint=error.hint) from error


def project_of(asked: str | None, reference: Reference) -> str:
    """The project that was asked for, else the one that owns the repository.

    404 unless it is there and the caller's: the same answer.
    """
    with resources().database.read() as session:
        return use_cases.project_of(session, principal(), asked, reference)


def location(scan_id: str) -> dict[str, str]:
    return {"Location": f"{PREFIX}/scans/{scan_id}"}


@api.post("/scans", responses={"200": ScanOut, "202": ScanOut, **problems(404, 409)})
@permission("scan")
def create(body: ScanIn, header: IdempotencyHeader) -> Response:
    """Ask for a scan

    202 and where to watch it, or 200 with the scan whose result is current: same digest, same engine, same advisory
    database. Requests for the same image share one running scan.
    """
    reference = parse_image(body.image)
    project = project_of(body.project, reference)
    engine = body.engine or engine_for(project)
    take_scan(project)
    asked = ScanRequest(
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
            and (current := _current(session, reference.digest, asked, reference.name))
        ):
            return answer(show(current), 200, location(current.id))
        ticket, scan = use_cases.request(session, principal(), asked, idempotency_key=header.idempotency_key)
    if ticket.created:
        queue.enqueue(resources().celery, ticket.scan_id, asked.lane)
    return answer(show(scan), 202, location(scan.id))


def _current(session: Connection, digest: Digest, asked: ScanRequest, repository: str) -> scans.ScanView | None:
    return scans.current(session, digest, asked.engine, asked.project, repository=repository, platform=asked.platform)


@api.get("/scans", responses={"200": ScanPage, **problems(404)})
@permission("read")
def index(query: ScanQuery) -> Response:
    """List scans, newest first

    `?state=dead` is the list of what was given up: each says why, and `rescan` asks again.
    """
    with resources().database.read() as session:
        page = scans.list_(
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
    """Read one scan"""
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
    """Watch one scan

    Server-sent events, one `scan` event at once and one for every change. The stream ends with the scan, or after 25
    seconds; a browser's EventSource then comes back by itself. A server with many watchers answers with the first
    event only.
    """
    scan_id, projects = str(path.scan_id), principal().projects
    with resources().database.read() as session:
        first = show(scans.get(session, scan_id, projects))
    return Response(
        stream_with_context(_watch(scan_id, projects, first)),
        mimetype="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


def _watch(scan_id: str, projects: frozenset[str] | None, shown: ScanOut) -> Iterator[bytes]:
    """A stream holds one of the server's threads, so there are only so many at once (``GATE_WAITERS``), each for a
    short time.
    """
    yield b"retry: 2000\n\n" + _event(shown)
    if shown.state.terminal or not resources().waiters.acquire(blocking=False):
        return
    try:
        ends = time.monotonic() + _WATCH_SECONDS
        while time.monotonic() < ends and not shown.state.terminal and not leaving().wait(0.5):
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
    """Stop a scan

    A worker that has it notices within seconds and writes nothing more. 409 for a scan that has already ended.
    """
    with resources().database.session() as session:
        return answer(show(use_cases.cancel(session, principal(), str(path.scan_id))))


@api.post("/scans/<uuid:scan_id>/rescan", responses={"202": ScanOut, **problems(404, 409)})
@permission("scan")
def rescan(path: ScanPath) -> Response:
    """Ask again

    A new scan of what this one was of; this one stays as it is. 409 while it has not ended.
    """
    with resources().database.session() as session:
        ticket, again = use_cases.rescan(session, principal(), str(path.scan_id))
    if ticket.created:
        queue.enqueue(resources().celery, ticket.scan_id, again.request.lane)
    return answer(show(again), 202, location(again.id))
