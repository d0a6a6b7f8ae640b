"""Bases: what the tags of base images name now, and which images to rebuild."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from flask import Response
from pydantic import Field

from scanner.store import base_watch
from web.api.base import DigestText, Model, PageQuery, answer, blueprint, problems
from web.auth import permission, principal
from web.resources import resources

api = blueprint("bases", "Bases", "Base images: their newest digests, and the images to rebuild.")

_LISTED = 100


class BuiltOnOut(Model):
    repository: str
    tag: str
    digest: DigestText
    base: DigestText = Field(description="The base that it was built on: an older image of the tag.")


class BaseChangesOut(Model):
    """Distinct findings (package and vulnerability) by severity, from the scans of the bases."""

    gone: dict[str, int] = Field(description="Findings of the images and their former base that the newest has not.")
    come: dict[str, int] = Field(description="Findings that only the newest base has.")
    problem: str = Field(description="Why this is not known, or not completely; empty: it is.")


class WatchedBaseOut(Model):
    repository: str
    tag: str
    project: str
    state: Literal["newer", "current", "unknown"] = Field(
        description="newer: images were built on an older image of the tag; unknown: not known of all of them."
    )
    digest: DigestText | None = Field(description="What the tag names; null: unknown.")
    seen_at: datetime | None = Field(description="When this digest was seen first.")
    asked_at: datetime | None = Field(description="When the registry answered last.")
    reason: str = Field(description="Why the registry could not be asked; empty: it could.")
    message: str
    images: int = Field(description="Current images that are built on the tag.")
    rebuild_count: int
    rebuild: list[BuiltOnOut] = Field(description="The first 100 images that were built on an older one.")
    changes: BaseChangesOut | None = Field(
        description="What a rebuild changes; null: there is nothing to rebuild, or the newest base is not scanned yet."
    )


class BasePage(Model):
    items: list[WatchedBaseOut]
    next_cursor: str | None


@api.get("/bases", responses={"200": BasePage, **problems(404)})
@permission("read")
def index(query: PageQuery) -> Response:
    """List base images, and which images to rebuild on their newest digest"""
    with resources().database.read() as session:
        page = base_watch.list_watched(session, principal().projects, cursor=query.cursor, limit=query.limit)
    return answer(BasePage(items=[_show(item) for item in page.items], next_cursor=page.next_cursor))


def _show(item: base_watch.WatchedBase) -> WatchedBaseOut:
    watch, changes = item.watch, item.watch.comparison if item.rebuild else None
    return WatchedBaseOut(
        repository=watch.name.repository,
        tag=watch.name.tag,
        project=watch.name.project,
        state=item.state,
        digest=watch.digest or None,
        seen_at=watch.seen_at,
        asked_at=watch.asked_at,
        reason=watch.reason,
        message=watch.message,
        images=len(item.images),
        rebuild_count=len(item.rebuild),
        rebuild=[
            BuiltOnOut(repository=one.repository, tag=one.tag, digest=one.digest, base=one.base)
            for one in item.rebuild[:_LISTED]
        ],
        changes=BaseChangesOut(gone=dict(changes.gone), come=dict(changes.come), problem=changes.problem)
        if changes
        else None,
    )
