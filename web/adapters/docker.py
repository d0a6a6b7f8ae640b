"""``POST /adapters/docker/authorize``: ``dockwarden docker-authz`` asks whether an engine may do what it was asked.

An error is an error here: the plugin denies, or uses what it was last told, as it was set up.
"""

from __future__ import annotations

import time

import orjson
from flask import Blueprint, Response

from scanner.errors import UsageError
from scanner.model.actor import Actor
from scanner.model.untrusted import load_untrusted_json
from scanner.services import engine_calls
from web import doors
from web.auth import permission, principal
from web.resources import resources
from web.security import read_body
from web.throttle import ADMISSION

bp = Blueprint("docker", __name__)

# Bytes of a question.
_LIMIT = 1 << 20


def authenticate() -> Actor:
    """See `doors.authenticate`."""
    return doors.authenticate("admission", ADMISSION)


@bp.post("/adapters/docker/authorize")
@permission("admission", authenticate=authenticate, body=_LIMIT)
def authorize() -> Response:
    """Judge what an engine was asked to do."""
    # Before the body is read: the engine's own deadline runs while a slow sender sends.
    ends = time.monotonic() + resources().settings.admission_wait_seconds
    document = load_untrusted_json(read_body(_LIMIT), limit=_LIMIT, error=UsageError, reason="bad_call")
    call = engine_calls.parse(document)
    judged = engine_calls.decide(call, doors.door("docker", call.host), principal(), ends=ends)
    public_url = resources().settings.public_url
    doors.recorder().note(principal(), engine_calls.call_record(call, judged, public_url))
    return Response(orjson.dumps(engine_calls.answer(call, judged, public_url)), mimetype="application/json")
