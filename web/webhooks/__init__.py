"""``POST /webhooks/<format>``: authenticate the raw body, parse, record, answer; then notify the queue.

A payload is never authority. The reference to scan consists of the registry that an administrator configured for the
webhook, and the repository and digest of the payload; a host in the payload is only compared. A delivery, its scans and
their link are written in one transaction, so after a 202 they survive any crash.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TypeVar

import orjson
from flask import Blueprint, Response, request

from scanner import queue, telemetry
from scanner.errors import NotFoundError, RefusedError, RemoteError, UsageError
from scanner.model.reference import Reference
from scanner.model.scan import Lane, ScanRequest
from scanner.plugins import discover
from scanner.services import webhooks as use_cases
from scanner.store import deliveries
from scanner.store.intake import Arrival, KnownState, Outcome, OutdatedState, RecordedDelivery
from web.auth import PUBLIC, permission
from web.resources import Resources, resources
from web.security import Later, is_again, later, read_body
from web.throttle import BAD_TOKEN_ADDRESS, WEBHOOK, request_source
from web.webhooks.base import PING, PushEvent, UnreadableEvent, WebhookFormat

bp = Blueprint("webhooks", __name__)
_TRIES, _CHANGING = 5, "db_conflict"

T = TypeVar("T")


@cache
def formats() -> Mapping[str, WebhookFormat]:
    """All webhook formats by id."""
    return discover(__name__, WebhookFormat)


def _admit() -> int:
    """Decide by the headers whether a long or late body is read: only for a known secret, if the format has it there.

    See `permission`.
    """
    arguments = request.view_args or {}
    format_ = formats().get(arguments["format_id"])
    if format_ is None:
        raise NotFoundError("there is no such webhook format", hint="one of " + ", ".join(formats()))
    _take("late-body")
    if not format_.signs_body:
        _run_with_current(lambda known: _check_path_token(format_, known, arguments.get("path_token", "")))
    return format_.body_limit


@bp.post("/webhooks/<format_id>")
@bp.post("/webhooks/<format_id>/<path_token>")
@permission(PUBLIC, admit=_admit)  # the format authenticates the sender from the raw body
def receive(format_id: str, path_token: str = "") -> Response:
    """Receive a delivery. 202 with its scans, none if it does not concern us; 200 for a test delivery."""
    format_ = formats().get(format_id)
    if format_ is None:
        raise NotFoundError("there is no such webhook format", hint="one of " + ", ".join(formats()))
    body = read_body(format_.body_limit)
    return _run_with_current(lambda known: _receive(format_, known, body, path_token))


def _run_with_current(work: Callable[[KnownState], T]) -> T:
    """Run ``work`` with what this process knows, and again if that was outdated: only an up-to-date result counts.

    Raises RemoteError if it changes all the time; the sender will try again.
    """
    known = resources().intake.remembered()
    for _ in range(_TRIES):
        try:
            return work(known)
        except OutdatedState:
            known = resources().intake.known()
        except UsageError:
            if (current := resources().intake.known()).text == known.text:
                raise
            known = current
    raise RemoteError("webhooks or registries are being changed", reason=_CHANGING, hint="try again")


def _confirm(known: KnownState) -> None:
    """Raise Outdated unless ``known`` is what the database has now."""
    if resources().intake.known().text != known.text:
        raise OutdatedState


def _check_path_token(format_: WebhookFormat, known: KnownState, path_token: str) -> None:
    _authenticate(format_, known, b"", path_token)
    _confirm(known)


def _receive(format_: WebhookFormat, known: KnownState, body: bytes, path_token: str) -> Response:
    """Process a delivery that is checked against ``known``. Raises Outdated: nothing was done."""
    hook = _verify_signature(format_, known, body, _authenticate(format_, known, body, path_token))
    # The same request, answered again after its group failed, was counted when it came.
    if not is_again():
        _take("webhook")
    if format_.media_types and request.mimetype not in format_.media_types:
        raise UsageError("not a media type of this format", reason="unsupported_media_type")
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        # No registry compresses what it sends, and a compressed body can be a bomb.
        hint = "send the body without Content-Encoding"
        raise UsageError("a compressed body is not read", reason="unsupported_media_type", hint=hint)
    own_id = request.headers.get(format_.delivery_header, "")[:200] if format_.delivery_header else ""
    events = [_with_id(event, own_id) for event in format_.parse(body)]
    pushes = [format_.named_at(hook.host, e) for e in events if isinstance(e, PushEvent) and e.concerns_us]
    refused = [deliveries.RefusedEvent("invalid", e.problem) for e in events if isinstance(e, UnreadableEvent)]
    is_test = any(isinstance(event, PushEvent) and event.action == PING for event in events)
    # Nothing will be written, so the write cannot find out that ``known`` is outdated. Taken for foreign by mistake,
    # a push would be lost: its sender does not repeat what was accepted.
    if is_test or not (pushes or refused):
        _confirm(known)
    if is_test:
        format_.acknowledge(body, hook.sender, resources().sender_keys)
        with resources().database.session() as session:
            deliveries.record_test(session, hook.id, use_cases.TEST)
        if not pushes and not refused:
            return _unrecorded_answer(len(events), 200)
    if not pushes and not refused:  # pulls (our own as well) and blobs: nothing is recorded
        return _unrecorded_answer(len(events))
    asked, impossible = _requests(known, hook, pushes)
    refused += impossible
    # Without an id, two identical bodies are two pushes: many senders name only the tag.
    known_by = own_id if all(push.id for push in pushes) else secrets.token_hex(16)
    key = hashlib.sha256(known_by.encode("utf-8", "replace") + b"\n" + body).hexdigest()
    outcome = use_cases.outcome(len(asked), len(refused))
    arrival = Arrival(hook.id, key, len(events), outcome, tuple(asked), tuple(refused))
    intake, pending = resources().intake, later()
    # A span ends with the request that it is of, so a delivery that is traced waits in it.
    if pending is not None and intake.groups(arrival) and not telemetry.current():
        pending.begin = partial(_begin, resources(), known, arrival, pending)
        return Response(status=202, mimetype="application/json")
    recorded = intake.alone(known, arrival) if is_again() else intake.record(known, arrival)
    _notify(resources(), recorded)
    return Response(_document(recorded, len(events), len(refused)), 202, mimetype="application/json")


def _begin(
    used: Resources,
    known: KnownState,
    arrival: Arrival,
    pending: Later,
    answer: Callable[[bytes], None],
    again: Callable[[Exception | None], None],
) -> None:
    """Let a group write a delivery, and answer when it is on the disk. See `Later.begin`."""

    def settle(outcome: Outcome) -> None:
        if isinstance(outcome, RecordedDelivery):
            pending.then.append(lambda: _notify(used, outcome))
            answer(_document(outcome, arrival.events, 0))
        else:
            again(outcome)

    used.intake.submit(known, arrival, settle, pending.coming)


def _unrecorded_answer(events: int, status: int = 202) -> Response:
    return Response(_document(None, events, 0), status, mimetype="application/json")


def _notify(used: Resources, recorded: RecordedDelivery) -> None:
    # Two events of a delivery can ask for one scan, which takes one message.
    for scan_id in dict.fromkeys(ticket.scan_id for ticket in recorded.tickets if ticket.created):
        queue.enqueue(used.celery, scan_id, Lane.PUSH)


def _document(recorded: RecordedDelivery | None, events: int, refused: int) -> bytes:
    scan_ids = list(dict.fromkeys(ticket.scan_id for ticket in recorded.tickets)) if recorded else []
    delivery_id = recorded.delivery_id if recorded else None
    return orjson.dumps({"delivery": delivery_id, "scans": scan_ids, "events": events, "refused": refused})


def _with_id(event: PushEvent | UnreadableEvent, delivery: str) -> PushEvent | UnreadableEvent:
    """The event with the delivery's id, if it has none itself."""
    return replace(event, id=delivery) if isinstance(event, PushEvent) and not event.id else event


def _take(bucket: str) -> None:
    if resources().settings.rate_limits:
        resources().throttle.take(bucket, request_source(), WEBHOOK)


def _authenticate(format_: WebhookFormat, known: KnownState, body: bytes, path_token: str) -> list[deliveries.Hook]:
    """Return the webhooks whose secret the sender knows; several webhooks can have the same secret.

    All are compared, so that the time does not reveal which exist.
    """
    # From the raw bytes, before anything is parsed: a parser is not shown what an unknown sender wrote.
    found = [
        hook
        for hook in known.hooks(format_.id)
        for secret in hook.secrets
        if format_.authenticate(body, request.headers, path_token, secret, hook.header or format_.header)
    ]
    if not found:
        _check_failures()  # first: the database is not asked about each guess of a flood
        _confirm(known)  # the secret may be new
        _spend()
        raise RefusedError("no webhook of this format has that secret", reason="bad_token")
    return found


def _verify_signature(
    format_: WebhookFormat, current: KnownState, body: bytes, known: Sequence[deliveries.Hook]
) -> deliveries.Hook:
    """Return the webhook whose sender's own signature is valid as well, for formats that have one."""
    for hook in known:
        if format_.verify_sender(body, request.headers, hook.sender, resources().sender_keys):
            return hook
    _confirm(current)
    _spend()
    raise RefusedError(
        "the secret is correct, but the sender's signature is not valid",
        reason="bad_token",
        hint="check the sender that is configured for the webhook; see docs/webhooks.md",
    )


def _check_failures() -> None:
    """Raise RefusedError (429) for an address with too many wrong secrets.

    Only called for a wrong one: a stranger at the registry's address (a proxy, a NAT) must not stop its deliveries.
    """
    if resources().settings.rate_limits:
        resources().throttle.check("bad-webhook", request_source(), BAD_TOKEN_ADDRESS)


def _spend() -> None:
    if resources().settings.rate_limits:
        resources().throttle.spend("bad-webhook", request_source(), BAD_TOKEN_ADDRESS)


def _requests(
    known: KnownState, hook: deliveries.Hook, pushes: Sequence[PushEvent]
) -> tuple[list[tuple[str, ScanRequest]], list[deliveries.RefusedEvent]]:
    """Return the scans to request by idempotency key, and the refused events.

    An invalid event must not refuse the others: registries repeat a refused delivery forever and send no later push.
    """
    own = {_comparable(name) for name in (hook.host, *hook.aliases)}
    asked: dict[str, ScanRequest] = {}
    refused: list[deliveries.RefusedEvent] = []
    for event in pushes:
        # Without an id, each delivery counts as a push. It joins a scan that has not read the tag yet; a later scan
        # reads what the tag names then, and reuses the evidence of a known digest.
        key = event.identity if event.id else f"{event.identity}:{secrets.token_hex(8)}"
        claimed = (event.host, event.repository, event.tag, event.digest, key)
        try:
            target = str(reference_of(hook.host, event))
        except UsageError as error:
            refused.append(deliveries.RefusedEvent(error.reason, str(error), *claimed))
            continue
        if event.host and _comparable(event.host) not in own:
            message = f"the payload names a host other than {hook.host} and its aliases"
            refused.append(deliveries.RefusedEvent(deliveries.UNKNOWN_REGISTRY, message, *claimed))
            continue
        project = known.owner(f"{hook.host}/{event.repository}")
        asked[use_cases.event_key(hook.id, key)] = ScanRequest(
            target=target,
            lane=Lane.PUSH,
            engine=known.engines.get(project) or resources().settings.engine,
            project=project,
            requested_by=f"webhook {hook.name}",
            source=f"webhook:{hook.format}",
        )
    if refused:
        log = logging.getLogger(__name__)
        log.warning("%d events of a delivery were refused", len(refused), extra={"webhook_id": hook.id})
    return list(asked.items()), refused


def _comparable(host: str) -> str:
    """A host for comparison: names are case-insensitive, and 443 is the port of a registry that names none."""
    return host.lower().removesuffix(":443")


def reference_of(host: str, event: PushEvent) -> Reference:
    """The image of an event, at the configured host. Raises UsageError (422) for an invalid name.

    The parts are parsed together and must be unchanged by it: ``cart:evil`` is not a repository, and ``../x`` is not a
    tag.
    """
    text = f"{host}/{event.repository}"
    text += f":{event.tag}" if event.tag else ""
    text += f"@{event.digest}" if event.digest else ""
    try:
        named = Reference.parse(text)
    except UsageError as error:
        raise UsageError(str(error), reason="bad_reference") from error
    if not event.tag and not event.digest:
        raise UsageError("the payload names neither tag nor digest", reason="bad_reference")
    parts = (named.host, named.repository, named.tag or "", str(named.digest or ""))
    if parts != (host, event.repository, event.tag, event.digest):
        raise UsageError("the payload does not name a repository and a tag", reason="bad_reference")
    return named
