"""The account page: own permissions, sessions and password."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from flask import Blueprint, Response, make_response, redirect, request, url_for

from scanner.services import accounts as use_cases
from scanner.store import accounts
from web.auth import SIGNED_IN, change_own_password, current_session_id, permission, principal
from web.pages.base import NavigationItem, page
from web.pages.forms import RefusedForm, attempt
from web.resources import resources

bp = Blueprint("account_page", __name__)
NAVIGATION = NavigationItem(110, "account_page.index", "Your account", "read")


@bp.get("/account")
@permission(SIGNED_IN)
def index() -> str:
    """Show the own account and its sessions."""
    return _render()


@bp.post("/account/sessions/<session_id>/end")
@permission(SIGNED_IN)
def end_session(session_id: str) -> Response:
    """End one session."""
    try:
        with resources().database.session() as session:
            attempt(lambda: use_cases.end_session(session, principal(), session_id))
    except RefusedForm as refused:
        return make_response(_render(refused.problems), 422)
    return redirect(url_for("account_page.index"), 303)  # type: ignore[return-value]


@bp.post("/account/sign-out-everywhere")
@permission(SIGNED_IN)
def leave_everywhere() -> Response:
    """End all sessions, this one included."""
    with resources().database.session() as session:
        use_cases.end_own_sessions(session, principal())
    return redirect(url_for("sign_in_page.form"), 303)  # type: ignore[return-value]


@bp.post("/account/password")
@permission(SIGNED_IN)
def change_password() -> Response:
    """Change the own password. A refused form comes back without the typed passwords."""
    given = {name: request.form.get(name, "") for name in ("current", "new")}
    try:
        attempt(lambda: change_own_password(given["current"], given["new"]))
    except RefusedForm as refused:
        # A refusal that names no field is one of the new password: too short, too easy to guess.
        return make_response(_render(refused.problems, refused.fields or {"new"}), 422)
    return redirect(url_for("account_page.index"), 303)  # type: ignore[return-value]


def _render(problems: Sequence[str] = (), wrong: Collection[str] = ()) -> str:
    who = principal()
    with resources().database.read() as session:
        sessions = accounts.open_sessions(session, who.user_id) if who.user_id else ()
        user = accounts.get_user(session, who.user_id) if who.user_id else None
    own = current_session_id()
    return page("account.html", user=user, sessions=sessions, own=own, problems=problems, wrong=wrong)
