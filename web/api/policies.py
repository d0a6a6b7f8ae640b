"""Policies: versioned documents. Editing is optimistic (ETag, If-Match). Each change renews all decisions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from flask import Response
from pydantic import Field, StringConstraints
from sqlalchemy.engine import Connection

from scanner.model.decision import Verdict
from scanner.model.scan import ScanState
from scanner.policy.rules import Policy, PolicyError, parse_policy
from scanner.services import dry_runs, simulation, trust_roots
from scanner.services import policies as use_cases
from scanner.store import dry_runs as stored
from scanner.store import policies
from web.api.base import (
    PREFIX,
    Body,
    DigestText,
    IfMatch,
    Model,
    Name,
    PageQuery,
    Whole,
    answer,
    blueprint,
    edited_version,
    etag,
    page_of,
    problems,
)
from web.auth import permission, principal
from web.resources import resources

api = blueprint("policies", "Policies", "Versioned documents that decide what may be shipped.")

PolicyName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
PolicyText = Annotated[
    str,
    Field(
        max_length=256 << 10,
        description="Document in YAML or JSON.",
        examples=["apiVersion: dockwarden/v1\nkind: Policy\n…"],
    ),
]


class PolicyIn(Body):
    text: PolicyText
    project: Name | None = Field(
        None,
        description="For a new policy: the project whose images it applies to, permanently. Default: all projects.",
    )


class PolicyOut(Model):
    name: str
    version: int
    text: str
    digest: DigestText
    author: str
    created_at: datetime
    enabled: bool
    project: str | None = Field(description="The project whose images it applies to; null: all projects.")


class PolicyList(Model):
    items: list[PolicyOut]


class EnabledIn(Body):
    enabled: bool


class PolicyPath(Model):
    name: PolicyName


class VersionPath(PolicyPath):
    version: int = Field(ge=1, le=2**31 - 1)


class PolicyProblem(Model):
    """``line`` and ``column``: from 1; 0: the problem has no location."""

    line: int
    column: int
    field: str
    message: str


class ValidationOut(Model):
    valid: bool
    name: str | None
    problems: list[PolicyProblem]


class SimulationIn(Body):
    text: PolicyText | None = Field(
        None, description="Document to simulate. Default: the stored one, if it is disabled."
    )
    limit: Whole = Field(100, ge=1, le=simulation.MOST, description="Number of images to simulate, newest scans first.")
    cursor: str | None = Field(None, max_length=200, description="`next_cursor` of the previous answer.")


class FlipOut(Model):
    image: str
    digest: DigestText
    project: str
    environment: str
    before: Verdict
    after: Verdict
    rules: list[str] = Field(
        description="Rules that deny it: those of the document, or the current ones if it is released."
    )
    reasons: list[str]


class SimulationOut(Model):
    """The result on existing evidence. Nothing is scanned again."""

    newly_denied: list[FlipOut]
    newly_released: list[FlipOut]
    unchanged: int
    examined: int
    truncated: bool
    next_cursor: str | None


class WorkloadFlipOut(Model):
    workload: str
    id: str = Field(description="Of the workload, as in `/workloads/{id}`.")
    image: str
    project: str
    environment: str
    before: Verdict
    after: Verdict
    rules: list[str] = Field(
        description="The rules that deny it: with the document, or until now where it is released."
    )
    reasons: list[str]


class WorkloadSimulationOut(Model):
    """Checks are not run again: this is what the policy would say of what is known."""

    newly_denied: list[WorkloadFlipOut]
    newly_released: list[WorkloadFlipOut]
    unchanged: int
    examined: int
    truncated: bool
    next_cursor: str | None


def show(policy: policies.PolicyView) -> PolicyOut:
    return PolicyOut(
        name=policy.name,
        version=policy.version,
        text=policy.text,
        digest=policy.digest,
        author=policy.author,
        created_at=policy.created_at,
        enabled=policy.enabled,
        project=policy.project or None,
    )


def _policy_response(policy: policies.PolicyView, status: int = 200) -> Response:
    return answer(show(policy), status, {"ETag": etag(policy.version)})


@api.get("/policies", responses={"200": PolicyList})
@permission("read")
def index() -> Response:
    """List policies in their newest versions"""
    with resources().database.read() as session:
        return answer(
            PolicyList(items=[show(policy) for policy in policies.list_policies(session, principal().projects)])
        )


@api.post("/policies/<name>/validate", responses={"200": ValidationOut})
@permission("read")
def validate(path: PolicyPath, body: PolicyIn) -> Response:
    """Validate a document

    Lists all problems with line and column. Nothing is stored, and the policy need not exist.
    """
    try:
        with resources().database.read() as session:
            parsed = parse_policy(body.text, path.name, known=trust_roots.known_to_authors(session))
    except PolicyError as error:
        found = [PolicyProblem(line=p.line, column=p.column, field=p.field, message=p.message) for p in error.problems]
        return answer(ValidationOut(valid=False, name=None, problems=found))
    return answer(ValidationOut(valid=True, name=parsed.name, problems=[]))


@api.get("/policies/<name>", responses={"200": PolicyOut, **problems(404)})
@permission("read")
def get(path: PolicyPath) -> Response:
    """Read the newest version of a policy"""
    with resources().database.read() as session:
        return _policy_response(policies.get(session, path.name, projects=principal().projects))


@api.get("/policies/<name>/versions", responses={"200": PolicyList, **problems(404)})
@permission("read")
def versions(path: PolicyPath) -> Response:
    """List all versions, newest first"""
    with resources().database.read() as session:
        return answer(
            PolicyList(items=[show(policy) for policy in policies.versions(session, path.name, principal().projects)])
        )


@api.get("/policies/<name>/versions/<int:version>", responses={"200": PolicyOut, **problems(404)})
@permission("read")
def get_version(path: VersionPath) -> Response:
    """Read one version"""
    with resources().database.read() as session:
        return _policy_response(policies.get(session, path.name, path.version, principal().projects))


@api.put("/policies/<name>", responses={"200": PolicyOut, "201": PolicyOut, **problems(404, 412, 428)})
@permission("policy")
def put(path: PolicyPath, body: PolicyIn, header: IfMatch) -> Response:
    """Write a policy

    Creates a new version, active at once. `If-Match` names the edited version: 412 if it has changed in the meantime.
    """
    with resources().database.session() as session:
        # Before If-Match is compared: a caller who may not edit the policy learns nothing about its version.
        current = use_cases.to_edit(session, principal(), path.name, body.project or "")
        expected = edited_version(header.if_match, current.version if current else None, "policy")
        written = use_cases.write(
            session, principal(), path.name, body.text, if_version=expected, project=body.project or ""
        )
    response = _policy_response(written, 201 if current is None else 200)
    if current is None:
        response.headers["Location"] = f"{PREFIX}/policies/{written.name}"
    return response


@api.put("/policies/<name>/enabled", responses={"200": PolicyOut, **problems(404)})
@permission("policy")
def enable(path: PolicyPath, body: EnabledIn) -> Response:
    """Enable or disable a policy"""
    with resources().database.session() as session:
        return _policy_response(use_cases.set_enabled(session, principal(), path.name, body.enabled))


@api.post("/policies/<name>/simulate", responses={"200": SimulationOut, **problems(404)})
@permission("read")
def simulate(path: PolicyPath, body: SimulationIn) -> Response:
    """Simulate a policy

    Returns which of the last scanned images the document would newly deny or release. Each answer takes a few seconds
    at most; continue with `next_cursor`.
    """
    with resources().database.read() as session:
        new = _draft_policy(session, path.name, body)
        result = simulation.simulate(session, new, principal().projects, body.limit, cursor=body.cursor)
    return answer(SimulationOut(**_simulation_members(result, _flip)))


@api.post("/policies/<name>/simulate/workloads", responses={"200": WorkloadSimulationOut, **problems(404)})
@permission("read")
def simulate_workloads(path: PolicyPath, body: SimulationIn) -> Response:
    """Try a policy on what runs

    Running workloads that would newly be denied or allowed if the document were the current policy, worst first. The
    verdict is the worse of how a workload is run and of its image.
    """
    with resources().database.read() as session:
        new = _draft_policy(session, path.name, body)
        result = simulation.simulate_workloads(session, new, principal().projects, body.limit, cursor=body.cursor)
    return answer(WorkloadSimulationOut(**_simulation_members(result, _workload_flip)))


def _simulation_members(
    result: simulation.Simulation[simulation.F], shown: Callable[[simulation.F], Model]
) -> dict[str, Any]:
    """The members that simulations on images and on workloads share."""
    return {
        "newly_denied": page_of(result.newly_denied, shown),
        "newly_released": page_of(result.newly_released, shown),
        "unchanged": result.unchanged,
        "examined": result.examined,
        "truncated": result.truncated,
        "next_cursor": result.next_cursor,
    }


def _draft_policy(session: Connection, name: str, body: SimulationIn) -> Policy:
    text = body.text
    if text is None:
        text = policies.get(session, name, projects=principal().projects).text
    return use_cases.parse(session, text, name)


def _workload_flip(flip: simulation.WorkloadFlip) -> WorkloadFlipOut:
    return WorkloadFlipOut(
        workload=flip.name,
        id=flip.uid,
        image=flip.image,
        project=flip.project,
        environment=flip.environment,
        before=flip.before,
        after=flip.after,
        rules=list(flip.rules),
        reasons=list(flip.reasons),
    )


def _flip(flip: simulation.Flip) -> FlipOut:
    return FlipOut(
        image=flip.image,
        digest=flip.digest,
        project=flip.project,
        environment=flip.environment,
        before=flip.before,
        after=flip.after,
        rules=list(flip.rules),
        reasons=list(flip.reasons),
    )


# Dry runs


class DryRunIn(Body):
    text: PolicyText | None = Field(None, description="Document to try. Default: the stored one.")
    as_of: Annotated[date, Field(strict=False)] | None = Field(
        None, description="Try it as of the end of this day (UTC), one of the last 90. Default: now."
    )


class DryRunPath(Model):
    dry_run_id: UUID


class ShareOut(Model):
    """How much was examined. The counts of verdicts are of decisions: one for each environment."""

    known: int = Field(description="All that you see.")
    matching: int | None = Field(
        description="Those that the policy, or the version that it replaces, applies to; null: not counted yet."
    )
    examined: int
    skipped: int = Field(description="Their evidence was removed during the dry run.")
    later: int = Field(description="Images without evidence from the day that was asked for.")
    unscanned: int = Field(
        description="Workloads that run or mount an image that was never scanned: the rest of them was examined."
    )
    newly_denied: int
    newly_released: int
    unchanged: int
    complete: bool


class ChangeGroupOut(Model):
    """Changes by one rule in one project, which owns the images. A change by two rules counts for both."""

    rule: str
    project: str
    newly_denied: int
    newly_released: int


class DryRunOut(Model):
    id: UUID
    policy: str
    as_of: datetime | None = Field(description="The past moment; null: now.")
    state: ScanState
    reason: str
    message: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    images: ShareOut
    workloads: ShareOut | None = Field(description="null for a past day: what ran then is not stored.")
    groups: list[ChangeGroupOut] = Field(description="Most newly denied first.")


class ChangesQuery(PageQuery):
    subject: Literal["image", "workload"] | None = None
    change: Literal["denied", "released"] | None = None
    project: str | None = Field(None, max_length=64)
    rule: str | None = Field(None, max_length=64)


class ChangeOut(Model):
    subject: Literal["image", "workload"]
    change: Literal["denied", "released"]
    name: str
    digest: DigestText | None = Field(description="Of an image.")
    workload: UUID | None = Field(description="Id of a workload.")
    project: str
    environment: str
    before: Verdict
    after: Verdict
    rules: list[str] = Field(description="Rules of the worse verdict.")
    reasons: list[str]


class ChangePage(Model):
    items: list[ChangeOut]
    next_cursor: str | None


@api.post("/policies/<name>/dry-runs", responses={"202": DryRunOut, **problems(404, 409)})
@permission("read")
def start_dry_run(path: PolicyPath, body: DryRunIn) -> Response:
    """Try a policy on everything

    Starts a job that examines all images and running workloads that the document, or the version that it replaces,
    applies to. The unfinished dry run of the same document is returned instead of a second one.
    """
    with resources().database.session() as session:
        text = body.text
        if text is None:
            text = policies.get(session, path.name, projects=principal().projects).text
        view = dry_runs.request(session, principal(), text, path.name, body.as_of)
        shown = _dry_run(session, view)
    return answer(shown, 202, {"Location": f"{PREFIX}/dry-runs/{shown.id}"})


@api.get("/dry-runs/<uuid:dry_run_id>", responses={"200": DryRunOut, **problems(404)})
@permission("read")
def get_dry_run(path: DryRunPath) -> Response:
    """Read a dry run: its state, the share that was examined, and what would change by rule and project"""
    with resources().database.read() as session:
        return answer(_dry_run(session, dry_runs.get(session, principal(), str(path.dry_run_id))))


@api.get("/dry-runs/<uuid:dry_run_id>/changes", responses={"200": ChangePage, **problems(404)})
@permission("read")
def dry_run_changes(path: DryRunPath, query: ChangesQuery) -> Response:
    """List the verdicts that would change"""
    narrowed = stored.Filter(query.subject or "", query.change or "", query.project or "", query.rule or "")
    with resources().database.read() as session:
        run = dry_runs.get(session, principal(), str(path.dry_run_id)).run
        found = stored.changes(session, run.id, principal().projects, narrowed, cursor=query.cursor, limit=query.limit)
    return answer(ChangePage(items=page_of(found.items, _change), next_cursor=found.next_cursor))


@api.post("/dry-runs/<uuid:dry_run_id>/cancel", responses={"200": DryRunOut, **problems(404, 409)})
@permission("read")
def cancel_dry_run(path: DryRunPath) -> Response:
    """Cancel a dry run"""
    with resources().database.session() as session:
        return answer(_dry_run(session, dry_runs.cancel(session, principal(), str(path.dry_run_id))))


def _dry_run(session: Connection, view: dry_runs.View) -> DryRunOut:
    run, job = view.run, view.job
    return DryRunOut(
        id=UUID(run.id),
        policy=run.policy,
        as_of=run.as_of,
        state=job.state,
        reason=job.reason,
        message=job.message,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        images=_share(run.images),
        workloads=None if run.as_of else _share(run.workloads),
        groups=[
            ChangeGroupOut(
                rule=group.rule, project=group.project, newly_denied=group.denied, newly_released=group.released
            )
            for group in stored.groups(session, run.id, principal().projects)
        ],
    )


def _share(share: stored.Share) -> ShareOut:
    return ShareOut(
        known=share.known,
        matching=share.matching,
        examined=share.examined,
        skipped=share.skipped,
        later=share.later,
        unscanned=share.unscanned,
        newly_denied=share.denied,
        newly_released=share.released,
        unchanged=share.unchanged,
        complete=share.complete,
    )


def _change(change: stored.Change) -> ChangeOut:
    of_image = change.subject == stored.IMAGE
    return ChangeOut(
        subject="image" if of_image else "workload",
        change="denied" if change.change == stored.DENIED else "released",
        name=change.name,
        digest=change.reference if of_image else None,
        workload=None if of_image else UUID(change.reference),
        project=change.project,
        environment=change.environment,
        before=change.before,
        after=change.after,
        rules=list(change.rules),
        reasons=list(change.reasons),
    )
