"""Scans that a Harbor requests: which image is meant, and reports of what has no decision."""

from __future__ import annotations

import pytest
from sqlalchemy.engine import Connection

from scanner.config import Secret, Settings
from scanner.errors import UsageError
from scanner.services import harbor
from scanner.store import registries, scans
from tests.actors import ownerless
from tests.scanner.store import factories as make

KEY = Secret("a secret key for tests, long enough")
HOST, DIGEST = "registry.example.com", str(make.report().digest)
ACTOR = ownerless("harbor", "harbor")


@pytest.fixture
def session(session: Connection) -> Connection:
    registries.add(session, HOST, KEY, harbor="findings")
    return session


def order(repository: str = "shop/cart", **more: str) -> harbor.ScanOrder:
    return harbor.ScanOrder(f"https://{HOST}", repository, DIGEST, **more)  # type: ignore[arg-type]


def test_an_image_of_a_public_project_comes_without_credentials(session: Connection) -> None:
    ticket = harbor.request(session, ACTOR, order(), Settings(), KEY)
    assert scans.get(session, ticket.scan_id, None).request.target == f"{HOST}/shop/cart@{DIGEST}"


@pytest.mark.parametrize("repository", ["shop/cart:2", "../cart", "Shop/Cart", "", "shop/cart@sha256"])
def test_a_name_that_would_be_read_as_another_is_refused(session: Connection, repository: str) -> None:
    """``shop/cart:2`` with a digest is a valid reference, but of the repository ``shop/cart``."""
    with pytest.raises(UsageError) as refused:
        harbor.request(session, ACTOR, order(repository), Settings(), KEY)
    assert refused.value.field == "artifact.repository"
    assert scans.list_scans(session, None).items == ()
