"""Errors for callers: RFC 9457 problem documents for programs, a page for browsers. Never a traceback or a secret.

``reason``: the stable slug of ``scanner.errors``. ``hint``: what to do. ``request_id``: to quote to an administrator.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response, current_app, request
from pydantic import ValidationError
from werkzeug.exceptions import (
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
    TooManyRequests,
    Unauthorized,
)

from scanner.errors import (
    AdvisoriesUnavailable,
    ConflictError,
    ImageError,
    NotFoundError,
    RefusedError,
    RemoteError,
    ScannerError,
    UsageError,
)
from scanner.model.validation import plain_message
from web.security import request_id

_MOST_ERRORS = 100
log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

# What a member must look like, instead of the regular expression that it does not match.
_FORMS = {
    "image": "an image reference: host/repository:tag or host/repository@sha256:…",
    "host": "host[:port], without https://",
    "version": "a version range: <2.17.1, or >=2.0,<2.17.1, or one version",
    "environment": "a name: lower-case letters, digits, and . _ -",
    "digest": "a digest: sha256: and 64 lower-case hex digits",
}

# Reasons with a more specific status than their error class. The first match wins, then the classes below, in order.
_BY_REASON = {
    "bad_cursor": 404,  # there is no such page
    "not_signed_in": 401,
    "bad_token": 401,
    "oidc_refused": 401,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "edited_meanwhile": 412,
    "too_large": 413,
    "unsupported_media_type": 415,
    "invalid": 422,
    "bad_reference": 422,
    "bad_workload": 422,
    "bad_vex": 422,
    "bad_password": 422,
    "invalid_policy": 422,
    "precondition_required": 428,
    "rate_limited": 429,
    "db_unavailable": 503,
    "db_conflict": 503,
    # An operator upgraded or restored the database under a running server. The request is fine, so not 400.
    "db_not_at_head": 503,
    "db_busy": 503,
    "db_refused": 503,
    "db_missing": 503,
    "db_read_only": 503,
    "db_cannot_open": 503,
    "db_disk_error": 503,
    "db_not_a_database": 503,
    "db_damaged": 503,
    "disk_full": 503,
    "oidc_unavailable": 503,
}
_BY_KIND: tuple[tuple[type[ScannerError], int], ...] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (RefusedError, 403),
    (UsageError, 400),
    (ImageError, 422),
    (AdvisoriesUnavailable, 503),
    (RemoteError, 502),
)
_HTTP_REASONS = {
    400: "bad_request",
    401: "not_signed_in",
    403: "refused",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "rate_limited",
    500: "internal_error",
    503: "unavailable",
}


def status_of(error: ScannerError) -> int:
    """Map one of our errors to an HTTP status. 500 where no other party is at fault."""
    by_kind = next((status for kind, status in _BY_KIND if isinstance(error, kind)), 500)
    return _BY_REASON.get(error.reason, by_kind)


def problem(
    status: int,
    detail: str,
    reason: str,
    *,
    hint: str = "",
    errors: Iterable[dict[str, str]] = (),
    retry_after: float | None = None,
) -> Response:
    """Build a problem document. ``errors`` name wrong request members by JSON pointer or parameter."""
    document: dict[str, Any] = {
        "type": f"urn:dockwarden:problem:{reason.replace('_', '-')}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "reason": reason,
        "request_id": request_id(),
    }
    if hint:
        document["hint"] = hint
    if named := list(errors):
        document["errors"] = named
    response = Response(orjson.dumps(document), status, mimetype=MEDIA_TYPE)
    if retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(retry_after)))
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="dockwarden"'
    return _page(response, document) or response


def invalid(error: ValidationError) -> Response:
    """Answer 422 and name the wrong members. Sent values are not repeated: they may hold a secret."""
    # A body of thousands of unknown members would get an answer several times its size.
    places = [
        {"pointer": "/" + "/".join(map(str, one["loc"])), "message": _message(one)}
        for one in error.errors(include_input=False, include_url=False)[:_MOST_ERRORS]
    ]
    first = places[0] if places else {"pointer": "", "message": "not valid"}
    return problem(
        422, f"{first['pointer']}: {first['message']}", "invalid", hint="see /api/v1/openapi.json", errors=places
    )


def _message(error: Mapping[str, Any]) -> str:
    form = _FORMS.get(str(error["loc"][-1])) if error["loc"] and error["type"] == "string_pattern_mismatch" else None
    return f"must be {form}" if form else plain_message(error)


def install(app: Flask) -> None:
    """Make every error of the app a problem document or a page."""
    app.register_error_handler(ScannerError, _scanner_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _bug)


def _scanner_error(error: ScannerError) -> Response:
    status = status_of(error)
    if status == 412 and "If-Match" not in request.headers:
        status = 409  # two clients wrote at once without saying which version they had read
    if status >= 500:
        log.error("request failed", exc_info=status == 500, extra={"reason": error.reason, "request_id": request_id()})
    retry_after = error.retry_after if error.retry_after is not None else (5 if status == 503 else None)
    detail = str(error) if status != 500 else "Internal server error. The request was not carried out."
    errors = [
        {"pointer": f"/line/{p.line}/column/{p.column}", "message": f"{p.field}: {p.message}" if p.field else p.message}
        for p in getattr(error, "problems", ())
    ]
    if error.field and not errors:
        errors = [{"pointer": f"/{error.field}", "message": detail}]
    return problem(status, detail, error.reason, hint=error.hint, errors=errors, retry_after=retry_after)


def _http_error(error: HTTPException) -> Response:
    if error.response is not None:  # abort(response): already an answer
        return error.response  # type: ignore[return-value]
    status = error.code or 500
    detail, hint = error.description or "", ""
    if detail == NotFound.description:  # a route that does not exist: the library's text is long, and says nothing more
        detail = "there is nothing at this address"
        api = request.path.startswith("/api/")
        hint = "see /api/v1/openapi.json" if api else "check the address, or start from the overview"
    if detail == RequestEntityTooLarge.description:
        detail, hint = "the body is too large", "send less at once"
    response = problem(status, detail, _HTTP_REASONS.get(status, "bad_request"), hint=hint)
    if isinstance(error, (MethodNotAllowed, Unauthorized, TooManyRequests)):
        response.headers.update({name: value for name, value in error.get_headers() if name != "Content-Type"})
    return response


def _bug(error: Exception) -> Response:
    """The last boundary: an unexpected error is a bug.

    It is logged with its request id, and the caller learns nothing else.
    """
    log.exception("unexpected error", extra={"request_id": request_id(), "endpoint": request.endpoint or ""})
    return problem(
        500,
        "Internal server error. The request was not carried out.",
        "internal_error",
        hint="report the request id to an administrator",
    )


def _page(response: Response, document: dict[str, Any]) -> Response | None:
    """Return the problem as a page if the browser asked for HTML. The pages set ``error_page``."""
    render = current_app.extensions.get("error_page")
    if render is None or request.path.startswith(("/api/", "/webhooks/", "/healthz", "/readyz", "/metrics")):
        return None
    if request.accept_mimetypes.best_match(("text/html", MEDIA_TYPE, "application/json")) != "text/html":
        return None
    page: Response = render(document)
    page.headers.update({name: value for name, value in response.headers if name in ("Retry-After",)})
    return page
