"""Exemptions: somebody asks that a violation be accepted, another person decides, and it ends by itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

from flask import Response
from pydantic import Field, StringConstraints

from scanner.services import exemptions as use_cases
from scanner.store import exemptions
from scanner.store.session import moment
from web.api.base import PREFIX, Body, Model, Moment, Name, PageQuery, Text, answer, blueprint, problems
from web.auth import permission, principal
from web.resources import resources

api = blueprint("exemptions", "Exemptions", "Violations that were accepted: by whom, why, until when.")

State = Literal["requested", "approved", "rejected", "revoked", "lapsed", "expired"]
Pattern = Annotated[
    str,
    StringConstraints(min_length=1, max_length=use_cases.IMAGES_LENGTH, pattern=use_cases.IMAGES),
    Field(description="A glob over host/repository (`*` within a part, `**` any number of parts), or a digest."),
]
Words = Annotated[
    str, StringConstraints(max_length=use_cases.NOTE_LENGTH, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$")
]


class ExemptionIn(Body):
    project: Name = "default"
    images: list[Pattern] = Field(
        min_length=1, max_length=use_cases.IMAGES_MOST, examples=[["registry.example.com/shop/cart"]]
    )
    rule: Annotated[str, StringConstraints(pattern=use_cases.RULE)] = Field(
        "", description="The policy rule; empty: any."
    )
    subject: Annotated[Text, Field(max_length=use_cases.SUBJECT_LENGTH)] = Field(
        "", description="A vulnerability's id or a check's; empty: any.", examples=["CVE-2026-1234"]
    )
    purl: Annotated[Text, Field(max_length=use_cases.PURL_LENGTH)] = Field(
        "", description="Only this package; empty: any."
    )
    justification: Annotated[Words, Field(min_length=use_cases.JUSTIFICATION_SHORTEST)] = Field(
        description="Why this may be accepted, for others."
    )
    expires_at: Moment = Field(description="At most a year from now.")
    until_fixed: bool | None = Field(
        None, description="End it when there is a fix. When absent: true, unless there is one already."
    )
    until_exploited: bool = Field(True, description="End it when the vulnerability is known to be exploited.")


class NoteIn(Body):
    note: Words = Field("", description="Note to the requester; it is stored.")


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
    with resources().database.read() as session:
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


@api.post("/exemptions", responses={"201": ExemptionOut, **problems(404, 409)})
@permission("propose")
def create(body: ExemptionIn) -> Response:
    """Ask for an exemption

    It changes nothing until another person approves it, and nothing after `expires_at`. One that would lapse at
    once, because the vulnerability is exploited or fixed already, is refused with `would_lapse`: say so with
    `until_exploited` or `until_fixed` false.
    """
    with resources().database.session() as session:
        found = use_cases.request(session, principal(), use_cases.NewExemption(**dict(body)))
    return answer(show(found), 201, {"Location": f"{PREFIX}/exemptions/{found.id}"})


@api.get("/exemptions/<uuid:exemption_id>", responses={"200": ExemptionOut, **problems(404)})
@permission("read")
def get(path: ExemptionPath) -> Response:
    """Read an exemption"""
    with resources().database.read() as session:
        return answer(show(exemptions.get(session, str(path.exemption_id), principal().projects)))


@api.post("/exemptions/<uuid:exemption_id>/approve", responses={"200": ExemptionOut, **problems(404, 409)})
@permission("triage")
def approve(path: ExemptionPath, body: NoteIn) -> Response:
    """Approve an exemption

    By another person than the one who asked, signed in or with a token of their own. Decisions about the images are
    made anew.
    """
    with resources().database.session() as session:
        return answer(show(use_cases.approve(session, principal(), str(path.exemption_id), body.note)))


@api.post("/exemptions/<uuid:exemption_id>/reject", responses={"200": ExemptionOut, **problems(404, 409)})
@permission("triage")
def reject(path: ExemptionPath, body: NoteIn) -> Response:
    """Reject an exemption"""
    with resources().database.session() as session:
        return answer(show(use_cases.reject(session, principal(), str(path.exemption_id), body.note)))


@api.post("/exemptions/<uuid:exemption_id>/revoke", responses={"200": ExemptionOut, **problems(404, 409)})
@permission("propose")
def revoke(path: ExemptionPath, body: NoteIn) -> Response:
    """End an exemption

    Whoever asked for it may, and whoever may approve. Decisions about the images are made anew.
    """
    with resources().database.session() as session:
        return answer(show(use_cases.revoke(session, principal(), str(path.exemption_id), body.note)))
