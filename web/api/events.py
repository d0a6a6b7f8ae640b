"""What registries told us: deliveries of webhooks, and the scans they led to."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from flask import Response

from scanner.store import deliveries
from web.api.base import Model, PageQuery, answer, blueprint, problems
from web.auth import permission, principal
from web.services import services

api = blueprint("events", "Events", "What registries told us.")


class DeliveryOut(Model):
    id: UUID
    webhook: str
    format: str
    registry: str
    events: int
    outcome: str
    received_at: datetime
    scans: list[UUID]


class DeliveryPage(Model):
    items: list[DeliveryOut]
    next_cursor: str | None


@api.get("/events", responses={"200": DeliveryPage, **problems(404)})
@permission("read")
def index(query: PageQuery) -> Response:
    """List deliveries of webhooks, newest first"""
    with services().database.read() as session:
        page = deliveries.list_(session, principal().projects, cursor=query.cursor, limit=query.limit)
    items = [
        DeliveryOut(
            id=UUID(d.id),
            webhook=d.webhook,
            format=d.format,
            registry=d.host,
            events=d.events,
            outcome=d.outcome,
            received_at=d.received_at,
            scans=[UUID(scan) for scan in d.scans],
        )
        for d in page.items
    ]
    return answer(DeliveryPage(items=items, next_cursor=page.next_cursor))
