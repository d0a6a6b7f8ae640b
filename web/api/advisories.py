"""Advisories: age, updates, and revocations."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from flask import Response
from pydantic import Field, StringConstraints, model_validator

from scanner import catalog
from scanner.advisories import sources
from scanner.errors import NotFoundError
from scanner.model.decision import Revoked, Verdict
from scanner.model.scan import ScanState, Stage
from scanner.services import jobs as job_use_cases
from scanner.services import revocations as revocation_use_cases
from scanner.store import jobs, matches, revocations
from web.api.base import PREFIX, Body, DigestText, Model, Text, answer, blueprint, problems
from web.auth import everywhere, permission, principal
from web.resources import resources

api = blueprint("advisories", "Advisories", "The vulnerability database, the feeds, and revocations.")

EngineName = Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9-]+$")]


class SourceOut(Model):
    """``mirror`` null: files are imported. ``failure``: why the last update failed; null if it succeeded."""

    source: str
    version: str | None
    updated_at: datetime | None = Field(description="When the publisher built it.")
    downloaded_at: datetime | None
    next_update: datetime | None
    digest: DigestText | None
    age_hours: float | None
    stale: bool
    origin: str | None = Field(description="Where the data in use came from.")
    mirror: str | None
    checked_at: datetime | None
    next_check_at: datetime | None
    failed_at: datetime | None
    failures: int
    failure: str | None


class JobProgress(Model):
    stage: Stage
    message: str
    done: int
    total: int


class JobOut(Model):
    id: UUID
    kind: str
    state: ScanState
    progress: JobProgress | None
    reason: str
    message: str
    attempt: int
    lost: int
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class AdvisoriesOut(Model):
    sources: list[SourceOut]
    packages: int = Field(description="Number of package versions that are looked up when the advisories change.")
    jobs: list[JobOut] = Field(description="The last updates and re-matches, newest first.")


class UpdateIn(Body):
    sources: list[Literal["trivy-db", "trivy-java-db", "kev", "epss"]] = Field(
        [], description="Sources to update. Default: all that are due."
    )


class RematchIn(Body):
    engine: EngineName | None = None


class JobPath(Model):
    job_id: UUID


class RevocationIn(Body):
    """What to revoke: an engine's version, or the digest of a binary or advisory database."""

    engine: EngineName | None = None
    version: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[\x21-\x7e]+$")] | None = None
    digest: DigestText | None = None
    reason: Text = ""

    @model_validator(mode="after")
    def _one_thing(self) -> RevocationIn:
        # An engine without a version would also revoke the versions that repair it.
        if (self.engine is None) != (self.version is None) or (self.engine is None) == (self.digest is None):
            raise ValueError("give engine and version, or digest")
        return self


class RevocationOut(Model):
    id: UUID
    engine: str
    version: str
    digest: str
    reason: str
    revoked_by: str
    revoked_at: datetime
    lifted_by: str
    lifted_at: datetime | None


class RevocationList(Model):
    items: list[RevocationOut]


class RestingOut(Model):
    project: str
    repository: str
    tag: str
    digest: DigestText
    verdict: Verdict
    engine: str
    version: str


class RestingList(Model):
    """``truncated``: more decisions are based on it than are listed."""

    revocation: RevocationOut
    items: list[RestingOut]
    truncated: bool


class RevocationPath(Model):
    revocation_id: UUID


class RestingQuery(Model):
    limit: int = Field(200, ge=1, le=1000)


def show_job(job: jobs.JobView) -> JobOut:
    progress = job.progress
    return JobOut(
        id=UUID(job.id),
        kind=job.kind,
        state=job.state,
        progress=JobProgress(stage=progress.stage, message=progress.message, done=progress.done, total=progress.total)
        if progress
        else None,
        reason=job.reason,
        message=job.message,
        attempt=job.attempt,
        lost=job.lost,
        requested_by=job.requested_by,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def show_revocation(item: revocations.RevocationView) -> RevocationOut:
    return RevocationOut(
        id=UUID(item.id),
        engine=item.what.engine,
        version=item.what.version,
        digest=item.what.digest,
        reason=item.reason,
        revoked_by=item.revoked_by,
        revoked_at=item.revoked_at,
        lifted_by=item.lifted_by,
        lifted_at=item.lifted_at,
    )


@api.get("/advisories", responses={"200": AdvisoriesOut})
@permission("read")
def index() -> Response:
    """Read the age of the advisories and the results of the last updates"""
    with resources().database.read() as session:
        last = jobs.list_jobs(session, jobs.KINDS)
        packages = matches.figures(session)["packages"]
    found = [SourceOut.model_validate(line.document) for line in sources.overview(resources().settings)]
    return answer(AdvisoriesOut(sources=found, packages=packages, jobs=[show_job(job) for job in last]))


@api.post("/advisories/update", responses={"202": JobOut, **problems(409)})
@permission("manage")
def update(body: UpdateIn) -> Response:
    """Update advisories from the configured mirrors

    A worker runs the update, one at a time. If it fails, the current data stays in use.
    """
    everywhere()
    return _request(jobs.UPDATE, jobs.ANYWHERE, {"sources": body.sources} if body.sources else {})


@api.post("/advisories/rematch", responses={"202": JobOut, **problems(404, 409)})
@permission("manage")
def rematch(body: RematchIn) -> Response:
    """Look up all known packages in the current advisories

    Workers do this when the advisories change. Only images whose evidence changes are decided again. No registry is
    contacted.
    """
    everywhere()
    name = body.engine or resources().settings.engine
    engine = catalog.engines().get(name)
    if engine is None or not engine.looks_up:
        raise NotFoundError(f"there is no engine {name!r} that looks packages up without an image")
    return _request(jobs.REMATCH, f"{name}:{jobs.ANYWHERE}", {"engine": name})


def _request(kind: str, key: str, parameters: Mapping[str, object]) -> Response:
    with resources().database.session() as session:
        job = job_use_cases.request(session, principal(), kind, key, parameters)
    return answer(show_job(job), 202, {"Location": f"{PREFIX}/advisories/jobs/{job.id}"})


@api.get("/advisories/jobs/<uuid:job_id>", responses={"200": JobOut, **problems(404)})
@permission("read")
def job(path: JobPath) -> Response:
    """Read an update or re-match"""
    with resources().database.read() as session:
        return answer(show_job(jobs.get(session, str(path.job_id))))


@api.post("/advisories/jobs/<uuid:job_id>/cancel", responses={"200": JobOut, **problems(404, 409)})
@permission("manage")
def cancel(path: JobPath) -> Response:
    """Cancel an update or re-match

    Its results so far are kept. 409 if it has ended.
    """
    with resources().database.session() as session:
        return answer(show_job(job_use_cases.cancel(session, principal(), str(path.job_id))))


@api.get("/advisories/revocations", responses={"200": RevocationList})
@permission("read")
def revoked() -> Response:
    """List revocations, including lifted ones"""
    with resources().database.read() as session:
        return answer(RevocationList(items=[show_revocation(item) for item in revocations.list_revocations(session)]))


@api.post("/advisories/revocations", responses={"201": RevocationOut})
@permission("manage")
def revoke(body: RevocationIn) -> Response:
    """Revoke an engine or an advisory database

    Every decision based on it becomes undecided (`engine_revoked`), and its images are queued for new scans.
    """
    what = Revoked(body.engine or "", body.version or "", body.digest or "")
    with resources().database.session() as session:
        revocation = revocation_use_cases.revoke(session, principal(), what, body.reason)
    return answer(show_revocation(revocation), 201, {"Location": f"{PREFIX}/advisories/revocations/{revocation.id}"})


@api.get("/advisories/revocations/<uuid:revocation_id>", responses={"200": RestingList, **problems(404)})
@permission("read")
def resting(path: RevocationPath, query: RestingQuery) -> Response:
    """Read a revocation and the decisions that are based on it"""
    with resources().database.read() as session:
        found = revocations.get(session, str(path.revocation_id))
        # One more than asked for tells whether there are more, without counting all.
        names = revocations.affected_listings(session, found.what, principal().projects, limit=query.limit + 1)
    items = [
        RestingOut(
            project=n.project,
            repository=n.repository,
            tag=n.tag,
            digest=n.digest,
            verdict=Verdict(n.verdict),
            engine=n.engine,
            version=n.version,
        )
        for n in names[: query.limit]
    ]
    return answer(RestingList(revocation=show_revocation(found), items=items, truncated=len(names) > query.limit))


@api.post("/advisories/revocations/<uuid:revocation_id>/lift", responses={"200": RevocationOut, **problems(404)})
@permission("manage")
def lift(path: RevocationPath) -> Response:
    """Lift a revocation"""
    with resources().database.session() as session:
        found = revocation_use_cases.lift(session, principal(), str(path.revocation_id))
    return answer(show_revocation(found))
