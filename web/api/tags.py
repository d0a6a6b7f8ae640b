"""Tags: the digests they pointed to, and since when."""

from __future__ import annotations

from datetime import datetime

from flask import Response
from pydantic import Field

from scanner.store import tags
from web.api.base import DigestText, Model, PageQuery, Text, answer, blueprint, problems
from web.auth import permission, principal
from web.resources import resources

api = blueprint("tags", "Tags", "Digests of tags, and since when.")


class TagOut(Model):
    repository: str
    tag: str
    digest: DigestText
    seen_at: datetime
    source: str = Field(description="What asked for the scan that saw it: a webhook's format, api, page, schedule.")
    previous: DigestText | None = Field(description="What the tag named before; null: it was seen for the first time.")
    rollback: bool = Field(description="The tag had named this digest earlier.")


class TagPage(Model):
    items: list[TagOut]
    next_cursor: str | None


class TagQuery(PageQuery):
    repository: Text | None = None
    tag: Text | None = None
    moved: bool = Field(False, description="Only where a tag came to name something else.")


@api.get("/tags", responses={"200": TagPage, **problems(404)})
@permission("read")
def index(query: TagQuery) -> Response:
    """List digests of tags, newest change first

    A moved tag has several items. The first is its digest at the last scan.
    """
    with resources().database.read() as session:
        page = tags.history(
            session,
            principal().projects,
            repository=query.repository,
            tag=query.tag,
            moved=query.moved,
            cursor=query.cursor,
            limit=query.limit,
        )
    items = [
        TagOut(
            repository=m.repository,
            tag=m.tag,
            digest=m.digest,
            seen_at=m.seen_at,
            source=m.source,
            previous=m.previous or None,
            rollback=m.rollback,
        )
        for m in page.items
    ]
    return answer(TagPage(items=items, next_cursor=page.next_cursor))
