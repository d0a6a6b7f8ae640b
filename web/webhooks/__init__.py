"""``POST /webhooks/<format>``: authenticate the raw bytes, parse, record, answer; then nudge the queue.

Everything a payload says is a hint. The reference that is scanned is built from the registry that an administrator configured
for the webhook, the repository and the digest; a host that the payload claims is only compared with it. A delivery, its scans
and the link between them are one transaction, so a 202 is a promise that survives any crash.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import orjson
from flask import Blueprint, Response, request
from sqlalchemy.engine import Connection

from scanner import queue
from scanner.errors import NotFoundError, RefusedError, UsageError
from scanner.model.reference import Reference
from scanner.model.scan import Lane, ScanRequest
from scanner.plugins import discover
from scanner.store import deliveries, projects, scans
from web.auth import PUBLIC, permission
from web.security import read_body
from web.services import engine_for, services
from web.throttle import BAD_TOKEN_ADDRESS, WEBHOOK, source_of
from web.webhooks.base import PushEvent, WebhookFormat

bp = Blueprint("webhooks", __name__)
_LIMIT = 1 << 20
_WINDOW_SECONDS = 3600  # an event without an id is the same one for so long; later it is a push of the same image anew


@cache
def formats() -> Mapping[str, WebhookFormat]:
    """Webhook formats."""
    return discover(__name__, WebhookFormat)  # type: ignore[type-abstract]


def _admit() -> int:
    """A long or late body is read for a sender who knows a secret, where that can be told without it. See `permission`."""
    arguments = request.view_args or {}
    format_ = formats().get(arguments["format_id"])
    if format_ is None:
        raise NotFoundError("there is no such webhook format", hint="one of " + ", ".join(formats()))
    _throttle()
    if not format_.signs_body:
        _authenticate(format_, b"", arguments.get("path_token", ""))
    return _LIMIT


@bp.post("/webhooks/<format_id>")
@bp.post("/webhooks/<format_id>/<path_token>")
@permission(PUBLIC, admit=_admit)  # whoever calls is told by the format, from the raw bytes
def receive(format_id: str, path_token: str = "") -> Response:
    """Take a delivery. 202 with the scans it led to; an event that does not concern us leads to none."""
    format_ = formats().get(format_id)
    if format_ is None:
        raise NotFoundError("there is no such webhook format", hint="one of " + ", ".join(formats()))
    body = read_body(_LIMIT)
    _throttle()
    hook = _authenticate(format_, body, path_token)
    if format_.media_types and request.mimetype not in format_.media_types:
        raise UsageError("not a media type of this format", reason="unsupported_media_type")
    events = format_.parse(body)
    pushes = tuple(event for event in events if event.concerns_us)
    if not pushes:  # pulls, our own among them, and blobs: nothing is promised, nothing is kept
        return _answer(None, (), len(events))
    delivery_id, tickets = _record(hook, body, len(events), list(_requests(hook, pushes)))
    for ticket in tickets:
        if ticket.created:
            queue.enqueue(services().celery, ticket.scan_id, Lane.PUSH)
    return _answer(delivery_id, tickets, len(events))


def _answer(delivery_id: str | None, tickets: Sequence[scans.Ticket], events: int) -> Response:
    answer = {"delivery": delivery_id, "scans": [ticket.scan_id for ticket in tickets], "events": events}
    return Response(orjson.dumps(answer), 202, mimetype="application/json")


def _throttle() -> None:
    if services().settings.rate_limits:
        source = source_of(request.remote_addr)
        services().throttle.check("bad-webhook", source, BAD_TOKEN_ADDRESS)
        services().throttle.take("webhook", source, WEBHOOK)


def _authenticate(format_: WebhookFormat, body: bytes, path_token: str) -> deliveries.Hook:
    """The webhook whose secret the sender knows. Every one is tried, whichever fits: time tells nothing about which exist."""
    with services().database.read() as session:
        hooks = deliveries.hooks(session, format_.id, services().secret_key)
    found = [
        hook
        for hook in hooks
        for secret in hook.secrets
        if format_.authenticate(body, request.headers, path_token, secret, hook.header or format_.header)
    ]
    if not found:
        if services().settings.rate_limits:
            services().throttle.spend("bad-webhook", source_of(request.remote_addr), BAD_TOKEN_ADDRESS)
        raise RefusedError("no webhook of this format has that secret", reason="bad_token")
    return found[0]


def _requests(hook: deliveries.Hook, pushes: Sequence[PushEvent]) -> Iterator[tuple[str, ScanRequest]]:
    """What to scan, by event key. One impossible event refuses the delivery: an honest registry sends none."""
    with services().database.read() as session:
        owner = projects.owners(session, {f"{hook.host}/{event.repository}" for event in pushes})
    for event in pushes:
        if event.host and event.host not in (hook.host, *hook.aliases):
            logging.getLogger(__name__).warning("a push names another host", extra={"webhook_id": hook.id})
            raise UsageError(
                "the payload names a host that is not this webhook's registry",
                reason="unknown_registry",
                hint=f"if it is another name of {hook.host}, add it to the registry's aliases",
            )
        yield (
            event.id or f"{event.key}:{int(time.time() // _WINDOW_SECONDS)}",
            ScanRequest(
                target=str(reference_of(hook.host, event)),
                lane=Lane.PUSH,
                engine=engine_for(owner[f"{hook.host}/{event.repository}"]),
                project=owner[f"{hook.host}/{event.repository}"],
                requested_by=f"webhook {hook.name}",
                source=f"webhook:{hook.format}",
            ),
        )


def reference_of(host: str, event: PushEvent) -> Reference:
    """The image an event speaks of, at the configured host. Raises UsageError (422) for a name that is none.

    Each part is parsed alone and must come out as it went in: ``cart:evil`` is not a repository, nor ``../x`` a tag.
    """
    try:
        named = Reference.parse(f"{host}/{event.repository}")
        tagged = Reference.parse(f"{host}/{event.repository}:{event.tag}") if event.tag else named
        pinned = Reference.parse(f"{host}/{event.repository}@{event.digest}") if event.digest else named
    except UsageError as error:
        raise UsageError(str(error), reason="bad_reference") from error
    if named.host != host or named.repository != event.repository or (event.tag and tagged.tag != event.tag):
        raise UsageError("the payload does not name a repository and a tag", reason="bad_reference")
    if not event.tag and not event.digest:
        raise UsageError("the payload names neither tag nor digest", reason="bad_reference")
    return Reference(host, named.repository, event.tag or None, pinned.digest)


def _record(
    hook: deliveries.Hook, body: bytes, events: int, asked: Sequence[tuple[str, ScanRequest]]
) -> tuple[str, list[scans.Ticket]]:
    """Delivery, scans and links in one transaction. A delivery told again leads to the scans it led to."""
    key = hashlib.sha256(body).hexdigest()
    unique = dict(asked)

    def record(session: Connection) -> tuple[str, list[scans.Ticket]]:
        delivery = deliveries.record(session, hook.id, key, events, f"{len(unique)} images")
        requests = [(f"hook:{hook.id}:{event}", one) for event, one in unique.items()]
        return delivery.id, scans.request_all(session, requests, delivery_id=delivery.id)

    delivery_id, tickets = services().database.uncrossed(record)
    return delivery_id, list({ticket.scan_id: ticket for ticket in tickets}.values())
