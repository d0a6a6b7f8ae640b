"""The receipts of an image as its page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.engine import Connection

from scanner.services import receipts as use_cases
from scanner.store import receipts as store


@dataclass(frozen=True)
class ReceiptRow:
    """A receipt as the page shows it. ``unwritten``: why the registry gets no copy. ``push``: the state of its copy."""

    receipt: store.ReceiptView
    state: str  # current, superseded or ended
    valid_until: datetime
    unwritten: str
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
            _unwritten(session, found),
            store.push_of(session, digest, found.repository),
        )
        for found in store.of_image(session, digest, projects, limit=20)
    ]


def _unwritten(session: Connection, found: store.ReceiptView) -> str:
    if not store.is_taken(session, found.repository):
        return "the registry's setting is off"
    # The registry has the image's other receipts, so the state of the push says nothing about this one.
    if found.environment and store.in_force(session, found.digest, found.repository, found.environment) is None:
        return "no policy names this environment"
    return ""
