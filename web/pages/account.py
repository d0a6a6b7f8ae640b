"""One's own account: what one may, where one is signed in, a new password."""

from __future__ import annotations

from flask import Blueprint, Response, make_response, redirect, request, url_for

from scanner.store import accounts
from web.api import account as api
from web.auth import SIGNED_IN, permission, principal
from web.pages.base import NavigationItem, page
from web.pages.forms import Refused, attempt
from web.services import services

bp = Blueprint("account_page", __name__)
NAVIGATION = NavigationItem(110, "account_page.index", "Your account", "read")


@bp.get("/account")
@permission(SIGNED_IN)
def index() -> str:
    """Who one is here, and where one is signed in."""
    return _shown()


@bp.post("/account/sessions/<session_id>/end")
@permission(SIGNED_IN)
def end_session(session_id: str) -> Response:
    """Sign out there."""
    try:
        attempt(lambda: api.end_session(api.SessionPath.model_validate({"session_id": session_id})))
    except Refused as refused:
        return make_response(_shown(refused.problems), 422)
    return redirect(url_for("account_page.index"), 303)  # type: ignore[return-value]


@bp.post("/account/sign-out-everywhere")
@permission(SIGNED_IN)
def leave_everywhere() -> Response:
    """Sign out everywhere, here too."""
    api.end_everywhere()
    return redirect(url_for("sign_in_page.form"), 303)  # type: ignore[return-value]


@bp.post("/account/password")
@permission(SIGNED_IN)
def change_password() -> Response:
    """Another password, for who signs in with one. What is refused is told without what was typed."""
    given = {name: request.form.get(name, "") for name in ("current", "new")}
    try:
        attempt(lambda: api.change_password(api.PasswordChange.model_validate(given)))
    except Refused as refused:
        return make_response(_shown(refused.problems), 422)
    return redirect(url_for("account_page.index"), 303)  # type: ignore[return-value]


def _shown(problems: list[str] | None = None) -> str:
    who = principal()
    with services().database.read() as session:
        sessions = accounts.open_sessions(session, who.user_id) if who.user_id else ()
        user = accounts.get_user(session, who.user_id) if who.user_id else None
    return page("account.html", user=user, sessions=sessions, own=api.current_session(), problems=problems or ())
