"""``POST /webhooks/clair``: Clair's notifier says that there is a notification. https://quay.github.io/clair/concepts/notifications.html

It is taken down as a job in one transaction and answered 200, which is the only answer that Clair takes for received. The delivery also
names a callback address: it is not even read, because nothing that is sent to us chooses where we connect to.
"""

from __future__ import annotations

import uuid

import orjson
from flask import Blueprint, Response, request

from scanner.errors import RefusedError, UsageError
from scanner.store import jobs
from web.auth import PUBLIC, permission
from web.security import read_body
from web.services import services
from web.throttle import BAD_TOKEN_ADDRESS, WEBHOOK, source_of
from web.webhooks.base import bearer_or_plain, load, same_secret

bp = Blueprint("clair", __name__)
_LIMIT = 64 << 10
_MIN_SECRET = 16


@bp.post("/webhooks/clair")
@permission(PUBLIC)  # whoever calls is told by the token, compared before anything is parsed
def notify() -> Response:
    """Take a notification. 200 with the job that deals with it; told twice, it is one."""
    body = read_body(_LIMIT)
    _authenticate()
    document = load(body)
    try:
        identifier = str(uuid.UUID(document["notification_id"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UsageError("notification_id is not a UUID", reason="invalid") from None
    with services().database.session() as session:
        job = jobs.request(session, jobs.CLAIR, identifier, "clair", {"notification": identifier})
    return Response(orjson.dumps({"job": job}), mimetype="application/json")


def _authenticate() -> None:
    source, limited = source_of(request.remote_addr), services().settings.rate_limits
    if limited:
        services().throttle.check("bad-webhook", source, BAD_TOKEN_ADDRESS)
        services().throttle.take("webhook", source, WEBHOOK)
    secret = services().settings.clair_webhook_token
    known = same_secret(bearer_or_plain(request.headers.get("Authorization", "")), secret)
    if not known or len(secret.reveal()) < _MIN_SECRET:
        if limited:
            services().throttle.spend("bad-webhook", source, BAD_TOKEN_ADDRESS)
        raise RefusedError(
            "not the token of Clair's notifier",
            reason="bad_token",
            hint="see DOCKWARDEN_CLAIR_WEBHOOK_TOKEN in docs/clair.md",
        )
