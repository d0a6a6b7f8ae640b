"""A new secret is shown once, on the page after the form. The answer to the form is a redirect, so a reload creates no
second secret.

In between, the browser has the secret in a cookie, encrypted for this session and deleted when shown. The server stores
nothing: a secret that was not read is lost, and must be created again.
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
from web.security import https, set_private_cookie

_SECONDS = 120  # a secret that was not shown by then is gone; a new one can be made


def carry(response: Response, values: Mapping[str, str]) -> Response:
    """Pass ``values`` to the next page of this session."""
    sealed = secrets.seal(Secret(orjson.dumps(dict(values)).decode()), resources().secret_key, _place())
    value = base64.urlsafe_b64encode(sealed).decode()
    set_private_cookie(response, resources().settings, _name(), value, _SECONDS, "Strict")
    return response


def carried_values() -> dict[str, str]:
    """The values that the form passed to this page; empty if there are none. The answer must use ``drop``."""
    try:
        sealed = base64.urlsafe_b64decode(request.cookies.get(_name(), ""))
        found: dict[str, str] = orjson.loads(secrets.unseal(sealed, resources().secret_key, _place()).reveal())
    # Expired, of another session, or changed by hand. The page is then shown without the values: they cannot be had
    # again.
    except (ValueError, ScannerError):
        return {}
    return found


def drop(response: Response) -> Response:
    """Delete the values from the browser, so that they are not shown again."""
    if request.cookies.get(_name()):
        response.delete_cookie(_name(), path="/", secure=https(resources().settings), httponly=True, samesite="Strict")
    return response


def _name() -> str:
    return cookie_name() + "-once"


def _place() -> str:
    """Context that binds the cookie to its user and session: in another browser it cannot be decrypted."""
    return f"cookie|{principal().id}|{current_session_id()}|once"
