"""Inventory: sources report their workloads; users see how they run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from flask import Response
from pydantic import Field, StringConstraints

from scanner import queue
from scanner.errors import UsageError
from scanner.model.decision import Verdict
from scanner.model.finding import CheckResult
from scanner.model.scan import Lane
from scanner.services import inventory as use_cases
from scanner.store import inventory
from web.api.base import Body, Model, PageQuery, Text, Whole, answer, blueprint, problems
from web.auth import permission, principal
from web.resources import resources

api = blueprint("inventory", "Inventory", "Running workloads and how they are configured.")

BODY_LIMIT = 32 << 20  # of 10,000 workloads, each with the places of its fields
# For the tokens of pipelines, which are many: less than for those that report. A workload has at most 64 KiB.
_CHECKED_AT_ONCE, _CHECKED_LIMIT = 200, 16 << 20
_Level = Literal["allow", "warn", "undecided", "deny"]
_Digest = Annotated[str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$")]


class DocumentIn(Body):
    """A file with workloads, as written by the source's own tools. It must not refer to other files."""

    file: Text = Field("", description="File name, shown with findings.", examples=["deployment.yaml"])
    text: str


class InventoryIn(Body):
    """All workloads of one source. Give ``documents``, or ``workloads`` as created by `dockwarden inventory push`."""

    environment: Annotated[str, StringConstraints(max_length=63, pattern=use_cases.ENVIRONMENT)] = Field(
        description="Environment; selects policies.", examples=["production"]
    )
    source: Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9-]+$")] = Field(
        description="Kind of source.", examples=["kubernetes"]
    )
    name: Text = Field(
        min_length=1, max_length=use_cases.NAME_LENGTH, description="Name of the cluster, host or project."
    )
    generation: Whole = Field(
        ge=0, le=use_cases.MOST_GENERATION, description="Must be greater than in the previous snapshot."
    )
    agent: Text = Field(
        "",
        max_length=use_cases.AGENT_LENGTH,
        description="The agent: host and target. While one reports a source, another one is refused with 409 "
        "(`another_agent`). Empty: the token is the agent.",
        examples=["web-1 docker"],
    )
    every_seconds: Whole = Field(
        0, ge=0, le=use_cases.MOST_SECONDS, description="How often the agent reports. 0: unknown."
    )
    documents: list[DocumentIn] | None = Field(None, max_length=1000)
    workloads: list[dict[str, Any]] | None = Field(None, max_length=use_cases.MOST_WORKLOADS)


class GateWorkloadsIn(Body):
    """Workloads that will run, as `dockwarden audit --server` sends them: without values of variables."""

    environment: Annotated[str, StringConstraints(max_length=63, pattern=f"^$|{use_cases.ENVIRONMENT}")] = Field(
        "", description="Where they will run. Empty: nothing is compared with other environments."
    )
    workloads: list[dict[str, Any]] = Field(max_length=_CHECKED_AT_ONCE)


class GateWorkloadOut(Model):
    checks: list[CheckResult]


class GateWorkloadsOut(Model):
    """One item for each workload, in order."""

    items: list[GateWorkloadOut]


class WorkloadSourceOut(Model):
    id: UUID
    environment: str
    source: str
    name: str
    generation: int
    workloads: int
    reported_by: str
    reported_at: datetime
    changed_at: datetime
    agent: str = Field(description="The agent that reports it: host and target.")
    refused_agent: str = Field(description="Another agent that tried to report it, and was refused. Empty: none.")
    refused_at: datetime | None = Field(description="When that agent was refused last.")
    contested: bool = Field(description="Another agent was refused within an hour of the last report.")


class ReportedOut(Model):
    """The changes by the snapshot. ``scans``: scans that were queued for running images without a scan."""

    source: WorkloadSourceOut
    added: int
    changed: int
    removed: int
    unchanged: int
    scans: list[UUID]


class SourceList(Model):
    items: list[WorkloadSourceOut]


class SourcePath(Model):
    source_id: UUID


class WorkloadPath(Model):
    workload_id: UUID


class WorkloadOut(Model):
    """``overall``: the worst of ``verdict`` (how it runs), ``image_verdict`` (its image; null: not scanned) and the
    images that it mounts.
    """

    id: UUID
    name: str
    environment: str
    source: str
    source_name: str
    project: str
    namespace: str
    kind: str
    owner: str
    image: str
    digest: _Digest | None
    digest_by_tag: bool = Field(
        description="The digest is that of the tag; the source did not report the running digest."
    )
    overall: _Level
    verdict: Verdict
    undecided: bool
    image_verdict: Verdict | None
    image_undecided: bool
    failed_checks: list[str]
    first_seen: datetime
    image_since: datetime
    reported_at: datetime


class MountedImageOut(Model):
    """An image whose files the workload mounts. It counts for ``overall``. ``verdict`` null: not scanned."""

    image: str
    digest: _Digest | None
    verdict: Verdict | None
    undecided: bool


class WorkloadDetailOut(WorkloadOut):
    """``tag_names``: the current digest of the image's tag. ``drifted``: another digest is running. ``other_digests``:
    digests that other environments run under the same repository and tag, by environment.
    """

    facts: dict[str, Any]
    checks: list[CheckResult]
    decision: dict[str, Any]
    tag_names: _Digest | None
    drifted: bool
    other_digests: dict[str, list[_Digest]]
    mounted_images: list[MountedImageOut]


class WorkloadPage(Model):
    """``facets``: number of workloads of each kind among all visible ones, regardless of filters."""

    items: list[WorkloadOut]
    next_cursor: str | None
    facets: dict[str, dict[str, int]]


class WorkloadQuery(PageQuery):
    search: Text = Field("", description="Text in name or image.")
    environment: Text = ""
    source: UUID | None = None
    namespace: Text = ""
    verdict: list[_Level] = Field([], description="Verdicts of workload and image together.")
    image: Text = Field("", description="host/repository")
    digest: Text = ""
    owner: Text = ""
    check: Text = Field("", description="Id of a failed check.")


@api.post("/inventory", responses={"200": ReportedOut, **problems(409)})
@permission("inventory", body=BODY_LIMIT)
def report(body: InventoryIn) -> Response:
    """Report all workloads of a source

    The snapshot replaces the source's previous one; missing workloads are removed. A snapshot older than the current
    one is refused with 409 (`out_of_order`), and one of another agent with 409 (`another_agent`) while the first one
    reports. The same snapshot again changes nothing.
    """
    if (body.documents is None) == (body.workloads is None):
        raise UsageError("give either documents or workloads", reason="invalid", field="workloads")
    # Before the documents are parsed: up to 32 MiB of YAML are not read for a caller who will be refused.
    principal().require_every_project()
    files = [(document.file, document.text) for document in body.documents or ()]
    found = use_cases.parse(body.source, files) if files else body.workloads or ()
    snapshot = use_cases.Snapshot(
        body.environment, body.source, body.name, body.generation, found, body.agent, body.every_seconds
    )
    done = use_cases.report(resources().database, principal(), snapshot, resources().settings.engine)
    # After the commit: a faster worker would find no row.
    for ticket in done.tickets:
        queue.enqueue(resources().celery, ticket.scan_id, Lane.PUSH)
    return answer(
        ReportedOut(
            source=_source(done.source),
            added=done.added,
            changed=done.changed,
            removed=done.removed,
            unchanged=done.unchanged,
            scans=[UUID(ticket.scan_id) for ticket in done.tickets],
        )
    )


@api.post("/gate/workloads", responses={"200": GateWorkloadsOut})
@permission("gate", body=_CHECKED_LIMIT)
def check(body: GateWorkloadsIn) -> Response:
    """Check workloads before they run

    The results are those that the inventory would show: they include the stored evidence of the images and what other
    environments run. Ask the gate about the images first. Nothing is recorded.
    """
    with resources().database.read() as session:
        found = use_cases.examine(session, principal(), body.environment, body.workloads)
    return answer(GateWorkloadsOut(items=[GateWorkloadOut(checks=list(each)) for each in found]))


@api.get("/inventory", responses={"200": SourceList})
@permission("read")
def sources() -> Response:
    """List the sources and their last reports"""
    with resources().database.read() as session:
        found = inventory.sources(session, principal().projects)
    return answer(SourceList(items=[_source(each) for each in found]))


@api.delete("/inventory/<uuid:source_id>", responses={"204": None, **problems(404)})
@permission("manage")
def remove(path: SourcePath) -> Response:
    """Remove a source and its workloads"""
    with resources().database.session() as session:
        use_cases.remove(session, principal(), str(path.source_id))
    return Response(status=204)


@api.get("/workloads", responses={"200": WorkloadPage, **problems(404)})
@permission("read")
def index(query: WorkloadQuery) -> Response:
    """List workloads, worst verdict first"""
    narrowed = inventory.Filter(
        search=query.search,
        environment=query.environment,
        source=str(query.source or ""),
        namespace=query.namespace,
        verdicts=tuple(query.verdict),
        image=query.image,
        owner=query.owner,
        check=query.check,
        digest=query.digest,
    )
    with resources().database.read() as session:
        page = inventory.list_workloads(session, principal().projects, narrowed, cursor=query.cursor, limit=query.limit)
        facets = inventory.facets(session, principal().projects)
    items = [WorkloadOut(**_workload(row)) for row in page.items]
    return answer(WorkloadPage(items=items, next_cursor=page.next_cursor, facets=facets))


@api.get("/workloads/<uuid:workload_id>", responses={"200": WorkloadDetailOut, **problems(404)})
@permission("read")
def get(path: WorkloadPath) -> Response:
    """Read a workload: configuration, findings with their lines, decision

    Values of environment variables are never stored; `facts` has their names.
    """
    with resources().database.read() as session:
        found = use_cases.detail(session, principal(), str(path.workload_id))
    return answer(
        WorkloadDetailOut(
            **_workload(found.row),
            facts=dict(found.facts),
            checks=list(found.results),
            decision=dict(found.decision),
            tag_names=found.tag_names or None,
            drifted=found.drifted,
            mounted_images=[
                MountedImageOut(
                    image=each.image, digest=each.digest or None, verdict=each.verdict or None, undecided=each.undecided
                )
                for each in found.row.mounted
            ],
            other_digests={name: list(digests) for name, digests in found.other_digests.items()},
        )
    )


def _source(view: inventory.SourceView) -> WorkloadSourceOut:
    names = WorkloadSourceOut.model_fields.keys() - {"id"}
    return WorkloadSourceOut(id=UUID(view.id), **{name: getattr(view, name) for name in names})


def _workload(row: inventory.WorkloadRow) -> dict[str, Any]:
    return {
        **{name: getattr(row, name) for name in _SAME},
        "id": UUID(row.uid),
        "digest": row.digest or None,
        "digest_by_tag": row.by_tag,
        "image_verdict": row.image_verdict or None,
        "failed_checks": list(row.failed),
    }


_OTHER = {"id", "digest", "digest_by_tag", "image_verdict", "failed_checks"}
_SAME = tuple(name for name in WorkloadOut.model_fields if name not in _OTHER)
