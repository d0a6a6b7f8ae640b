"""Webhook deliveries, and the scans that they started."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from flask import Response
from pydantic import Field, StringConstraints

from scanner import queue
from scanner.model.scan import Lane
from scanner.services import scans as use_cases
from scanner.services import webhooks as webhook_cases
from scanner.store import deliveries
from web.api.base import Body, Model, PageQuery, answer, blueprint, problems
from web.auth import permission, principal
from web.resources import resources

api = blueprint("events", "Events", "Webhook deliveries from registries.")


class RefusedOut(Model):
    """An event that was refused: its content and the reason."""

    reason: str
    message: str
    host: str
    image: str


class DeliveryOut(Model):
    id: UUID
    webhook: str
    format: str
    registry: str
    events: int
    outcome: str
    received_at: datetime
    scans: list[UUID]
    refused: list[RefusedOut] = Field(description="The first 100 refused events; `outcome` counts all.")


class DeliveryPage(Model):
    items: list[DeliveryOut]
    next_cursor: str | None


class DeliveryPath(Model):
    delivery_id: UUID


class ReplayOut(Model):
    scans: list[UUID]


def show(delivery: deliveries.DeliveryView) -> DeliveryOut:
    return DeliveryOut(
        id=UUID(delivery.id),
        webhook=delivery.webhook,
        format=delivery.format,
        registry=delivery.host,
        events=delivery.events,
        outcome=delivery.outcome,
        received_at=delivery.received_at,
        scans=[UUID(scan) for scan in delivery.scans],
        refused=[
            RefusedOut(reason=event.reason, message=event.message, host=event.host, image=event.image)
            for event in delivery.refused
        ],
    )


@api.get("/events", responses={"200": DeliveryPage, **problems(404)})
@permission("read")
def index(query: PageQuery) -> Response:
    """List webhook deliveries, newest first"""
    with resources().database.read() as session:
        page = deliveries.list_deliveries(session, principal().projects, cursor=query.cursor, limit=query.limit)
    return answer(DeliveryPage(items=[show(d) for d in page.items], next_cursor=page.next_cursor))


@api.get("/events/<uuid:delivery_id>", responses={"200": DeliveryOut, **problems(404)})
@permission("read")
def get(path: DeliveryPath) -> Response:
    """Read a delivery"""
    with resources().database.read() as session:
        return answer(show(deliveries.get(session, str(path.delivery_id), principal().projects)))


@api.post("/events/<uuid:delivery_id>/replay", responses={"202": ReplayOut, **problems(404, 409)})
@permission("scan")
def replay(path: DeliveryPath) -> Response:
    """Replay a delivery

    Starts a new scan for each one that has ended. Scans that have not ended are returned as they are.
    """
    with resources().database.session() as session:
        tickets = use_cases.replay(session, principal(), str(path.delivery_id))
    for ticket, former in tickets:
        if ticket.created:
            queue.enqueue(resources().celery, ticket.scan_id, former.request.lane)
    return answer(ReplayOut(scans=[UUID(ticket.scan_id) for ticket, _ in tickets]), 202)


class AliasIn(Body):
    host: Annotated[str, StringConstraints(min_length=1, max_length=300)] = Field(
        description="A host name in refused events of the delivery.", examples=["registry:5000"]
    )


@api.post("/events/<uuid:delivery_id>/alias", responses={"202": ReplayOut, **problems(404, 409)})
@permission("manage")
def add_alias(path: DeliveryPath, body: AliasIn) -> Response:
    """Add a host name of a delivery as an alias

    The host becomes an alias of the webhook's registry, and the images of its refused events are scanned.
    """
    own = resources()
    tickets = own.database.uncrossed(
        lambda session: webhook_cases.add_alias(
            session, principal(), own.secret_key, str(path.delivery_id), body.host, own.settings.engine
        )
    )
    for ticket in tickets:
        if ticket.created:
            queue.enqueue(own.celery, ticket.scan_id, Lane.PUSH)
    return answer(ReplayOut(scans=[UUID(ticket.scan_id) for ticket in tickets]), 202)
