"""The receipts of an image: signed decisions, to create and to download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from flask import Blueprint, Response, redirect, request, url_for
from sqlalchemy.engine import Connection

from scanner.errors import NotFoundError
from scanner.services import receipts as use_cases
from scanner.store import receipts as store
from web.auth import permission, principal
from web.resources import resources

bp = Blueprint("receipts_page", __name__)


@dataclass(frozen=True)
class ReceiptRow:
    """A receipt as the page shows it. ``push``: its copy in the registry; None: the registry takes no receipts."""

    receipt: store.ReceiptView
    state: str  # current, superseded or ended
    valid_until: datetime
    push: store.PushView | None

    @property
    def verify(self) -> str:
        """The command that verifies it offline."""
        found = self.receipt
        environment = f" --environment {found.environment}" if found.environment else ""
        return f"dockwarden receipt verify {found.repository}@{found.digest} --key keys.json{environment}"

    @property
    def cosign(self) -> str:
        """The same with cosign, from the registry."""
        found = self.receipt
        return (
            "cosign verify-attestation --key keys.pem --insecure-ignore-tlog --policy receipt.rego "
            f"--type {use_cases.environment_type(found.environment)} {found.repository}@{found.digest}"
        )


def receipt_rows(session: Connection, digest: str, projects: frozenset[str] | None) -> Sequence[ReceiptRow]:
    """Return the receipts of an image, the newest first."""
    return [
        ReceiptRow(
            found,
            use_cases.state(session, found),
            datetime.fromtimestamp(found.valid_until, UTC),
            store.push_of(session, digest, found.repository) if store.is_taken(session, found.repository) else None,
        )
        for found in store.of_image(session, digest, projects, limit=20)
    ]


@bp.post("/images/<digest>/receipt")
@permission("read")
def create(digest: str) -> Response:
    """Sign the current decision, and show the receipts."""
    signer = use_cases.Signer(resources().settings, resources().secret_key)
    repository, environment = request.form.get("repository", ""), request.form.get("environment", "").strip()
    use_cases.issue(resources().database, signer, principal(), digest, repository=repository, environment=environment)
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
