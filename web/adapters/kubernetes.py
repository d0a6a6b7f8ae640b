"""``POST /adapters/kubernetes/admit``: an API server asks whether an object may be stored.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/

An API server sends no headers of ours, so the token may stand in the path, with the mode and the environment of the
namespaces that the webhook selects behind it. A review is always answered 200: an error would leave the decision to the
webhook's ``failurePolicy``, and ``Ignore`` would let in what was never judged. Only a caller without a token, or a
database that cannot tell who calls, is told so by the status.
"""

from __future__ import annotations

import logging
from typing import Any

import orjson
from flask import Blueprint, Response, current_app, g, request

from scanner import queue
from scanner.errors import RemoteError, ScannerError, UsageError
from scanner.model.actor import Actor
from scanner.model.scan import Lane
from scanner.model.untrusted import load_untrusted_json
from scanner.services import admissions
from scanner.services.admission_reviews import Recorder
from scanner.store import accounts
from scanner.store.gate import Asked
from web.auth import bad_token, bearer, check_bad_tokens, permission, principal, throttle_bad_tokens, token_principal
from web.resources import resources
from web.security import admission, read_body
from web.throttle import ADMISSION
from web.waiting import waited

bp = Blueprint("kubernetes", __name__)

# An object may have 1.5 MiB in etcd, and a review of an update holds it twice, as JSON.
_LIMIT = 8 << 20
_DEPTH = 64
_MARGIN_SECONDS = 1.0  # what is left of the webhook's time-out for the way back
_NOT_DECIDED = (
    "Dockwarden could not decide about this object, so it is denied: {}. Try again, and see Dockwarden's log."
)


def authenticate() -> Actor:
    """The principal of the token in the Authorization header, else in the path. It is compared as a keyed hash."""
    check_bad_tokens()
    header = request.headers.get("Authorization", "")
    text = bearer(header) if header else (request.view_args or {}).get("path_token", "")
    asked = None
    for token_hash in (known := accounts.hashes(text, resources().secret_key)):
        asked = resources().gate.ask(token_hash, "", "", "")
        if asked is not None:
            g.token_hash = token_hash
            break
    throttle_bad_tokens(asked is not None)
    if asked is None:
        raise bad_token()
    if asked.unnoted:
        with resources().database.session() as session:
            accounts.touch_token(session, asked.token_id, known[0])
    if resources().settings.rate_limits and not admission():
        resources().throttle.take("admission", asked.token_id, ADMISSION)
    return token_principal(
        asked.token_id, asked.name, asked.scopes, asked.projects, owner_id=asked.owner_id, owner_role=asked.owner_role
    )


@bp.post("/adapters/kubernetes/admit")
@bp.post("/adapters/kubernetes/admit/<path_token>")
@bp.post("/adapters/kubernetes/admit/<path_token>/<mode>")
@bp.post("/adapters/kubernetes/admit/<path_token>/<mode>/<environment>")
@permission("admission", authenticate=authenticate, body=_LIMIT)
def admit(path_token: str = "", mode: str = "", environment: str = "") -> Response:
    """Judge a review. Whatever goes wrong is a denial with a sentence that says what."""
    document: Any = None
    review = None
    try:
        document = load_untrusted_json(
            read_body(_LIMIT), limit=_LIMIT, depth=_DEPTH, error=UsageError, reason="bad_review"
        )
        review = admissions.parse_review(document)
        answer = admissions.decide(review, _door(), principal(), mode=mode, environment=environment, seconds=_budget())
        _recorder().note(principal(), answer)
        return _answered(answer.response())
    except UsageError as error:
        return _answered(admissions.refused(document, str(error)))
    except ScannerError as error:
        reason = "its database does not answer" if isinstance(error, RemoteError) else error.reason
        logging.getLogger(__name__).error("a review was not decided", extra={"reason": error.reason})
        return _answered(admissions.failed(document, review, resources().settings, mode, _NOT_DECIDED.format(reason)))
    except Exception:
        # A stage boundary: a 500 would be an allow wherever the webhook's failurePolicy is Ignore.
        logging.getLogger(__name__).exception("a review broke")
        message = _NOT_DECIDED.format("an internal error")
        return _answered(admissions.failed(document, review, resources().settings, mode, message))


def _answered(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), mimetype="application/json")


def _budget() -> float:
    """Seconds that a scan may be waited for: ours, or what the API server's own time-out (``?timeout=5s``) leaves."""
    ours = resources().settings.admission_wait_seconds
    asked = request.args.get("timeout", "").removesuffix("s")
    if asked.isascii() and asked.isdigit() and len(asked) < 4:
        return max(0.0, min(ours, int(asked) - _MARGIN_SECONDS))
    return ours


def _door() -> admissions.Door:
    token_hash = g.token_hash

    def ask(digest: str, repository: str, environment: str) -> Asked | None:
        return resources().gate.ask(token_hash, digest, repository, environment)

    memory = current_app.extensions.setdefault("admission_memory", admissions.Memory())
    return admissions.Door(
        resources().database,
        resources().settings,
        memory,
        ask,
        lambda scan_id: queue.enqueue(resources().celery, scan_id, Lane.GATE),
        waited,
    )


def _recorder() -> Recorder:
    found = current_app.extensions.get("admission_recorder")
    if found is None:
        found = current_app.extensions.setdefault("admission_recorder", Recorder(resources().database))
    recorder: Recorder = found
    return recorder
