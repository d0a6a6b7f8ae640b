"""Enforcement: what was asked and what became of it, narrowed by its address; hostile names are text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask_openapi3.openapi import OpenAPI

from scanner.config import Secret
from scanner.store import admissions, jobs, registries
from scanner.store.schema import receipt
from scanner.store.session import Database, moment
from tests.scanner.store import factories, recorded
from tests.web.pages.test_policies import Form

DIGEST = "sha256:" + "4" * 64
KEY = Secret("a secret key for tests, long enough")


def row(name: str, outcome: str, namespace: str = "shop", message: str = "") -> dict[str, object]:
    images = [{"image": f"registry.example.com/shop/{name}:1", "digest": DIGEST, "verdict": "deny", "container": "app"}]
    return {
        "token": "token my-cluster",
        "user": "kim@example.com",
        "operation": "CREATE",
        "kind": "Pod",
        "namespace": namespace,
        "name": name,
        "mode": "enforce",
        "environment": "production",
        "outcome": outcome,
        "images": images,
        "message": message,
    }


@pytest.fixture
def form(app: OpenAPI, make_token: Callable[..., str]) -> Form:
    return Form(app.test_client(), make_token())


def test_before_the_first_review_it_says_how_to_set_a_cluster_up(form: Form) -> None:
    page = form.client.get("/enforcement", headers=form.headers).text
    assert "No admission requests yet" in page
    assert "dockwarden admission kubernetes --manifests" in page
    assert "No receipts yet" in page
    assert "dockwarden registry edit HOST --write-receipts" in page


def test_receipts_that_hold_are_counted(form: Form, database: Database) -> None:
    with database.session() as session:
        now = moment(session)
        for number, (verdict, ends) in enumerate((("allow", 60), ("warn", 60), ("deny", 60), ("deny", -60))):
            values = {
                "digest": DIGEST,
                "repository": f"r.example.com/{number}",
                "environment": "",
                "project": "default",
            }
            values |= {"decision_id": number, "verdict": verdict, "undecided": False, "policy": "p", "key_id": "k"}
            values |= {"issued_at": now, "valid_until": now.timestamp() + ends, "envelopes": {}}
            session.execute(receipt.insert().values(id=str(number), superseded_at=None, **values))
    page = form.client.get("/enforcement", headers=form.headers).text
    assert "<strong>2 passed</strong>, 1 failed." in page


def test_receipts_that_cannot_be_signed_say_why(form: Form, database: Database) -> None:
    with database.session() as session:
        registries.add(session, factories.REPOSITORY.partition("/")[0], KEY, write_receipts=True)
        jobs.request(session, jobs.RECEIPTS, jobs.ANYWHERE, "schedule")
        held = jobs.claim(session, "w", {jobs.RECEIPTS: None}, 60)
        assert held is not None
        jobs.fail(session, held, "kms_refused", "Vault refused the request: <script>alert(1)")
    assert "cannot be signed" not in form.client.get("/enforcement", headers=form.headers).text, "none is to be signed"
    recorded.record(database, factories.report())
    page = form.client.get("/enforcement", headers=form.headers).text
    assert "Receipts cannot be signed.</strong> First failed " in page
    assert "Vault refused the request: &lt;script&gt;" in page
    assert '<span class="chip">Failing</span>' in page
    assert "No receipts yet" not in page


def test_reviews_are_listed_and_narrowed(form: Form, database: Database) -> None:
    with database.session() as session:
        message = "registry.example.com/shop/cart:1 (container app): denied by policy production\n1. <script>alert(1)"
        admissions.record(session, [row("cart", "denied", message=message), row("web", "allowed", "lab")])
    page = form.client.get("/enforcement", headers=form.headers).text
    assert "<strong>1 denied</strong>, 1 allowed." in page
    assert "kim@example.com" in page
    assert f"/images/{DIGEST}" in page
    assert "<script>alert" not in page
    narrowed = form.client.get("/enforcement?outcome=denied", headers=form.headers).text
    assert "<strong>cart</strong>" in narrowed
    assert "<strong>web</strong>" not in narrowed
    assert "<strong>web</strong>" in form.client.get("/enforcement?namespace=lab", headers=form.headers).text
    assert "No matching requests" in form.client.get("/enforcement?namespace=none", headers=form.headers).text


def test_pages_of_it(form: Form, database: Database) -> None:
    with database.session() as session:
        admissions.record(session, [row(f"pod-{number}", "denied") for number in range(120)])
        first = admissions.list_reviews(session, limit=50)
        second = admissions.list_reviews(session, limit=50, cursor=first.next_cursor)
    assert first.items[0].name == "pod-119"
    assert second.items[0].name == "pod-69"
