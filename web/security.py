"""For every request: an id, a size limit, and the security headers of the answer.

Trusted proxies are counted (``trusted_proxies``). With 0, ``X-Forwarded-*`` is ignored, because any caller can send it.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, has_request_context, request
from flask.wrappers import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.middleware.proxy_fix import ProxyFix

from scanner.config import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Bytes; routes with larger bodies say so.
BODY_LIMIT = 1 << 20
# A proxy's own id is taken if it can be written to a log as it is.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

# The policy of pages. htmx 4 with its CSP extension needs a nonce and its own Trusted Types policy, nothing more.
_PAGE_CSP = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; img-src 'self' "
    "data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types htmx"
)
_DATA_CSP = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox"
_ALWAYS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
# CVE-2023-30861: a cache must never serve the answer for one principal to another.
_PRIVATE = (("Cache-Control", "no-store"), ("Vary", "Authorization, Cookie"))
_ID, _STARTED, _NONCE = "dockwarden.request_id", "dockwarden.started", "dockwarden.nonce"


@dataclass(slots=True)
class Admission:
    """The decision by headers alone, before the body is read. ``allowed``: bytes of the body to read; None: refused."""

    allowed: int | None = None


@dataclass(slots=True)
class Later:
    """Lets a view return before the body of its answer is known, so that no thread waits for it.

    The view sets ``begin`` and returns an answer with status and headers. ``begin`` is called with two functions; one
    of them is called from any thread, once: ``answer(body)`` sends the answer, ``again(error)`` lets a thread answer
    the request from its beginning, without a Later, and with ``error`` if there is one (`is_again`). What is in
    ``then`` runs after the answer.
    ``coming``: the number of requests of this kind that are being answered now and have not begun to wait.
    """

    coming: Callable[[], int]
    begin: Callable[[Callable[[bytes], None], Callable[[Exception | None], None]], None] | None = None
    then: list[Callable[[], object]] = field(default_factory=list)


ADMISSION, LEAVING = "dockwarden.admission", "dockwarden.leaving"
LATER, FAILURE = "dockwarden.later", "dockwarden.failure"
STRANGERS_BODY = 64 << 10  # limit of a late or long body on a route without authentication


def install(app: Flask, settings: Settings) -> None:
    """Attach to an app, below Flask: every answer gets the headers, even if something above fails."""
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    app.config["MAX_FORM_MEMORY_SIZE"] = 64 << 10
    app.config["MAX_FORM_PARTS"] = 50
    app.config["DEBUG"] = False
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.wsgi_app = Envelope(app.wsgi_app, app.static_url_path)  # type: ignore[method-assign]
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    app.jinja_env.globals["csp_nonce"] = csp_nonce
    app.jinja_env.globals["body_limit"] = BODY_LIMIT


class Envelope:
    """Gives a request its id before Flask sees it, and adds the headers to its answer.

    As WSGI this costs almost nothing.
    """

    def __init__(self, app: WSGIApplication, static_path: str | None) -> None:
        self._app = app
        self._static = f"{static_path}/"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        sent = environ.get("HTTP_X_REQUEST_ID", "")
        # The caller's id only if it is safe for logs.
        environ[_ID] = sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(8)
        environ[_STARTED] = time.perf_counter()

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, self._with_headers(environ, headers), *more)

        return self._app(environ, start)

    def _with_headers(self, environ: WSGIEnvironment, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        is_page = any(name == "Content-Type" and value.startswith("text/html") for name, value in headers)
        policy = _PAGE_CSP.format(nonce=_nonce(environ)) if is_page else _DATA_CSP
        dressed = [*headers, *_ALWAYS, ("Content-Security-Policy", policy), ("X-Request-Id", environ[_ID])]
        if not environ.get("PATH_INFO", "").startswith(self._static):
            dressed += _PRIVATE
        if environ["wsgi.url_scheme"] == "https":
            dressed.append(("Strict-Transport-Security", "max-age=63072000; includeSubDomains"))
        return dressed


def bare_headers() -> tuple[tuple[str, str], ...]:
    """The headers of an answer that did not come from the application."""
    return (*_ALWAYS, ("Content-Security-Policy", _DATA_CSP), *_PRIVATE)


def admission() -> Admission | None:
    """Set while a request is checked by its headers alone, before its body is read."""
    found: Admission | None = request.environ.get(ADMISSION)
    return found


def admit(limit: int = BODY_LIMIT) -> Response:
    """Let the body of this request be read, up to ``limit`` bytes."""
    pending = admission()
    assert pending is not None
    pending.allowed = limit
    return Response(status=204)


def shutdown_event() -> threading.Event:
    """Set when this process is about to end: waiting requests then answer with what they have."""
    found: threading.Event = request.environ.get(LEAVING) or threading.Event()
    return found


def later() -> Later | None:
    """The way to answer this request later; None if the server has none, or the request is answered again."""
    found: Later | None = request.environ.get(LATER)
    return found


def is_again() -> bool:
    """Whether this request is answered again, after `Later.begin`. Raises the error that made it necessary, if any."""
    error: Exception | None = request.environ.get(FAILURE)
    if error is not None:
        raise error
    return FAILURE in request.environ


def after_answer(work: Callable[[], object]) -> None:
    """Run ``work`` now, or after the answer if that comes later. Never, if the request is answered again."""
    pending = later()
    if pending is not None and pending.begin is not None:
        pending.then.append(work)
    else:
        work()


def request_id() -> str:
    """The request id in the log, the response and bug reports."""
    found: str = request.environ[_ID] if has_request_context() else ""
    return found


def arrival_time() -> float:
    """When this request arrived, by `time.perf_counter`."""
    return float(request.environ[_STARTED])


def csp_nonce() -> str:
    """The nonce of this answer's Content-Security-Policy, for script and style elements."""
    return _nonce(request.environ)


def _nonce(environ: WSGIEnvironment) -> str:
    if _NONCE not in environ:
        environ[_NONCE] = secrets.token_urlsafe(16)
    nonce: str = environ[_NONCE]
    return nonce


def read_body(limit: int = BODY_LIMIT) -> bytes:
    """The raw body, at most ``limit`` bytes.

    A larger Content-Length is refused before anything is read; without one the bytes are counted. Raises
    RequestEntityTooLarge.
    """
    current: Request = request
    if (current.content_length or 0) > limit:
        raise RequestEntityTooLarge(f"the body is larger than {limit} bytes")
    current.max_content_length = limit
    return current.get_data(cache=True)


def https(settings: Settings) -> bool:
    """Whether browsers use https: cookies are then ``Secure`` and have the ``__Host-`` prefix."""
    return settings.public_url.startswith("https://") or request.is_secure


def set_private_cookie(
    response: Response, settings: Settings, name: str, value: str, seconds: float, samesite: str
) -> None:
    """Set a cookie of the whole server that no script can read, for ``seconds``."""
    response.set_cookie(
        name, value, path="/", secure=https(settings), httponly=True, samesite=samesite, max_age=int(seconds)
    )
