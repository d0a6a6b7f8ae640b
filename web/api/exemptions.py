"""Exemptions: somebody asks that a violation be accepted, another person decides, and it ends by itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from flask import Response
from pydantic import Field, StringConstraints
from sqlalchemy.engine import Connection

from scanner.errors import RefusedError, UsageError
from scanner.model.actor import Person
from scanner.model.audit import Action
from scanner.store import audit, exemptions, gate, listings
from scanner.store.session import moment
from web.api.base import PREFIX, Body, Model, Moment, Name, PageQuery, Text, answer, blueprint, problems
from web.auth import permission, principal, project_named
from web.services import services

api = blueprint("exemptions", "Exemptions", "Violations that were accepted: by whom, why, until when.")

State = Literal["requested", "approved", "rejected", "revoked", "lapsed", "expired"]
Pattern = Annotated[
    str,
    StringConstraints(min_length=1, max_length=300, pattern=r"^[a-z0-9*][A-Za-z0-9._:/*@-]*$"),
    Field(description="A glob over host/repository (`*` within a part, `**` any number of parts), or a digest."),
]
Words = Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$")]


class ExemptionIn(Body):
    project: Name = "default"
    images: list[Pattern] = Field(min_length=1, max_length=50, examples=[["registry.example.com/shop/cart"]])
    rule: Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9._-]{0,63})?$")] = Field(
        "", description="The policy rule; empty: any."
    )
    subject: Annotated[Text, Field(max_length=200)] = Field(
        "", description="A vulnerability's id or a check's; empty: any.", examples=["CVE-2026-1234"]
    )
    purl: Annotated[Text, Field(max_length=1000)] = Field("", description="Only this package; empty: any.")
    justification: Annotated[Words, Field(min_length=10)] = Field(description="Why this may be accepted, for others.")
    expires_at: Moment = Field(description="At most a year from now.")
    until_fixed: bool | None = Field(
        None, description="End it when there is a fix. When absent: true, unless there is one already."
    )
    until_exploited: bool = Field(True, description="End it when the vulnerability is known to be exploited.")


class NoteIn(Body):
    note: Words = Field("", description="Said to whoever asked, and kept.")


class ExemptionOut(Model):
    """``state`` is what it is now. Only ``approved`` ones change a decision."""

    id: UUID
    project: str
    images: list[str]
    rule: str
    subject: str
    purl: str
    justification: str
    state: State
    owner: str
    requested_at: datetime
    expires_at: datetime
    decided_by: str
    decided_at: datetime | None
    ended_by: str
    ended_at: datetime | None
    note: str
    until_fixed: bool
    until_exploited: bool


class ExemptionPage(Model):
    items: list[ExemptionOut]
    next_cursor: str | None


class ExemptionQuery(PageQuery):
    state: list[State] = Field([], description="Any of these.")
    project: Name | None = None
    subject: Annotated[Text, Field(max_length=200)] = ""
    ends_within_days: int | None = Field(None, ge=0, le=400, description="Those that end by then.")


class ExemptionPath(Model):
    exemption_id: UUID


def show(found: exemptions.ExemptionView) -> ExemptionOut:
    return ExemptionOut(
        id=UUID(found.id),
        project=found.project,
        images=list(found.images),
        rule=found.rule,
        subject=found.subject,
        purl=found.purl,
        justification=found.justification,
        state=found.state,
        owner=found.owner,
        requested_at=found.requested_at,
        expires_at=found.expires_at,
        decided_by=found.decided_by,
        decided_at=found.decided_at,
        ended_by=found.ended_by,
        ended_at=found.ended_at,
        note=found.note,
        until_fixed=found.until_fixed,
        until_exploited=found.until_exploited,
    )


@api.get("/exemptions", responses={"200": ExemptionPage, **problems(404)})
@permission("read")
def index(query: ExemptionQuery) -> Response:
    """List exemptions, the newest request first"""
    with services().database.read() as session:
        within = query.ends_within_days
        page = exemptions.list_(
            session,
            principal().projects,
            states=query.state,
            project=query.project,
            subject=query.subject,
            ends_before=None if within is None else moment(session) + timedelta(days=within),
            cursor=query.cursor,
            limit=query.limit,
        )
    return answer(ExemptionPage(items=[show(item) for item in page.items], next_cursor=page.next_cursor))


@api.post("/exemptions", responses={"201": ExemptionOut, **problems(404)})
@permission("propose")
def create(body: ExemptionIn) -> Response:
    """Ask for an exemption

    It changes nothing until another person approves it, and nothing after `expires_at`.
    """
    project = project_named(body.project)
    with services().database.session() as session:
        found = propose(session, project, body)
    return answer(show(found), 201, {"Location": f"{PREFIX}/exemptions/{found.id}"})


def propose(session: Connection, project: str, body: ExemptionIn) -> exemptions.ExemptionView:
    """Record the request, and who made it."""
    if body.rule == body.subject == "":
        raise UsageError(
            "name a rule, a subject, or both", reason="invalid", hint="an exemption never covers everything"
        )
    until_fixed = body.until_fixed
    if until_fixed is None:
        until_fixed = not listings.is_fixable(session, project, body.subject, body.purl)
    found = exemptions.request(
        session,
        project,
        principal().person,
        images=body.images,
        justification=body.justification,
        expires_at=body.expires_at,
        rule=body.rule,
        subject=body.subject,
        purl=body.purl,
        until_fixed=until_fixed,
        until_exploited=body.until_exploited,
    )
    note(session, Action.EXEMPTION_REQUEST, found)
    return found


@api.get("/exemptions/<uuid:exemption_id>", responses={"200": ExemptionOut, **problems(404)})
@permission("read")
def get(path: ExemptionPath) -> Response:
    """Read an exemption"""
    with services().database.read() as session:
        return answer(show(exemptions.get(session, str(path.exemption_id), principal().projects)))


@api.post("/exemptions/<uuid:exemption_id>/approve", responses={"200": ExemptionOut, **problems(404, 409)})
@permission("triage")
def approve(path: ExemptionPath, body: NoteIn) -> Response:
    """Approve an exemption

    By another person than the one who asked, signed in or with a token of their own. Decisions about the images are made anew.
    """
    with services().database.session() as session:
        return answer(show(accept(session, str(path.exemption_id), body.note)))


def accept(session: Connection, identifier: str, said: str) -> exemptions.ExemptionView:
    """Approve as whoever asks, and let the decisions it concerns be made anew."""
    exemptions.get(session, identifier, principal().projects)
    found = exemptions.approve(session, identifier, second_person(), note=said)
    gate.invalidate_for(session, found.project, found.images)
    note(session, Action.EXEMPTION_APPROVE, found)
    return found


@api.post("/exemptions/<uuid:exemption_id>/reject", responses={"200": ExemptionOut, **problems(404, 409)})
@permission("triage")
def reject(path: ExemptionPath, body: NoteIn) -> Response:
    """Reject an exemption"""
    with services().database.session() as session:
        return answer(show(refuse(session, str(path.exemption_id), body.note)))


def refuse(session: Connection, identifier: str, said: str) -> exemptions.ExemptionView:
    """Reject as whoever asks."""
    exemptions.get(session, identifier, principal().projects)
    found = exemptions.reject(session, identifier, second_person(), note=said)
    note(session, Action.EXEMPTION_REJECT, found)
    return found


@api.post("/exemptions/<uuid:exemption_id>/revoke", responses={"200": ExemptionOut, **problems(404, 409)})
@permission("propose")
def revoke(path: ExemptionPath, body: NoteIn) -> Response:
    """End an exemption

    Whoever asked for it may, and whoever may approve. Decisions about the images are made anew.
    """
    with services().database.session() as session:
        return answer(show(end(session, str(path.exemption_id), body.note)))


def end(session: Connection, identifier: str, said: str) -> exemptions.ExemptionView:
    """Revoke as whoever asks."""
    found = exemptions.get(session, identifier, principal().projects)
    if found.owner_id != principal().person.id and not principal().may("triage"):
        raise RefusedError("only its owner, or who may approve, ends an exemption", reason="not_allowed")
    found = exemptions.revoke(session, identifier, principal().person.name, note=said)
    gate.invalidate_for(session, found.project, found.images)
    note(session, Action.EXEMPTION_REVOKE, found)
    return found


def second_person() -> Person:
    """Whoever asks, if it is a person: a token that belongs to nobody is nobody's pair of eyes."""
    if not principal().user_id:
        raise RefusedError(
            "this takes a person", reason="needs_person", hint="sign in as a user, or with a token that a user created"
        )
    return principal().person


def note(session: Connection, action: Action, found: exemptions.ExemptionView) -> None:
    """The audit log's entry: what it is about, and what it is now."""
    detail = {
        "project": found.project, "images": list(found.images), "rule": found.rule, "subject": found.subject, "purl": found.purl,
        "state": found.state, "expires_at": found.expires_at.isoformat(), "note": found.note,
    }  # fmt: skip
    audit.record(session, principal(), action, found.id, detail=detail)
