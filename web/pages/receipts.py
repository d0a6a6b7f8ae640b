"""The receipts of an image: signed decisions, to create and to download."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint, Response, make_response, redirect, request, url_for

from scanner.errors import NotFoundError
from scanner.services import receipts as use_cases
from scanner.store import receipts as store
from web.auth import permission, principal
from web.pages.forms import RefusedForm, attempt
from web.pages.images import image_page
from web.resources import resources

bp = Blueprint("receipts_page", __name__)


@bp.post("/images/<digest>/receipt")
@permission("read")
def create(digest: str) -> Response:
    """Sign the current decision, and show the receipts. A refused form comes back as typed."""
    signer = use_cases.Signer(resources().settings, resources().secret_key)
    given = {name: request.form.get(name, "").strip() for name in ("repository", "environment")}
    try:
        attempt(lambda: use_cases.issue(resources().database, signer, principal(), digest, **given))
    except RefusedForm as refused:
        return make_response(image_page(digest, "receipts", given, refused.problems, refused.fields), refused.status)
    return redirect(url_for("images_page.one", digest=digest, tab="receipts"), 303)  # type: ignore[return-value]


@bp.get("/images/<digest>/receipt/<uuid:receipt_id>")
@permission("read")
def download(digest: str, receipt_id: UUID) -> Response:
    """Download one attestation of a receipt as a file."""
    form, predicate = request.args.get("format", "bundle"), request.args.get("predicate", "summary")
    with resources().database.read() as session:
        found = store.get(session, str(receipt_id), principal().projects)
        if found.digest != digest:
            raise NotFoundError("there is no such receipt")
        text = use_cases.render_attestation(session, found, form, predicate)
    headers = {"Content-Disposition": f'attachment; filename="receipt-{digest[7:19]}-{predicate}.json"'}
    return Response(text, mimetype="application/json", headers=headers)
