"""The audit log: who did what, when, from where."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

from flask import Response, stream_with_context
from pydantic import Field, StringConstraints

from scanner.store import audit
from web.api.base import Model, Moment, PageQuery, Text, answer, blueprint, problems
from web.auth import everywhere, permission
from web.resources import resources

api = blueprint("audit_log", "Audit log", "Who did what. Entries are only added.")


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


class EntryFilter(Model):
    actor: Annotated[Text, Field(max_length=200)] = Field(
        "", description="Actor: a user's name, `token NAME`, `command line`."
    )
    action: Annotated[str, StringConstraints(pattern=r"^([a-z_-]{1,32}(\.[a-z_-]{1,32}){0,3})?$")] = Field(
        "", description="Action, or its prefix: `policy`, `session.begin`."
    )
    object: Annotated[Text, Field(max_length=400)] = Field("", description="Object of the action.")
    since: Moment | None = None
    until: Moment | None = Field(None, description="End of the period, exclusive.")

    def chosen(self) -> audit.Filter:
        return audit.Filter(self.actor, self.action, self.object, self.since, self.until)


class EntryQuery(PageQuery, EntryFilter):
    pass


@api.get("/audit-log", responses={"200": EntryPage, **problems(404)})
@permission("audit")
def index(query: EntryQuery) -> Response:
    """List entries, newest first"""
    everywhere()
    with resources().database.read() as session:
        page = audit.list_entries(session, query.chosen(), cursor=query.cursor, limit=query.limit)
    items = [
        EntryOut(
            id=e.id, at=e.at, actor=e.actor, action=e.action, object=e.object, address=e.address, detail=dict(e.detail)
        )
        for e in page.items
    ]
    return answer(EntryPage(items=items, next_cursor=page.next_cursor))


@api.get(
    "/audit-log/export",
    responses={
        "200": {"description": "JSON lines, oldest first", "content": {"application/x-ndjson": {"schema": {}}}},
    },
)
@permission("audit")
def export(query: EntryFilter) -> Response:
    """Export entries as JSON lines, oldest first

    They include the hash chain, so it can be verified elsewhere.
    """
    everywhere()
    headers = {"Content-Disposition": 'attachment; filename="audit-log.jsonl"'}
    return Response(stream_with_context(lines(query.chosen())), mimetype="application/x-ndjson", headers=headers)


def lines(chosen: audit.Filter) -> Iterator[bytes]:
    """Yield the entries as JSON lines, read from the database while they are sent."""
    with resources().database.read() as session:
        yield from audit.lines(session, chosen)
