"""Sign in with name and password or with an API token, and sign out."""

from __future__ import annotations

from flask import Blueprint, Response, make_response, redirect, request, url_for

from scanner.errors import RefusedError
from web.auth import PUBLIC, SIGNED_IN, permission, sign_in_with_password, sign_in_with_token, sign_out
from web.pages.base import THEMES, error_page, page, safe_next

bp = Blueprint("sign_in_page", __name__)
bp.record_once(lambda state: state.app.extensions.__setitem__("error_page", error_page))


@bp.get("/")
@permission(PUBLIC)
def home() -> Response:
    """Show the sign-in form. A signed-in user is sent to the overview."""
    return redirect(url_for("overview_page.index"), 303)  # type: ignore[return-value]


@bp.get("/sign-in")
@permission(PUBLIC)
def form() -> str:
    return page("sign_in.html", next=safe_next(request.args.get("next", "")), error="", name="")


@bp.post("/sign-in")
@permission(PUBLIC)
def enter() -> Response:
    """Check the credentials. A wrong name, password or token gets the same answer."""
    token, name = request.form.get("token", "").strip(), request.form.get("name", "").strip()
    # Checked again: the hidden field comes from the browser.
    target = safe_next(request.form.get("next", "")) or url_for("overview_page.index")
    try:
        with_cookie = (
            sign_in_with_token(token) if token else sign_in_with_password(name, request.form.get("password", ""))
        )
    except RefusedError as error:
        message = f"{error}" + (f" ({error.hint})" if error.hint and not token else "")
        status = 429 if error.reason == "rate_limited" else 403 if error.reason == "csrf" else 401
        return make_response(
            page("sign_in.html", next=safe_next(request.form.get("next", "")), error=message, name=name), status
        )
    return with_cookie(redirect(target, 303))  # type: ignore[arg-type]


@bp.post("/appearance")
@permission(SIGNED_IN)
def appearance() -> Response:
    """Choose light, dark or the browser's scheme. Stored in a cookie, because it is a choice for this screen."""
    chosen, back = request.form.get("theme", ""), safe_next(request.form.get("next", ""))
    answer: Response = redirect(back or url_for("overview_page.index"), 303)  # type: ignore[assignment]
    if chosen in THEMES:
        answer.set_cookie("theme", chosen, max_age=31536000, httponly=True, samesite="Lax", secure=request.is_secure)
    else:
        answer.delete_cookie("theme")
    return answer


@bp.post("/sign-out")
@permission("signed-in")
def leave() -> Response:
    return sign_out()(redirect(url_for("sign_in_page.form"), 303))  # type: ignore[arg-type]
