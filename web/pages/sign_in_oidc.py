"""Sign in with the identity provider."""

from __future__ import annotations

from flask import Blueprint, Response, make_response, redirect, request, url_for

from scanner.errors import RefusedError
from web.auth import PUBLIC, begin_at_provider, permission, sign_in_at_provider
from web.pages.base import page, safe_next

bp = Blueprint("sign_in_oidc_page", __name__)


@bp.get("/sign-in/oidc")
@permission(PUBLIC)
def begin() -> Response:
    """Redirect to the provider."""
    return begin_at_provider(safe_next(request.args.get("next", "")))


@bp.get("/sign-in/oidc/callback")
@permission(PUBLIC)
def back() -> Response:
    """Handle the provider's response. Errors are shown on the sign-in page."""
    try:
        with_cookie, target = sign_in_at_provider()
    except RefusedError as error:
        message = f"{error}" + (f" ({error.hint})" if error.hint else "")
        status = 429 if error.reason == "rate_limited" else 401
        return make_response(page("sign_in.html", next="", error=message, name=""), status)
    return with_cookie(redirect(safe_next(target) or url_for("overview_page.index"), 303))  # type: ignore[arg-type]
