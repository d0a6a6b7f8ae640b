"""``POST /webhooks/clair``: Clair's notifier announces a notification.

https://quay.github.io/clair/concepts/notifications.html. It is recorded as a job in one transaction and answered with
200, the only status that Clair accepts. The delivery also has a callback URL. It is ignored, because received data
never chooses where we connect to.
"""

from __future__ import annotations

import base64
import uuid

import orjson
from flask import Blueprint, Response, request
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from scanner.errors import RefusedError, UsageError
from scanner.store import jobs
from web.auth import PUBLIC, permission
from web.resources import resources
from web.security import read_body
from web.throttle import BAD_TOKEN_ADDRESS, WEBHOOK, request_source
from web.webhooks.base import bearer_or_plain, load, same_secret

bp = Blueprint("clair", __name__)
# Bytes: a notification is an id and an address.
_LIMIT = 64 << 10
_MIN_SECRET = 16  # bytes of the key that Clair signs its calls with
_CLAIMS = jwt.JWTClaimsRegistry(
    leeway=15, iss={"essential": True, "value": "clair-notifier"}, exp={"essential": True}, nbf={"essential": False}
)


def _admit() -> int:
    """See ``permission``: Clair's token is in a header."""
    _authenticate()
    return _LIMIT


@bp.post("/webhooks/clair")
@permission(PUBLIC, admit=_admit)  # the token identifies the caller, and is compared before anything is parsed
def notify() -> Response:
    """Record a notification. Answers 200 with its job; a repeated notification gets the same job."""
    body = read_body(_LIMIT)
    _authenticate()
    document = load(body)
    try:
        identifier = str(uuid.UUID(document["notification_id"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UsageError("notification_id is not a UUID", reason="invalid") from None
    with resources().database.session() as session:
        job = jobs.request(session, jobs.CLAIR, identifier, "clair", {"notification": identifier})
    return Response(orjson.dumps({"job": job}), mimetype="application/json")


def _authenticate() -> None:
    source, limited = request_source(), resources().settings.rate_limits
    header = request.headers.get("Authorization", "")
    # Clair appends its own Authorization header to a configured one; both arrive as one, separated by a comma.
    tokens = [bearer_or_plain(part.strip()) for part in (header, *header.split(",")[:4])]
    if not any(_is_token(one) or _is_signed(one) for one in tokens):
        if limited:  # only now: a stranger at Clair's address must not stop its notifications
            resources().throttle.check("bad-webhook", source, BAD_TOKEN_ADDRESS)
            resources().throttle.spend("bad-webhook", source, BAD_TOKEN_ADDRESS)
        raise RefusedError("the request is not from the configured Clair", reason="bad_token", hint="see docs/clair.md")
    if limited:
        resources().throttle.take("webhook", source, WEBHOOK)


def _is_token(sent: str) -> bool:
    """True for the token of the settings, for a Clair without a key."""
    secret = resources().settings.clair_webhook_token
    # A short secret, or none, is never accepted, whatever was configured: an empty one would equal an empty header.
    return same_secret(sent, secret) and len(secret.reveal()) >= _MIN_SECRET


def _is_signed(sent: str) -> bool:
    """True for a token that is signed with the key shared with Clair (``auth.psk``), which signs both directions."""
    psk = resources().settings.clair_psk.reveal()
    try:
        key = base64.b64decode(psk, validate=True)
        if len(key) < _MIN_SECRET:
            return False
        # One algorithm only. A token that chooses its own could choose "none" (RFC 8725, section 3.1).
        claims = jwt.decode(sent, OctKey.import_key(key), algorithms=["HS256"]).claims
        _CLAIMS.validate(claims)
    except (JoseError, ValueError):
        return False
    return True
