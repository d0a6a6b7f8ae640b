"""Exemptions: a user requests that a violation is accepted, another user decides, and the exemption expires."""

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

api = blueprint("exemptions", "Exemptions", "Accepted violations, with owner, reason and expiry.")

State = Literal["requested", "approved", "rejected", "revoked", "lapsed", "expired"]
Pattern = Annotated[
    str,
    StringConstraints(min_length=1, max_length=use_cases.IMAGES_LENGTH, pattern=use_cases.IMAGES),
    Field(
        description="A pattern over host/repository (`*` matches within a segment, `**` any number of "
        "segments), or a digest."
    ),
]
LongText = Annotated[
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
        "", description="Id of a vulnerability or check; empty: any.", examples=["CVE-2026-1234"]
    )
    purl: Annotated[Text, Field(max_length=use_cases.PURL_LENGTH)] = Field(
        "", description="Only this package; empty: any."
    )
    justification: Annotated[LongText, Field(min_length=use_cases.JUSTIFICATION_SHORTEST)] = Field(
        description="Reason for the exemption, for reviewers."
    )
    expires_at: Moment = Field(description="At most a year from now.")
    until_fixed: bool | None = Field(
        None, description="End it when there is a fix. Default: true, unless a fix exists already."
    )
    until_exploited: bool = Field(True, description="End it when the vulnerability becomes known to be exploited.")


class NoteIn(Body):
    note: LongText = Field("", description="Note to the requester; it is stored.")


class ExemptionOut(Model):
    """``state``: the current state. Only ``approved`` exemptions affect decisions."""

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
    state: list[State] = Field([], description="States to include.")
    project: Name | None = None
    subject: Annotated[Text, Field(max_length=200)] = ""
    ends_within_days: int | None = Field(
        None, ge=0, le=400, description="Only exemptions that end within this number of days."
    )


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
    """List exemptions, newest request first"""
    with resources().database.read() as session:
        within = query.ends_within_days
        page = exemptions.list_exemptions(
            session,
            principal().projects,
            states=query.state,
            project=query.project,
            subject=query.subject,
            # By the database's clock, which also ends exemptions.
            ends_before=None if within is None else moment(session) + timedelta(days=within),
            cursor=query.cursor,
            limit=query.limit,
        )
    return answer(ExemptionPage(items=[show(item) for item in page.items], next_cursor=page.next_cursor))


@api.post("/exemptions", responses={"201": ExemptionOut, **problems(404, 409)})
@permission("propose")
def create(body: ExemptionIn) -> Response:
    """Request an exemption

    It has no effect before another user approves it, nor after `expires_at`. A request that would end at once, because
    the vulnerability is already exploited or fixed, is refused with `would_lapse`; set `until_exploited` or
    `until_fixed` to false to request it anyway.
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

    The approver must be another user than the requester, signed in or with a token of their own. Decisions about the
    images are renewed.
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
    """Revoke an exemption

    Allowed for the requester and for users who may approve. Decisions about the images are renewed.
    """
    with resources().database.session() as session:
        return answer(show(use_cases.revoke(session, principal(), str(path.exemption_id), body.note)))
