"""Policies: versioned documents. Editing is optimistic (ETag, If-Match); each change makes every decision be made anew."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from flask import Response
from pydantic import Field, StringConstraints
from sqlalchemy.engine import Connection

from scanner.errors import NotFoundError, UsageError
from scanner.model.audit import Action
from scanner.model.decision import Verdict
from scanner.policy.rules import Known, Policy, PolicyError, parse_policy
from scanner.services import trust_roots
from scanner.store import audit, gate, policies
from web import simulation
from web.api.base import PREFIX, Body, DigestText, Model, Name, Whole, answer, blueprint, etag, listed, problems
from web.auth import everywhere, permission, principal, project_named
from web.services import services

api = blueprint("policies", "Policies", "What may be shipped, as documents with versions.")

PolicyName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
PolicyText = Annotated[
    str,
    Field(
        max_length=256 << 10,
        description="The document: YAML or JSON.",
        examples=["apiVersion: dockwarden/v1\nkind: Policy\n…"],
    ),
]


class PolicyIn(Body):
    text: PolicyText
    project: Name | None = Field(
        None, description="Of a new policy: whose images it judges, for good; everybody's when absent."
    )


class PolicyOut(Model):
    name: str
    version: int
    text: str
    digest: DigestText
    author: str
    created_at: datetime
    enabled: bool
    project: str | None = Field(description="Whose images it judges; null: everybody's.")


class PolicyList(Model):
    items: list[PolicyOut]


class EnabledIn(Body):
    enabled: bool


class PolicyPath(Model):
    name: PolicyName


class VersionPath(PolicyPath):
    version: int = Field(ge=1, le=2**31 - 1)


class IfMatch(Model):
    model_config = Model.model_config | {"extra": "ignore"}

    if_match: str | None = Field(
        None,
        alias="If-Match",
        max_length=200,
        description="The ETag of the version that was edited. Required once the policy exists.",
    )


class PolicyProblem(Model):
    """``line`` and ``column`` count from 1; 0: the document says nothing of it."""

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
        None, description="The document to try; the stored one, if it is not in force, when absent."
    )
    limit: Whole = Field(100, ge=1, le=simulation.MOST, description="How many of the images scanned last to try it on.")
    cursor: str | None = Field(None, max_length=200, description="`next_cursor` of the answer before.")


class FlipOut(Model):
    image: str
    digest: DigestText
    project: str
    environment: str
    before: Verdict
    after: Verdict
    rules: list[str] = Field(
        description="The rules that deny it: with the document, or until now where it is released."
    )
    reasons: list[str]


class SimulationOut(Model):
    """Evidence is not gathered again: this is what the policy would say of what is known."""

    newly_denied: list[FlipOut]
    newly_released: list[FlipOut]
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
    """List policies, each in its newest version"""
    with services().database.read() as session:
        return answer(PolicyList(items=[show(policy) for policy in policies.list_(session, principal().projects)]))


@api.post("/policies/<name>/validate", responses={"200": ValidationOut})
@permission("read")
def validate(path: PolicyPath, body: PolicyIn) -> Response:
    """Check a document

    Everything that is wrong with it, with line and column. Nothing is stored, and there need be no such policy yet.
    """
    try:
        parsed = parse_policy(body.text, path.name, known=known_now())
    except PolicyError as error:
        found = [PolicyProblem(line=p.line, column=p.column, field=p.field, message=p.message) for p in error.problems]
        return answer(ValidationOut(valid=False, name=None, problems=found))
    return answer(ValidationOut(valid=True, name=parsed.name, problems=[]))


@api.get("/policies/<name>", responses={"200": PolicyOut, **problems(404)})
@permission("read")
def get(path: PolicyPath) -> Response:
    """Read a policy in its newest version"""
    with services().database.read() as session:
        return _shown(policies.get(session, path.name, projects=principal().projects))


@api.get("/policies/<name>/versions", responses={"200": PolicyList, **problems(404)})
@permission("read")
def versions(path: PolicyPath) -> Response:
    """Every version, newest first"""
    with services().database.read() as session:
        return answer(
            PolicyList(items=[show(policy) for policy in policies.versions(session, path.name, principal().projects)])
        )


@api.get("/policies/<name>/versions/<int:version>", responses={"200": PolicyOut, **problems(404)})
@permission("read")
def get_version(path: VersionPath) -> Response:
    """Read one version"""
    with services().database.read() as session:
        return _shown(policies.get(session, path.name, path.version, principal().projects))


@api.put("/policies/<name>", responses={"200": PolicyOut, "201": PolicyOut, **problems(412, 428)})
@permission("policy")
def put(path: PolicyPath, body: PolicyIn, header: IfMatch) -> Response:
    """Write a policy

    A new version, in force at once. `If-Match` names the version that was edited: 412 when somebody was faster.
    """
    _parsed(body.text, path.name)
    with services().database.session() as session:
        current = newest(session, path.name)
        project = current.project if current else project_named(body.project) if body.project else ""
        _may_write(project)
        expected = edited_version(header.if_match, current.version if current else None, "policy")
        written = write(session, path.name, body.text, current, expected, project)
    response = _shown(written, 201 if current is None else 200)
    if current is None:
        response.headers["Location"] = f"{PREFIX}/policies/{written.name}"
    return response


def write(
    session: Connection, name: str, text: str, current: policies.PolicyView | None, expected: int | None, project: str
) -> policies.PolicyView:
    """Record a text as whoever asks; a new version lets every decision be made anew. ``current``: the newest version there is."""
    written = policies.put(session, name, text, principal().name, if_version=expected, project=project)
    if current is None or written.version != current.version:
        gate.invalidate(session)
        before = {"version": current.version, "digest": current.digest} if current else None
        detail = {"version": written.version, "digest": written.digest, "project": project, "before": before}
        audit.record(session, principal(), Action.POLICY_WRITE, written.name, detail=detail)
    return written


@api.put("/policies/<name>/enabled", responses={"200": PolicyOut, **problems(404)})
@permission("policy")
def enable(path: PolicyPath, body: EnabledIn) -> Response:
    """Put a policy in force, or out of it"""
    return _shown(set_enabled(path.name, body.enabled))


def set_enabled(name: str, enabled: bool) -> policies.PolicyView:
    """Do it as whoever asks, and let every decision be made anew."""
    with services().database.session() as session:
        before = policies.get(session, name, projects=principal().projects)
        _may_write(before.project)
        policies.enable(session, name, enabled)
        gate.invalidate(session)
        action = Action.POLICY_ENABLE if enabled else Action.POLICY_DISABLE
        detail = {"enabled": enabled, "before": {"enabled": before.enabled}}
        audit.record(session, principal(), action, name, detail=detail)
        return policies.get(session, name)


@api.post("/policies/<name>/simulate", responses={"200": SimulationOut, **problems(404)})
@permission("read")
def simulate(path: PolicyPath, body: SimulationIn) -> Response:
    """Try a policy

    On the images scanned last: which would newly be blocked, which released, if the document were in force. An answer takes at most
    some seconds; `next_cursor` says where the next goes on.
    """
    with services().database.read() as session:
        text = body.text
        if text is None:
            text = policies.get(session, path.name, projects=principal().projects).text
        new = _parsed(text, path.name)
        tried = simulation.simulate(session, new, principal().projects, body.limit, cursor=body.cursor)
    return answer(
        SimulationOut(
            newly_denied=listed(tried.newly_denied, _flip),
            newly_released=listed(tried.newly_released, _flip),
            unchanged=tried.unchanged,
            examined=tried.examined,
            truncated=tried.next_cursor is not None,
            next_cursor=tried.next_cursor,
        )
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


def _may_write(project: str) -> None:
    """A project's policy is its own people's to change; one that judges everybody, of those who see everybody."""
    if not project:
        everywhere()
    elif not principal().sees(project):
        raise NotFoundError("there is no such policy")


def known_now() -> Known:
    """What a policy may name that is written now."""
    with services().database.read() as session:
        return trust_roots.known_to_authors(session)


def _parsed(text: str, name: str) -> Policy:
    parsed = parse_policy(text, name, known=known_now())
    if parsed.name != name:
        raise UsageError(f"the document is named {parsed.name!r}, the address {name!r}", reason="invalid")
    return parsed


def newest(session: Connection, name: str) -> policies.PolicyView | None:
    """The newest version of a policy; None for one that there is not."""
    return next((policy for policy in policies.list_(session) if policy.name == name), None)


def edited_version(if_match: str | None, current: int | None, what: str) -> int | None:
    """The version that If-Match names, for the store to compare. Without one only something new may be written."""
    if current is None:
        return 0 if not if_match else -1
    if not if_match:
        raise UsageError(
            f"the {what} exists", reason="precondition_required", hint="send If-Match with the ETag you read"
        )
    if if_match.strip() == "*":
        return None
    named = if_match.strip().strip('"')
    return int(named) if named.isascii() and named.isdigit() and len(named) < 10 else -1
