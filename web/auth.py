"""Authentication and authorisation. Closed by default: a route without a permission answers nobody.

``@permission("scan")`` below a route is its row in the permission table. ``guard`` reads that table before anything
else in a request, so 401 and 403 come before 404 and 422. A caller authenticates with an API token in
``Authorization: Bearer``, or with a web session in a cookie; a changing request with a cookie must also prove that it
comes from our own pages.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flask import Flask, Response, current_app, g, request
from sqlalchemy.engine import Connection

from scanner.errors import NotFoundError, RefusedError, RemoteError, ScannerError
from scanner.model.access import ROLES, SCOPES
from scanner.model.actor import Actor
from scanner.services import accounts as account_use_cases
from scanner.services import sessions
from scanner.store import accounts, secrets
from scanner.store.gate import GateLookup
from web import kept_forms, oidc, places, security
from web.resources import resources
from web.security import https
from web.throttle import API, BAD_TOKEN_ADDRESS, SIGN_IN_ACCOUNT, SIGN_IN_ADDRESS, request_source

log = logging.getLogger(__name__)

PUBLIC = "public"
SIGNED_IN = "signed-in"
_ATTEMPT = "cookie|oidc|attempt"
# RFC 9110, 9.2.1: they change nothing, so they need no CSRF token.
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
# When a token was used is written at most this often: not every read should become a write.
_NOTED_EVERY = timedelta(minutes=1)
_HASHING = threading.BoundedSemaphore(2)

View = TypeVar("View", bound=Callable[..., Any])


def permission(
    name: str,
    *,
    authenticate: Callable[[], Actor] | None = None,
    admit: Callable[[], int] | None = None,
    body: int = security.BODY_LIMIT,
) -> Callable[[View], View]:
    """Set a view's row in the permission table. Place it below the route: ``@api.get(...)`` above, this below.

    ``authenticate`` replaces the default way to find the principal, for a view that finds it in its own query. It may
    leave an answer in ``g.ready``, which is sent only if the principal has the permission. ``admit`` checks the caller
    of a public view by its headers alone, before a body is read: it returns the allowed body size, or raises
    RefusedError.
    """
    if name not in (PUBLIC, SIGNED_IN, *SCOPES):
        raise ValueError(f"unknown permission: {name}")

    def mark(view: View) -> View:
        view.permission = name  # type: ignore[attr-defined]
        view.authenticate = authenticate or current_principal  # type: ignore[attr-defined]
        view.admit = admit or _strangers_body  # type: ignore[attr-defined]
        view.body = body  # type: ignore[attr-defined]
        return view

    return mark


def _strangers_body() -> int:
    return security.STRANGERS_BODY


def install(app: Flask) -> None:
    """Close the app. Only Flask's own static route is opened explicitly."""
    # Before the hooks of the API and the pages: what they do (read a body, open the database) must not happen for a
    # stranger.
    app.before_request(guard)
    app.jinja_env.globals["csrf_token"] = csrf_token
    app.jinja_env.globals["provider"] = provider_name
    permission(PUBLIC)(app.view_functions["static"])


def guard() -> Response | None:
    """Refuse the request unless the permission table allows its principal."""
    if request.routing_exception is not None or request.endpoint is None:
        return None  # answered 404 or 405; there is no view to protect
    view: Any = current_app.view_functions[request.endpoint]
    needed = getattr(view, "permission", None)
    if needed is None:
        raise RefusedError("this route is not available", reason="closed")
    if needed == PUBLIC or request.method == "OPTIONS":
        return security.admit(view.admit()) if security.admission() else None
    principal: Actor = view.authenticate()
    g.principal = principal
    # Authenticated first: a caller without a token learns only that, and not which permission a route needs.
    if needed != SIGNED_IN and not principal.may(needed):
        raise RefusedError(
            "you do not have permission to do this",
            reason="not_allowed",
            hint=f"required permission: {needed}; ask an administrator for a role or a token that has it",
        )
    # Only now: a large body is accepted from callers who may send one, never before their token was checked.
    if view.body > security.BODY_LIMIT:
        request.max_content_length = view.body
    if security.admission():
        return security.admit(view.body)
    ready: Response | None = g.get("ready")  # the answer of the view's own authentication query; only the gate has one
    return ready


def principal() -> Actor:
    """Return the principal of the request. Only for views that are not public."""
    found: Actor = g.principal
    return found


def everywhere() -> None:
    """Refuse an actor that is limited to some projects: users, registries and policies are global."""
    principal().require_every_project()


def current_principal() -> Actor:
    """The principal of an API token or a web session. Raises RefusedError (401)."""
    header = request.headers.get("Authorization", "")
    # A header wins over a cookie, and needs no check of the origin: no page of another site can make a browser send it.
    if header:
        found = _of_token(bearer(header))
    elif cookie := request.cookies.get(cookie_name()):
        check_same_origin()
        found = _of_session(cookie)
    else:
        raise RefusedError("not signed in", reason="not_signed_in", hint="send Authorization: Bearer <token>")
    if resources().settings.rate_limits:
        resources().throttle.take("api", found.id, API)
    return found


def bearer(header: str) -> str:
    """The token in an Authorization header.

    Raises RefusedError (401) for another scheme, with the error of a wrong token.
    """
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise bad_token()
    return token.strip()


def bad_token() -> RefusedError:
    """Return the same error for a wrong, expired, revoked and malformed token.

    Different errors would tell an attacker which guesses were close.
    """
    return RefusedError("the token is not valid", reason="bad_token", hint="create one with `dockwarden token create`")


def throttle_bad_tokens(found: bool) -> None:
    """Count a failed token against its address. Raises RefusedError (429) for an address with too many.

    Called after a token was looked up, so that a valid one is never refused: strangers behind the same proxy or NAT
    could otherwise stop the gate and the doors with wrong tokens.
    """
    if not found and resources().settings.rate_limits:
        throttle, source = resources().throttle, request_source()
        throttle.check("bad-token", source, BAD_TOKEN_ADDRESS)
        throttle.spend("bad-token", source, BAD_TOKEN_ADDRESS)


@dataclass(frozen=True)
class GateCaller:
    """A token that was found by the gate's query. ``token_hash`` is the hash that found it."""

    actor: Actor
    lookup: GateLookup
    token_hash: str


def gate_caller(text: str, digest: str = "", repository: str = "", environment: str = "") -> GateCaller:
    """Authenticate a token, and in the same query read the current decision about ``digest``.

    Raises RefusedError (401, or 429 after many wrong ones).
    """
    # Several hashes while the secret key is being rotated: the current key's first, which nearly always finds it.
    known = accounts.hashes(text, resources().secret_key)
    asked = None
    for token_hash in known:
        asked = resources().gate.ask(token_hash, digest, repository, environment)
        if asked is not None:
            break
    throttle_bad_tokens(asked is not None)
    if asked is None:
        raise bad_token()
    # The only write of a gate call, at most once in a while for each token: the gate's answer should not
    # wait for the write lock of SQLite.
    if asked.unnoted:
        _note_use(lambda session: accounts.touch_token(session, asked.token_id, known[0]))
    actor = token_principal(
        asked.token_id, asked.name, asked.scopes, asked.projects, owner_id=asked.owner_id, owner_role=asked.owner_role
    )
    return GateCaller(actor, asked, token_hash)


def _of_token(text: str) -> Actor:
    with resources().database.read() as session:
        token = accounts.find_token(session, text, resources().secret_key)
    throttle_bad_tokens(token is not None)
    if token is None:
        raise bad_token()
    if token.last_used_at is None or datetime.now(UTC) - token.last_used_at > _NOTED_EVERY:
        newest = accounts.hash_token(text, resources().secret_key)
        _note_use(lambda session: accounts.touch_token(session, token.id, newest))
    return of_token(token)


def _note_use(write: Callable[[Connection], None]) -> None:
    """Write when a token or a session was last used. The request goes on without it: a database whose disk is full, or
    that can only be read for now, still answers what it has.
    """
    try:
        with resources().database.session() as session:
            write(session)
    except RemoteError as error:
        log.warning("the last use of a token or session is not written: %s", error)


def of_token(token: accounts.TokenView) -> Actor:
    """The actor of a token: its scopes, limited to what its owner may still do."""
    return token_principal(
        token.id,
        token.name,
        token.scopes,
        token.reach,
        owner_id=token.owner_id,
        owner_role=token.owner_role,
        owner_name=token.owner_name,
    )


def token_principal(
    token_id: str,
    name: str,
    scopes: Iterable[str],
    projects: frozenset[str] | None,
    *,
    owner_id: str | None,
    owner_role: str,
    owner_name: str = "",
) -> Actor:
    """See ``of_token``. For callers that have already read the token's row."""
    # Computed at each request: a token is never stronger than its owner is now.
    allowed = frozenset(scopes) & (ROLES.get(owner_role, frozenset()) if owner_id else frozenset(SCOPES))
    return Actor(
        id=f"token:{token_id}",
        name=f"token {name}",
        kind="token",
        permissions=allowed,
        projects=projects,
        token_id=token_id,
        user_id=owner_id or "",
        user_name=owner_name,
        address=address(),
    )


def of_user(user: accounts.UserView) -> Actor:
    return Actor(
        f"user:{user.id}",
        user.name,
        "user",
        ROLES.get(user.role, frozenset()),
        projects=user.reach,
        user_id=user.id,
        user_name=user.name,
        address=address(),
    )


# Web sessions


def cookie_name() -> str:
    """``__Host-`` binds the cookie to this host and to https; browsers refuse it over plain HTTP."""
    return "__Host-dockwarden" if https(resources().settings) else "dockwarden"


def check_same_origin() -> None:
    """Check that a changing request with a cookie comes from our own pages: by its origin, and by a token only they
    have.

    ``Sec-Fetch-Site`` is set by the browser and cannot be forged by a page. Older browsers send ``Origin``. A request
    with neither is refused.
    """
    if request.method in _SAFE_METHODS:
        return
    check_origin()
    if security.admission():
        return  # the form with its token is not read yet; it is checked again afterwards
    is_form = request.mimetype in _FORMS
    sent = request.headers.get("X-CSRFToken", "") or (request.form.get("csrf_token", "") if is_form else "")
    if not hmac.compare_digest(sent.encode(), csrf_token().encode()) and not (is_form and kept_forms.is_kept()):
        raise RefusedError(
            "the form has expired or comes from another site", reason="csrf", hint="reload the page and submit it again"
        )


def check_origin() -> None:
    """Refuse requests that another site makes a browser send.

    Also for the sign-in form, which has no session and token yet.
    """
    fetch_site = request.headers.get("Sec-Fetch-Site", "")
    if fetch_site:
        allowed = fetch_site in ("same-origin", "none")
    else:
        origin = urlsplit(request.headers.get("Origin", ""))
        # Both names: behind a proxy the host of the request can be an inner one. The empty name is removed, because a
        # missing Origin has it as well.
        ours = {urlsplit(resources().settings.public_url).netloc, request.host} - {""}
        allowed = origin.netloc in ours
    if not allowed:
        raise RefusedError("the request comes from another site", reason="csrf")


def csrf_token() -> str:
    """The token of the session's forms.

    It is derived from the session, so it needs no storage and no expiry of its own.
    """
    # The session that this very request has begun comes first: its cookie is not in the request yet.
    session_id = g.get("web_session") or request.cookies.get(cookie_name(), "")
    return hmac.new(
        resources().secret_key.reveal().encode(), b"csrf|" + session_id.encode(), hashlib.sha256
    ).hexdigest()


def sign_in_with_password(name: str, password: str) -> Callable[[Response], Response]:
    """Check a password and begin a web session. Returns a function that adds the cookies to a response.

    Raises RefusedError: 401 for a wrong name or password, with the same message; 429 for too many attempts.
    """
    check_origin()
    # Counted before the password is verified. An attacker must not have the server hash as many guesses as it can
    # send.
    places.take(name, cookie_name())
    with _HASHING, resources().database.read() as session:  # argon2id needs 64 MiB for each, so only two run at once
        user = accounts.verify_password(session, name, password)
    if user is None:
        places.failed(name)
        _note_refusal(name)
        raise RefusedError("the name or the password is wrong", reason="not_signed_in")
    # A new session id at each sign-in, so that an id that was planted in the browser before is worthless (fixation).
    begun = _begin(of_user(user), via="password")

    def with_cookies(response: Response) -> Response:
        answer = begun(response)
        places.remember(answer, name, cookie_name())
        return answer

    return with_cookies


def begin_at_provider(target: str) -> Response:
    """Redirect the browser to the identity provider. ``target`` is the page to show after sign-in."""
    attempt = oidc.Attempt.new()
    sealed = secrets.seal(oidc.seal_text(attempt, target), resources().secret_key, _ATTEMPT)
    location = _provider().address(attempt, _redirect_uri())
    response = Response(status=303, headers={"Location": location})
    value = base64.urlsafe_b64encode(sealed).decode()
    # Not Strict: the provider's redirect comes from another site, and must bring this cookie back.
    security.set_private_cookie(response, resources().settings, _attempt_cookie(), value, 600, "Lax")
    return response


def provider_name() -> str:
    """Name of the configured identity provider. Empty if there is none."""
    found = resources().provider
    return found.name if found else ""


def sign_in_at_provider() -> tuple[Callable[[Response], Response], str]:
    """Process the answer of the identity provider, and begin a web session. Also returns the page to show.

    Raises RefusedError if the answer does not belong to this browser's attempt, is invalid, or the user's groups must
    not sign in.
    """
    if resources().settings.rate_limits:
        resources().throttle.take("sign-in-address", request_source(), SIGN_IN_ADDRESS)
    attempt, target = _attempt()
    # Without it, an attacker could sign a victim's browser in to the attacker's account (OpenID Connect Core 3.1.2.1).
    if not hmac.compare_digest(request.args.get("state", "").encode(), attempt.state.encode()):
        raise RefusedError(
            "the response belongs to another sign-in attempt", reason="oidc_refused", hint="sign in again"
        )
    if request.args.get("iss", _provider().issuer) != _provider().issuer:  # RFC 9207: mix-up of two providers
        raise RefusedError("the response is from another provider", reason="oidc_refused", hint="sign in again")
    if request.args.get("error") or not request.args.get("code"):
        raise RefusedError("the identity provider did not sign you in", reason="oidc_refused", hint="sign in again")
    who = _provider().identify(attempt, request.args["code"], _redirect_uri())
    role = _provider().role(who.groups)
    with resources().database.session() as session:
        user = account_use_cases.from_provider(session, who, role, address())
    begun = _begin(of_user(user), via=f"oidc {_provider().name}")

    def with_cookie(response: Response) -> Response:
        response.delete_cookie(_attempt_cookie(), path="/", secure=https(resources().settings), httponly=True)
        return begun(response)

    return with_cookie, target


def _attempt() -> tuple[oidc.Attempt, str]:
    """Return the sign-in attempt of this browser."""
    try:
        sealed = base64.urlsafe_b64decode(request.cookies.get(_attempt_cookie(), ""))
        found = oidc.unseal_text(secrets.unseal(sealed, resources().secret_key, _ATTEMPT))
    except (ValueError, ScannerError):
        found = None
    if found is None:
        raise RefusedError(
            "this sign-in attempt has expired or started in another browser",
            reason="oidc_refused",
            hint="sign in again",
        )
    return found


def _attempt_cookie() -> str:
    return cookie_name() + "-oidc"


def _provider() -> oidc.Provider:
    found = resources().provider
    if found is None:
        raise NotFoundError("no identity provider is configured", hint="see docs/accounts.md")
    return found


def _redirect_uri() -> str:
    base = resources().settings.public_url or request.host_url
    return base.rstrip("/") + "/sign-in/oidc/callback"


def sign_in_with_token(text: str) -> Callable[[Response], Response]:
    """Begin a web session with an API token, the only way to sign in after the first run. Raises like
    ``sign_in_with_password``.
    """
    check_origin()
    places.take(text[:11], cookie_name())
    with resources().database.read() as session:
        token = accounts.find_token(session, text, resources().secret_key)
    if token is None:
        raise bad_token()
    return _begin(of_token(token), via="token")


def _note_refusal(name: str) -> None:
    """Record a wrong password only for an existing user: another name may be a password in the wrong field."""
    with resources().database.session() as session:
        if known := accounts.find_user(session, name):
            sessions.refuse(session, of_user(known))


def sign_out() -> Callable[[Response], Response]:
    """End the web session of this request. The returned function removes its cookie from a response."""
    name, secure = cookie_name(), https(resources().settings)
    if cookie := request.cookies.get(name):
        with resources().database.session() as session:
            sessions.end(session, principal(), resources().secret_key, cookie)

    def without_cookie(response: Response) -> Response:
        response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="Lax")
        return response

    return without_cookie


def change_own_password(current: str, new: str) -> None:
    """See ``scanner.services.accounts.change_own_password``. A wrong current password counts like a failed sign-in."""
    account_use_cases.require_own_password(principal())
    if resources().settings.rate_limits:
        resources().throttle.take("own-password", principal().id, SIGN_IN_ACCOUNT)
    with resources().database.session() as session:
        account_use_cases.change_own_password(session, principal(), current, new)


def current_session_id() -> str:
    """The id of the request's web session; empty for a token."""
    cookie = g.get("web_session") or request.cookies.get(cookie_name(), "")
    return accounts.hash_token(cookie, resources().secret_key) if cookie else ""


def address() -> str:
    """Return the client address for the audit log."""
    return request.remote_addr or ""


def _begin(actor: Actor, *, via: str) -> Callable[[Response], Response]:
    # The former session of this browser ends with the new one. Otherwise a stolen cookie would outlive the owner's
    # new sign-in.
    former, agent = request.cookies.get(cookie_name(), ""), request.headers.get("User-Agent", "")
    with resources().database.session() as session:
        text = sessions.begin(session, actor, resources().secret_key, former=former, agent=agent, via=via)
    g.web_session = text.reveal()

    def with_cookie(response: Response) -> Response:
        life = accounts.SESSION_LIFE.total_seconds()
        security.set_private_cookie(response, resources().settings, cookie_name(), text.reveal(), life, "Lax")
        return response

    return with_cookie


def _of_session(cookie: str) -> Actor:
    with resources().database.read() as session:
        found = accounts.find_session(session, cookie, resources().secret_key)
    if found is None:
        raise RefusedError("the session has ended", reason="not_signed_in", hint="sign in again")
    if found.stale:
        _note_use(lambda session: accounts.touch_session(session, cookie, resources().secret_key))
    if found.user:
        return of_user(found.user)
    assert found.token
    return of_token(found.token)
