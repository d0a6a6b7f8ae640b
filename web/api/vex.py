"""VEX documents: statements by suppliers or by us about vulnerabilities. Findings that they cover do not count in
decisions.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from flask import Response
from pydantic import Field

from scanner.errors import UsageError
from scanner.services import vex as use_cases
from scanner.store import vex
from web.api.base import PREFIX, Body, DigestText, Model, Name, PageQuery, answer, blueprint, problems
from web.auth import permission, principal
from web.resources import resources

api = blueprint("vex", "VEX", "Statements that a product is or is not affected.")


class VexIn(Body):
    document: dict[str, Any] = Field(description="An OpenVEX 0.2 document.")
    project: Name | None = Field(None, description="The project to whose images it applies. Default: all projects.")


class VexOut(Model):
    id: UUID
    project: str | None
    name: str
    author: str
    version: str
    digest: DigestText
    statements: int
    imported_by: str
    imported_at: datetime


class VexPage(Model):
    items: list[VexOut]
    next_cursor: str | None


class VexPath(Model):
    document_id: UUID


def show(found: vex.DocumentView) -> VexOut:
    return VexOut(
        id=UUID(found.id),
        project=found.project or None,
        name=found.name,
        author=found.author,
        version=found.version,
        digest=found.digest,
        statements=found.statements,
        imported_by=found.imported_by,
        imported_at=found.imported_at,
    )


@api.get("/vex", responses={"200": VexPage, **problems(404)})
@permission("read")
def index(query: PageQuery) -> Response:
    """List imported documents, newest first"""
    with resources().database.read() as session:
        page = vex.list_documents(session, principal().projects, cursor=query.cursor, limit=query.limit)
    return answer(VexPage(items=[show(item) for item in page.items], next_cursor=page.next_cursor))


@api.post("/vex", responses={"201": VexOut, **problems(404, 409)})
@permission("triage")
def create(body: VexIn) -> Response:
    """Import an OpenVEX document

    It is imported completely or refused. Decisions are then renewed; vulnerabilities covered by a statement no
    longer deny.
    """
    try:
        data = orjson.dumps(body.document, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:  # lone surrogates, numbers beyond 64 bits, too deep nesting
        raise UsageError(f"document: cannot be stored as JSON: {error}", reason="bad_vex") from None
    with resources().database.session() as session:
        found = use_cases.add(session, principal(), data, body.project)
    return answer(show(found), 201, {"Location": f"{PREFIX}/vex/{found.id}"})


@api.get("/vex/<uuid:document_id>", responses={"200": VexOut, **problems(404)})
@permission("read")
def get(path: VexPath) -> Response:
    """Read the metadata of a document"""
    with resources().database.read() as session:
        return answer(show(vex.get(session, str(path.document_id), principal().projects)))


@api.delete("/vex/<uuid:document_id>", responses={"204": None, **problems(404)})
@permission("triage")
def remove(path: VexPath) -> Response:
    """Remove a document

    Its statements no longer apply.
    """
    with resources().database.session() as session:
        use_cases.remove(session, principal(), str(path.document_id))
    return Response(status=204)
