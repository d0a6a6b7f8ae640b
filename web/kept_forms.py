"""The entries of a form that was not carried out can be submitted later: also after a new sign-in, in one click.

The form's usual token is derived from the session, so a new session does not accept it. An error page that keeps
entries therefore gives its form a second token, which is bound to this browser by a cookie, and to the form's address.
Another site can neither read the token nor have the browser send its own pair: the cookie is ``SameSite=Strict``, over
https its name has ``__Host-``, and the origin of the request is checked as well.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from flask import Response, request

from scanner.config import Settings
from web.resources import resources
from web.security import https, set_private_cookie

FIELD = "kept_form_token"
_KEY = re.compile(r"[A-Za-z0-9_-]{43}")
_SECONDS = 12 * 3600  # as long as a person may leave the page open


def new_token() -> tuple[str, str]:
    """Return the token for the entries of this request, and the key of this browser that ``remember`` needs."""
    key = _key_of_browser() or secrets.token_urlsafe(32)
    return _token(key), key


def remember(response: Response, key: str) -> Response:
    """Leave the key in the browser. It is no credential: without a session it opens nothing."""
    settings = resources().settings
    set_private_cookie(response, settings, _cookie(settings), key, _SECONDS, "Strict")
    return response


def is_kept() -> bool:
    """Whether this request submits entries that an error page kept in this browser for this address."""
    key = _key_of_browser()
    return bool(key) and hmac.compare_digest(request.form.get(FIELD, "").encode(), _token(key).encode())


def _key_of_browser() -> str:
    sent = request.cookies.get(_cookie(resources().settings), "")
    return sent if _KEY.fullmatch(sent) else ""


def _token(key: str) -> str:
    about = f"kept form|{key}|{request.path}"
    return hmac.new(resources().secret_key.reveal().encode(), about.encode(), hashlib.sha256).hexdigest()


def _cookie(settings: Settings) -> str:
    return ("__Host-" if https(settings) else "") + "dockwarden-kept"
