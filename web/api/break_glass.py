"""Break glass: named persons let a digest through in an emergency."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from flask import Response
from pydantic import Field

from scanner.services import break_glass as use_cases
from scanner.store import break_glass
from web.api.base import PREFIX, Body, DigestText, Model, Text, answer, blueprint, problems
from web.auth import everywhere, permission, principal
from web.resources import resources

api = blueprint("break_glass", "Break glass", "Named persons let a digest through in an emergency.")


class BreakGlassIn(Body):
    digest: DigestText
    reason: Annotated[Text, Field(min_length=use_cases.REASON_SHORTEST, max_length=use_cases.REASON_LONGEST)] = Field(
        description="Why; shown with every answer.", examples=["the fix is being built, and the shop is down"]
    )
    hours: float = Field(1, gt=0, le=use_cases.MOST_HOURS, description="For how long.")


class BreakGlassOut(Model):
    """``active``: it lets the digest through now."""

    id: UUID
    digest: str
    reason: str
    opened_by: str
    opened_at: datetime
    until: datetime
    ended_by: str
    ended_at: datetime | None
    active: bool


class BreakGlassList(Model):
    items: list[BreakGlassOut]


class BreakGlassPath(Model):
    break_glass_id: UUID


def _show(found: break_glass.BreakGlassView) -> BreakGlassOut:
    return BreakGlassOut.model_validate(found, from_attributes=True)


@api.get("/break-glass", responses={"200": BreakGlassList})
@permission("gate")
def index() -> Response:
    """List the newest, first"""
    everywhere()
    with resources().database.read() as session:
        return answer(BreakGlassList(items=[_show(each) for each in break_glass.list_overrides(session)]))


@api.post("/break-glass", responses={"201": BreakGlassOut})
@permission("gate")
def create(body: BreakGlassIn) -> Response:
    """Let a digest through

    For the users named in `DOCKWARDEN_BREAK_GLASS`. Every answer of the gate and of the doors then says `warn` instead
    of `deny`, with who let it through and why. It is written to the audit log.
    """
    everywhere()
    settings = resources().settings
    with resources().database.session() as session:
        found = use_cases.begin(session, settings, principal(), body.digest, body.reason, body.hours)
    return answer(_show(found), 201, {"Location": f"{PREFIX}/break-glass"})


@api.post("/break-glass/<uuid:break_glass_id>/end", responses={"200": BreakGlassOut, **problems(404)})
@permission("gate")
def end(path: BreakGlassPath) -> Response:
    """End one before its time"""
    everywhere()
    with resources().database.session() as session:
        return answer(_show(use_cases.end(session, resources().settings, principal(), str(path.break_glass_id))))
