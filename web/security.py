"""Around every request: an id, a bound on its size, and the headers a browser needs to hold our pages together.

Trusted proxies are counted (``trusted_proxies``): with 0, ``X-Forwarded-*`` is what any caller may write, and is not read.
"""

from __future__ import annotations

import re
import secrets

from flask import Flask, Response, g, request
from flask.wrappers import Request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.middleware.proxy_fix import ProxyFix

from scanner.config import Settings

BODY_LIMIT = 1 << 20
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

# A page's policy (dependencies: htmx 4 with its CSP extension needs a nonce and its own Trusted Types policy, nothing more).
_PAGE_CSP = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; font-src 'self'; "
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


def install(app: Flask, settings: Settings) -> None:
    """Attach to an app. The first thing ``create_app`` does, so that no answer escapes it."""
    app.config["MAX_CONTENT_LENGTH"] = BODY_LIMIT
    app.config["MAX_FORM_MEMORY_SIZE"] = 64 << 10
    app.config["MAX_FORM_PARTS"] = 50
    app.config["DEBUG"] = False
    app.config["PROPAGATE_EXCEPTIONS"] = False
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]
    app.before_request(_name_request)
    app.after_request(_headers)
    app.jinja_env.globals["csp_nonce"] = csp_nonce


def csp_nonce() -> str:
    """The nonce of this answer, for a page's script and style elements."""
    if "csp_nonce" not in g:
        g.csp_nonce = secrets.token_urlsafe(16)
    nonce: str = g.csp_nonce
    return nonce


def read_body(limit: int = BODY_LIMIT) -> bytes:
    """The raw body, at most ``limit`` bytes, refused by its announced length before a byte is read, and by count where none is announced."""
    asked: Request = request
    if (asked.content_length or 0) > limit:
        raise RequestEntityTooLarge(f"the body is larger than {limit} bytes")
    asked.max_content_length = limit
    return asked.get_data(cache=True)


def https(settings: Settings) -> bool:
    """Whether browsers reach us by https: cookies then are ``Secure`` and ``__Host-``."""
    return settings.public_url.startswith("https://") or request.is_secure


def _name_request() -> None:
    """Our own id, unless a caller sent one that is fit for a log."""
    sent = request.headers.get("X-Request-Id", "")
    g.request_id = sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(8)


def _headers(response: Response) -> Response:
    headers = response.headers
    for name, value in _ALWAYS:
        headers[name] = value
    is_page = response.mimetype == "text/html"
    headers["Content-Security-Policy"] = _PAGE_CSP.format(nonce=csp_nonce()) if is_page else _DATA_CSP
    headers["X-Request-Id"] = g.get("request_id", "")
    if request.endpoint != "static":
        # CVE-2023-30861: an answer made for one principal must never be another's from a cache.
        headers["Cache-Control"] = "no-store"
        headers.add("Vary", "Authorization, Cookie")
    if request.is_secure:
        headers["Strict-Transport-Security"] = "max-age=63072000; includeSubDomains"
    return response
