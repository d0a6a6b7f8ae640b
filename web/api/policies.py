"""Policies: versioned documents. Editing is optimistic (ETag, If-Match). Each change renews all decisions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from flask import Response
from pydantic import Field, StringConstraints
from sqlalchemy.engine import Connection

from scanner.model.decision import Verdict
from scanner.policy.rules import Policy, PolicyError, parse_policy
from scanner.services import policies as use_cases
from scanner.services import simulation, trust_roots
from scanner.store import policies
from web.api.base import (
    PREFIX,
    Body,
    DigestText,
    IfMatch,
    Model,
    Name,
    Whole,
    answer,
    blueprint,
    edited_version,
    etag,
    listed,
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


def _shown(policy: policies.PolicyView, status: int = 200) -> Response:
    return answer(show(policy), status, {"ETag": etag(policy.version)})


@api.get("/policies", responses={"200": PolicyList})
@permission("read")
def index() -> Response:
    """List policies in their newest versions"""
    with resources().database.read() as session:
        return answer(PolicyList(items=[show(policy) for policy in policies.list_(session, principal().projects)]))


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
        return _shown(policies.get(session, path.name, projects=principal().projects))


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
        return _shown(policies.get(session, path.name, path.version, principal().projects))


@api.put("/policies/<name>", responses={"200": PolicyOut, "201": PolicyOut, **problems(404, 412, 428)})
@permission("policy")
def put(path: PolicyPath, body: PolicyIn, header: IfMatch) -> Response:
    """Write a policy

    Creates a new version, active at once. `If-Match` names the edited version: 412 if it has changed in the meantime.
    """
    with resources().database.session() as session:
        current = use_cases.to_edit(session, principal(), path.name, body.project or "")
        expected = edited_version(header.if_match, current.version if current else None, "policy")
        written = use_cases.write(
            session, principal(), path.name, body.text, if_version=expected, project=body.project or ""
        )
    response = _shown(written, 201 if current is None else 200)
    if current is None:
        response.headers["Location"] = f"{PREFIX}/policies/{written.name}"
    return response


@api.put("/policies/<name>/enabled", responses={"200": PolicyOut, **problems(404)})
@permission("policy")
def enable(path: PolicyPath, body: EnabledIn) -> Response:
    """Enable or disable a policy"""
    with resources().database.session() as session:
        return _shown(use_cases.set_enabled(session, principal(), path.name, body.enabled))


@api.post("/policies/<name>/simulate", responses={"200": SimulationOut, **problems(404)})
@permission("read")
def simulate(path: PolicyPath, body: SimulationIn) -> Response:
    """Simulate a policy

    Returns which of the last scanned images the document would newly deny or release. Each answer takes a few seconds
    at most; continue with `next_cursor`.
    """
    with resources().database.read() as session:
        new = _tried(session, path.name, body)
        result = simulation.simulate(session, new, principal().projects, body.limit, cursor=body.cursor)
    return answer(SimulationOut(**_simulated(result, _flip)))


@api.post("/policies/<name>/simulate/workloads", responses={"200": WorkloadSimulationOut, **problems(404)})
@permission("read")
def simulate_workloads(path: PolicyPath, body: SimulationIn) -> Response:
    """Try a policy on what runs

    Running workloads that would newly be denied or allowed if the document were the current policy, worst first. The
    verdict is the worse of how a workload is run and of its image.
    """
    with resources().database.read() as session:
        new = _tried(session, path.name, body)
        result = simulation.simulate_workloads(session, new, principal().projects, body.limit, cursor=body.cursor)
    return answer(WorkloadSimulationOut(**_simulated(result, _workload_flip)))


def _simulated(result: simulation.Simulation[simulation.F], shown: Callable[[simulation.F], Model]) -> dict[str, Any]:
    """The members that simulations on images and on workloads share."""
    return {
        "newly_denied": listed(result.newly_denied, shown),
        "newly_released": listed(result.newly_released, shown),
        "unchanged": result.unchanged,
        "examined": result.examined,
        "truncated": result.truncated,
        "next_cursor": result.next_cursor,
    }


def _tried(session: Connection, name: str, body: SimulationIn) -> Policy:
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
