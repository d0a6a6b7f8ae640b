"""The audit log: who did what, when, from where."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Response

from scanner.store import audit
from web.api.base import Model, PageQuery, answer, blueprint, problems
from web.auth import everywhere, permission
from web.services import services

api = blueprint("audit_log", "Audit log", "Who did what. Only ever added to.")


class EntryOut(Model):
    id: int
    at: datetime
    actor: str
    action: str
    object: str
    address: str
    detail: dict[str, Any]


class EntryPage(Model):
    items: list[EntryOut]
    next_cursor: str | None


@api.get("/audit-log", responses={"200": EntryPage, **problems(404)})
@permission("audit")
def index(query: PageQuery) -> Response:
    """List entries, newest first"""
    everywhere()
    with services().database.read() as session:
        page = audit.list_(session, cursor=query.cursor, limit=query.limit)
    items = [
        EntryOut(
            id=e.id, at=e.at, actor=e.actor, action=e.action, object=e.object, address=e.address, detail=dict(e.detail)
        )
        for e in page.items
    ]
    return answer(EntryPage(items=items, next_cursor=page.next_cursor))
