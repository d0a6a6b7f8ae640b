"""Polls of a registry, the pushes that they found, and its import."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from flask import Response
from pydantic import Field, StringConstraints, WithJsonSchema

from scanner.model.scan import ScanState
from scanner.services import reconciliation as use_cases
from scanner.store import jobs, reconciliation, registries
from scanner.store.reconciliation import FoundKind
from web.api.base import PREFIX, Body, Model, PageQuery, Whole, answer, blueprint, page_of, problems
from web.api.registries import RegistryPath
from web.auth import permission, principal
from web.resources import resources

api = blueprint("reconciliation", "Polls and imports", "Find pushes that webhooks lost, and scan a whole registry.")

Pattern = Annotated[
    str, StringConstraints(min_length=1, max_length=500), Field(examples=["shop/**"], description="Without the host.")
]
_ListBy = Literal["auto", "own", "catalog", "known"]
Patterns = Annotated[list[Pattern], Field(max_length=use_cases.PATTERNS_MOST)]


class PollCounts(Model):
    """``lost``: pushes that a webhook did not deliver. ``unannounced``: pushes to a registry without a webhook.

    ``first``: tags from before the first poll that were scanned. ``left``: those that were not, because they are many:
    import the registry. ``unlisted``: repositories of former scans that the registry neither lists nor shows.
    ``limited``: how often the registry asked for a pause.
    """

    repositories: int
    tags: int
    lost: int
    unannounced: int
    first: int
    left: int
    unlisted: int
    errors: int
    requests: int
    limited: int


class RunOut(Model):
    """``message``: the result, or why it failed."""

    id: UUID
    state: ScanState
    requested_by: str
    created_at: datetime
    finished_at: datetime | None
    reason: str
    message: str


class ListedBy(Model):
    """Where the repositories were listed. ``note``: why a better list was not used; empty: the best one was used.

    ``id``: the registry's own list (harbor, gitlab, ghcr, ecr, gar, quay, dockerhub), catalog (/v2/_catalog), or known:
    the repositories that pushes and scans have named.
    """

    id: str
    title: str
    note: str


class PollOut(Model):
    """``interval_seconds`` 0: no polls. ``last``: the result of the last complete poll. ``run``: the newest one."""

    registry: UUID
    interval_seconds: int
    include: list[str]
    exclude: list[str]
    list_by: _ListBy
    last_at: datetime | None
    last: PollCounts | None
    problems: list[str]
    listed_by: ListedBy | None
    run: RunOut | None


# The use case refuses what lies between 0 and the shortest, with a hint; the document describes it.
Interval = Annotated[
    Whole,
    WithJsonSchema(
        {"type": "integer", "anyOf": [{"const": 0}, {"minimum": use_cases.SHORTEST, "maximum": use_cases.LONGEST}]}
    ),
]


class PollIn(Body):
    """Absent members keep their values."""

    interval_seconds: Interval | None = Field(None, description=f"0: no polls; else {use_cases.SHORTEST} or more.")
    include: Patterns | None = Field(None, description="Repositories to poll. Empty: all.")
    exclude: Patterns | None = Field(None, description="Repositories to leave out.")
    list_by: _ListBy | None = Field(
        None,
        description="Where polls and imports list repositories. auto: the best list that answers; own: the registry's "
        "own API; catalog: /v2/_catalog; known: what pushes and scans have named. If the chosen one does not answer, "
        "the poll or import fails.",
    )


class FoundOut(Model):
    """``webhook``: the one that lost the event. ``former``: what the tag named before; null: unknown."""

    kind: FoundKind
    webhook: str
    repository: str
    tag: str
    digest: str
    former: str | None
    scan: UUID | None
    found_at: datetime


class FoundPage(Model):
    items: list[FoundOut]
    next_cursor: str | None


class ImportIn(Body):
    dry_run: bool = Field(False, description="Only count what an import would scan.")
    include: Patterns = Field([], description="Repositories to import. Empty: all.")
    exclude: Patterns = Field([], description="Repositories to leave out.")


class ImportOut(Model):
    """``phase``: counting, queueing, scanning, or ended. ``known``: tags that were scanned before.

    ``seconds_left``: an estimate; null: not known yet. Of a count: how long the import would take one worker slot.
    """

    id: UUID
    dry_run: bool
    phase: str
    state: ScanState
    repositories: int
    tags: int
    known: int
    queued: int
    ended: int
    failed: int
    remaining: int
    seconds_left: int | None
    problems: list[str]
    listed_by: ListedBy | None
    reason: str
    message: str
    requested_by: str
    created_at: datetime
    finished_at: datetime | None


@api.get("/registries/<uuid:registry_id>/poll", responses={"200": PollOut, **problems(404)})
@permission("manage")
def poll_settings(path: RegistryPath) -> Response:
    """Read how a registry is polled, and the last result"""
    with resources().database.read() as session:
        found = use_cases.settings(session, principal(), str(path.registry_id))
        run = use_cases.last_poll(session, principal(), str(path.registry_id))
    return answer(_poll(found, run))


@api.put("/registries/<uuid:registry_id>/poll", responses={"200": PollOut, **problems(404)})
@permission("manage")
def change_poll(path: RegistryPath, body: PollIn) -> Response:
    """Change how a registry is polled"""
    with resources().database.session() as session:
        found = use_cases.change(
            session,
            principal(),
            str(path.registry_id),
            seconds=body.interval_seconds,
            include=body.include,
            exclude=body.exclude,
            list_by=None if body.list_by is None else use_cases.list_by(body.list_by),
        )
        run = use_cases.last_poll(session, principal(), str(path.registry_id))
    return answer(_poll(found, run))


@api.post("/registries/<uuid:registry_id>/poll", responses={"202": RunOut, **problems(404)})
@permission("manage")
def poll(path: RegistryPath) -> Response:
    """Poll a registry now

    A worker starts soon; read the result with GET. If a poll is unfinished, it is returned.
    """
    with resources().database.session() as session:
        job = use_cases.poll(session, principal(), str(path.registry_id))
    return answer(_run(job), 202, {"Location": f"{PREFIX}/registries/{path.registry_id}/poll"})


@api.get("/registries/<uuid:registry_id>/found", responses={"200": FoundPage, **problems(404)})
@permission("manage")
def found(path: RegistryPath, query: PageQuery) -> Response:
    """List pushes and tags that polls found, newest first"""
    with resources().database.read() as session:
        # For its 404: a registry of another project must look like none.
        view = registries.get(session, str(path.registry_id), principal().projects)
        page = reconciliation.list_found_tags(
            session,
            principal().projects,
            registry_id=view.id,
            # Not what an import found: those are the whole registry, and their scans are listed as such.
            kinds=(FoundKind.LOST, FoundKind.UNANNOUNCED, FoundKind.FIRST),
            cursor=query.cursor,
            limit=query.limit,
        )
    return answer(FoundPage(items=page_of(page.items, _show_found), next_cursor=page.next_cursor))


@api.post("/registries/<uuid:registry_id>/import", responses={"202": ImportOut, **problems(404, 409)})
@permission("manage")
def start_import(path: RegistryPath, body: ImportIn) -> Response:
    """Import a registry: scan every tag that has not been scanned

    Its scans run behind those of pushes. With `dry_run` the tags are only counted. 409 while an import is unfinished.
    """
    with resources().database.session() as session:
        view = use_cases.start_import(
            session,
            principal(),
            str(path.registry_id),
            dry_run=body.dry_run,
            include=body.include,
            exclude=body.exclude,
        )
    return answer(_import(view), 202, {"Location": f"{PREFIX}/registries/{path.registry_id}/import"})


@api.get("/registries/<uuid:registry_id>/import", responses={"200": ImportOut, "204": None, **problems(404)})
@permission("manage")
def last_import(path: RegistryPath) -> Response:
    """Read the progress of the newest import

    204 if the registry was never imported.
    """
    with resources().database.read() as session:
        view = use_cases.last_import(session, principal(), str(path.registry_id))
    return answer(_import(view)) if view else Response(status=204)


@api.post("/registries/<uuid:registry_id>/import/cancel", responses={"200": ImportOut, **problems(404, 409)})
@permission("manage")
def cancel_import(path: RegistryPath) -> Response:
    """Cancel the unfinished import, and its waiting scans

    Finished scans are kept. 409 if it has ended.
    """
    with resources().database.session() as session:
        view = use_cases.cancel_import(session, principal(), str(path.registry_id))
    return answer(_import(view))


def _poll(found: reconciliation.PollView, run: jobs.JobView | None) -> PollOut:
    counts = found.last
    return PollOut(
        registry=UUID(found.registry_id),
        interval_seconds=found.seconds,
        include=list(found.include),
        exclude=list(found.exclude),
        list_by=found.list_by.value,
        last_at=found.last_at,
        # A result that an older version stored lacks newer counts.
        last=PollCounts(**{name: counts.get(name, 0) for name in PollCounts.model_fields}) if counts else None,
        problems=list(found.problems),
        listed_by=_listed_by(found.listed_by),
        run=_run(run) if run else None,
    )


def _listed_by(found: reconciliation.ListedBy) -> ListedBy | None:
    return ListedBy(id=found.id, title=found.title, note=found.note) if found.id else None


def _run(job: jobs.JobView) -> RunOut:
    return RunOut(
        id=UUID(job.id),
        state=job.state,
        requested_by=job.requested_by,
        created_at=job.created_at,
        finished_at=job.finished_at,
        reason=job.reason,
        message=job.message,
    )


def _show_found(item: reconciliation.FoundTag) -> FoundOut:
    return FoundOut(
        kind=item.kind,
        webhook=item.webhook,
        repository=item.repository,
        tag=item.tag,
        digest=item.digest,
        former=item.former or None,
        scan=UUID(item.scan_id) if item.scan_id else None,
        found_at=item.found_at,
    )


def _import(view: use_cases.ImportView) -> ImportOut:
    return ImportOut(
        id=UUID(view.id),
        dry_run=view.dry_run,
        phase=view.phase,
        state=view.state,
        repositories=view.repositories,
        tags=view.tags,
        known=view.known,
        queued=view.queued,
        ended=view.ended,
        failed=view.failed,
        remaining=view.remaining,
        seconds_left=view.seconds_left,
        problems=list(view.problems),
        listed_by=_listed_by(view.listed_by),
        reason=view.job.reason,
        message=view.message,
        requested_by=view.job.requested_by,
        created_at=view.job.created_at,
        finished_at=view.job.finished_at,
    )
