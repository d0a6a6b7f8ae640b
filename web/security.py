"""Around every request: an id, a bound on its size, and the headers a browser needs to hold our pages together.

Trusted proxies are counted (``trusted_proxies``): with 0, ``X-Forwarded-*`` is what any caller may write, and is not
read.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, has_request_context, request
from flask.wrappers import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.middleware.proxy_fix import ProxyFix

from scanner.config import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

BODY_LIMIT = 1 << 20
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

# A page's policy (dependencies: htmx 4 with its CSP extension needs a nonce and its own Trusted Types policy, nothing
# more).
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
# CVE-2023-30861: an answer made for one principal must never be another's from a cache.
_PRIVATE = (("Cache-Control", "no-store"), ("Vary", "Authorization, Cookie"))
_ID, _STARTED, _NONCE = "dockwarden.request_id", "dockwarden.started", "dockwarden.nonce"


@dataclass(slots=True)
class Admission:
    """A request whose body has not been read yet, judged by its headers.

    ``allowed``: bytes to read of it; None: refused.
    """

    allowed: int | None = None


ADMISSION, LEAVING = "dockwarden.admission", "dockwarden.leaving"
STRANGERS_BODY = 64 << 10  # what a route that anybody may call reads of a body that is late or long


def install(app: Flask, settings: Settings) -> None:
    """Attach to an app. What wraps it is below Flask, so that no answer escapes it, whatever fails above."""
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


class Envelope:
    """Names a request before Flask sees it, and puts the headers on its answer.

    WSGI, because there it costs next to nothing.
    """

    def __init__(self, app: WSGIApplication, static_path: str | None) -> None:
        self._app = app
        self._static = f"{static_path}/"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        sent = environ.get("HTTP_X_REQUEST_ID", "")
        environ[_ID] = sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(8)  # theirs only if fit for a log
        environ[_STARTED] = time.perf_counter()

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, self._dressed(environ, headers), *more)

        return self._app(environ, start)

    def _dressed(self, environ: WSGIEnvironment, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        is_page = any(name == "Content-Type" and value.startswith("text/html") for name, value in headers)
        policy = _PAGE_CSP.format(nonce=_nonce(environ)) if is_page else _DATA_CSP
        dressed = [*headers, *_ALWAYS, ("Content-Security-Policy", policy), ("X-Request-Id", environ[_ID])]
        if not environ.get("PATH_INFO", "").startswith(self._static):
            dressed += _PRIVATE
        if environ["wsgi.url_scheme"] == "https":
            dressed.append(("Strict-Transport-Security", "max-age=63072000; includeSubDomains"))
        return dressed


def bare_headers() -> tuple[tuple[str, str], ...]:
    """The headers of an answer that the application did not make."""
    return (*_ALWAYS, ("Content-Security-Policy", _DATA_CSP), *_PRIVATE)


def admission() -> Admission | None:
    """Set while only the headers of a request are judged: its body has not been read."""
    found: Admission | None = request.environ.get(ADMISSION)
    return found


def admit(limit: int = BODY_LIMIT) -> Response:
    """Let the body of this request be read, up to ``limit`` bytes."""
    asked = admission()
    assert asked is not None
    asked.allowed = limit
    return Response(status=204)


def leaving() -> threading.Event:
    """Set when this process is about to end: what waits for something else then answers with what it has."""
    found: threading.Event = request.environ.get(LEAVING) or threading.Event()
    return found


def request_id() -> str:
    """The request id in the log, the response and bug reports."""
    found: str = request.environ[_ID] if has_request_context() else ""
    return found


def elapsed() -> float:
    """Seconds since this request came in."""
    return time.perf_counter() - float(request.environ[_STARTED])


def csp_nonce() -> str:
    """The nonce of this answer, for a page's script and style elements."""
    return _nonce(request.environ)


def _nonce(environ: WSGIEnvironment) -> str:
    if _NONCE not in environ:
        environ[_NONCE] = secrets.token_urlsafe(16)
    nonce: str = environ[_NONCE]
    return nonce


def read_body(limit: int = BODY_LIMIT) -> bytes:
    """The raw body, at most ``limit`` bytes, refused by its announced length before a byte is read, and by count
    where none is announced.
    """
    asked: Request = request
    if (asked.content_length or 0) > limit:
        raise RequestEntityTooLarge(f"the body is larger than {limit} bytes")
    asked.max_content_length = limit
    return asked.get_data(cache=True)


def https(settings: Settings) -> bool:
    """Whether browsers reach us by https: cookies then are ``Secure`` and ``__Host-``."""
    return settings.public_url.startswith("https://") or request.is_secure
