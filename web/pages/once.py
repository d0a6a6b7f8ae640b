"""A new secret is shown on the page after the form, once: the answer to the form only redirects, so a reload makes
no second secret.

Between the two it travels in the browser's own cookie, encrypted for this session and gone after the first look. The
server keeps nothing: what was not read is lost, and has to be made anew.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

import orjson
from flask import Response, request

from scanner.config import Secret
from scanner.errors import ScannerError
from scanner.store import secrets
from web.auth import cookie_name, current_session_id, principal
from web.resources import resources
from web.security import https

_SECONDS = 120


def carry(response: Response, values: Mapping[str, str]) -> Response:
    """Give ``values`` to the next page of this session."""
    sealed = secrets.seal(Secret(orjson.dumps(dict(values)).decode()), resources().secret_key, _place())
    response.set_cookie(
        _name(),
        base64.urlsafe_b64encode(sealed).decode(),
        path="/",
        secure=https(resources().settings),
        httponly=True,
        samesite="Strict",
        max_age=_SECONDS,
    )
    return response


def carried() -> dict[str, str]:
    """What the form before gave to this page; empty: nothing. `drop` belongs into the answer."""
    try:
        sealed = base64.urlsafe_b64decode(request.cookies.get(_name(), ""))
        found: dict[str, str] = orjson.loads(secrets.unseal(sealed, resources().secret_key, _place()).reveal())
    except (ValueError, ScannerError):
        return {}
    return found


def drop(response: Response) -> Response:
    """Take the values from the browser: the next look shows nothing."""
    if request.cookies.get(_name()):
        response.delete_cookie(_name(), path="/", secure=https(resources().settings), httponly=True, samesite="Strict")
    return response


def _name() -> str:
    return cookie_name() + "-once"


def _place() -> str:
    """Bound to who made it and to their session: in another browser the cookie opens nothing."""
    return f"cookie|{principal().id}|{current_session_id()}|once"
