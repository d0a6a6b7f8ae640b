"""Rate limits for sign-in, by place: wrong passwords sent from elsewhere must not lock a user out.

A place is known by a cookie that a successful sign-in leaves (OWASP: device cookies), or by a session of the same user
from the same address. A known place has its own bucket, which no other place can empty. Unknown places share the
buckets of their address and, if many guess at once, those of the account and of the whole service. Guessing becomes
slow, and no account is ever locked.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta

from flask import Response, request

from scanner.config import Secret
from scanner.errors import ScannerError
from scanner.store import accounts, secrets
from web.resources import resources
from web.security import set_private_cookie
from web.throttle import (
    SIGN_IN_ACCOUNT,
    SIGN_IN_ACCOUNT_FAILURES,
    SIGN_IN_ADDRESS,
    SIGN_IN_FAILURES,
    request_source,
)

_KEPT = timedelta(days=180)  # a browser that was away for longer is new again
_SEALED = "cookie|known-place"
_SHARED = "*"


def take(account: str, session_cookie: str) -> None:
    """Count one attempt for an account from the source of this request. Raises RefusedError (429).

    ``account`` is a user's name, or the public part of a token.
    """
    if not resources().settings.rate_limits:
        return
    throttle, account = resources().throttle, _folded_account(account)
    # A browser that has signed in before has buckets of its own, so that guesses from elsewhere cannot lock its owner
    # out.
    if place := _known_place(account, session_cookie):
        throttle.take("sign-in-known", f"{place}|{account}", SIGN_IN_ACCOUNT)
        return
    source = request_source()
    # By address, by account and address, by account, and over all: guesses at one password from many addresses and at
    # many accounts from one address meet different limits.
    throttle.take("sign-in-address", source, SIGN_IN_ADDRESS)
    throttle.take("sign-in-account", f"{source}|{account}", SIGN_IN_ACCOUNT)
    throttle.check("sign-in-account-failures", account, SIGN_IN_ACCOUNT_FAILURES)
    throttle.check("sign-in-failures", _SHARED, SIGN_IN_FAILURES)


def failed(account: str) -> None:
    """Count a wrong password for the account and for the service, from any address."""
    if resources().settings.rate_limits:
        resources().throttle.spend("sign-in-account-failures", _folded_account(account), SIGN_IN_ACCOUNT_FAILURES)
        resources().throttle.spend("sign-in-failures", _SHARED, SIGN_IN_FAILURES)


def remember(response: Response, account: str, session_cookie: str) -> None:
    """Mark the browser as a known place of this account. The cookie is not a credential."""
    sealed = secrets.seal(Secret(_folded_account(account)), resources().secret_key, _SEALED)
    value = base64.urlsafe_b64encode(sealed).decode()
    set_private_cookie(response, resources().settings, _cookie(session_cookie), value, _KEPT.total_seconds(), "Lax")


def _known_place(account: str, session_cookie: str) -> str:
    """A key for the place of this request, if the account has signed in there before; otherwise empty."""
    try:
        sealed = base64.urlsafe_b64decode(request.cookies.get(_cookie(session_cookie), ""))
        if sealed and secrets.unseal(sealed, resources().secret_key, _SEALED).reveal() == account:
            return hashlib.sha256(sealed).hexdigest()
    except (ValueError, ScannerError):
        pass
    address = request.remote_addr or ""
    with resources().database.read() as session:
        return f"address|{address}" if accounts.has_session_from(session, account, address) else ""


def _cookie(session_cookie: str) -> str:
    return f"{session_cookie}-known-place"


def _folded_account(account: str) -> str:
    return account.casefold()[:200]
