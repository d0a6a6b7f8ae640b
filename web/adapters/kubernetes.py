"""``POST /adapters/kubernetes/admit``: an API server asks whether an object may be stored.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/. An API server sends no custom
headers, so the token can be in the path, followed by mode and environment of the selected namespaces. The word
``certificate`` instead of a token: the API server authenticates by the client certificate of its TLS connection.

A review is always answered with 200: after an error the webhook's ``failurePolicy`` would decide, and ``Ignore`` would
admit what was never evaluated. Only a caller without a valid token, or a failure to check it, gets another status.
"""

from __future__ import annotations

import logging
from typing import Any

import orjson
from flask import Blueprint, Response, request

from scanner.errors import RefusedError, RemoteError, ScannerError, UsageError
from scanner.model.actor import Actor
from scanner.model.untrusted import load_untrusted_json
from scanner.services import admissions
from web import doors
from web.auth import permission, principal, throttle_bad_tokens
from web.resources import resources
from web.security import read_body
from web.throttle import ADMISSION

bp = Blueprint("kubernetes", __name__)

# An object can have 1.5 MiB in etcd, and the review of an update contains it twice, as JSON.
CERTIFICATE = "certificate"  # in the path instead of a token
_LIMIT = 8 << 20  # bytes: etcd takes objects of 1.5 MiB, and an update carries two of them
_DEPTH = 64
_MARGIN_SECONDS = 1.0  # reserved for the answer, out of the webhook's timeout
_NOT_DECIDED = "Dockwarden could not evaluate this object, so it is denied: {}. Try again, and see Dockwarden's log."


def authenticate() -> Actor:
    """See `doors.authenticate`. Without a token, the client certificate of the TLS connection counts."""
    token = doors.token_of_request()
    if token in ("", CERTIFICATE):
        found = doors.authenticate_certificate("admission", ADMISSION)
        if found is not None:
            return found
    if token == CERTIFICATE:
        throttle_bad_tokens(False)
        raise RefusedError(
            "this connection has no accepted client certificate",
            reason="bad_token",
            hint="see docs/admission.md; behind a proxy that ends TLS, use a token",
        )
    return doors.authenticate("admission", ADMISSION)


@bp.post("/adapters/kubernetes/admit")
@bp.post("/adapters/kubernetes/admit/<path_token>")
@bp.post("/adapters/kubernetes/admit/<path_token>/<mode>")
@bp.post("/adapters/kubernetes/admit/<path_token>/<mode>/<environment>")
@permission("admission", authenticate=authenticate, body=_LIMIT)
def admit(path_token: str = "", mode: str = "", environment: str = "") -> Response:
    """Evaluate a review. Every failure is a denial with a sentence that says why."""
    document: Any = None
    review = None
    try:
        document = load_untrusted_json(
            read_body(_LIMIT), limit=_LIMIT, depth=_DEPTH, error=UsageError, reason="bad_review"
        )
        review = admissions.parse_review(document)
        door, seconds = doors.door("admission", review.namespace), _budget()
        answer = admissions.decide(review, door, principal(), mode=mode, environment=environment, seconds=seconds)
        doors.recorder().note(principal(), answer.call())
        return _review_response(answer.response())
    except UsageError as error:
        return _review_response(admissions.refusal(document, str(error)))
    except ScannerError as error:
        # The text of a remote fault says which part is away. Other texts may hold data of another project, so only
        # the reason is given.
        reason = str(error) if isinstance(error, RemoteError) else error.reason
        logging.getLogger(__name__).error("a review could not be decided", extra={"reason": error.reason})
        return _review_response(
            admissions.failed(document, review, resources().settings, mode, _NOT_DECIDED.format(reason))
        )
    except Exception:
        # A stage boundary: a status 500 would admit the object if the webhook's failurePolicy is Ignore.
        logging.getLogger(__name__).exception("unexpected error in a review")
        message = _NOT_DECIDED.format("an internal error")
        return _review_response(admissions.failed(document, review, resources().settings, mode, message))


@bp.post("/adapters/kubernetes/pin/<path_token>")
@bp.post("/adapters/kubernetes/pin/<path_token>/<environment>")
@permission("admission", authenticate=authenticate, body=_LIMIT)
def pin(path_token: str, environment: str = "") -> Response:
    """Pin the tags of a new Pod to the digests that were judged. Whatever goes wrong leaves the Pod as it is.

    The validating webhook judges it after this one, so that nothing is let in by what is not pinned.
    """
    document: Any = None
    try:
        document = load_untrusted_json(
            read_body(_LIMIT), limit=_LIMIT, depth=_DEPTH, error=UsageError, reason="bad_review"
        )
        review = admissions.parse_review(document)
        door, seconds = doors.door("admission", review.namespace), _budget()
        patch = admissions.pins(review, door, principal(), environment=environment, seconds=seconds)
        return _review_response(admissions.pinning_review(review, patch))
    except UsageError as error:
        return _review_response(admissions.refusal(document, str(error)))
    except ScannerError as error:
        logging.getLogger(__name__).error("tags were not pinned", extra={"reason": error.reason})
    except Exception:
        # A stage boundary: with failurePolicy Fail, a status 500 would stop what the validating webhook may allow.
        logging.getLogger(__name__).exception("unexpected error while pinning")
    return _review_response(admissions.pinning_review(review, []))


def _review_response(document: dict[str, Any]) -> Response:
    return Response(orjson.dumps(document), mimetype="application/json")


def _budget() -> float:
    """Seconds to wait for a scan: the setting, or less if the API server's timeout (``?timeout=5s``) is shorter."""
    ours = resources().settings.admission_wait_seconds
    asked = request.args.get("timeout", "").removesuffix("s")
    if asked.isascii() and asked.isdigit() and len(asked) < 4:
        # An answer that comes after the API server's timeout is no answer: `failurePolicy` would decide instead of
        # the gate.
        return max(0.0, min(ours, int(asked) - _MARGIN_SECONDS))
    return ours
