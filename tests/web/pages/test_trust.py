"""The trust page: what is trusted, what depends on Notary, and changing it as a person does."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flask_openapi3.openapi import OpenAPI

from scanner.model.finding import Signer, TrustStatus, Verification
from scanner.store import trust
from scanner.store.session import Database
from tests.scanner.store import factories
from tests.web.pages.test_policies import Form


@pytest.fixture
def form(app: OpenAPI, make_token: Callable[..., str]) -> Form:
    return Form(app.test_client(), make_token())


def page(form: Form) -> str:
    return form.client.get("/trust", headers=form.headers).text


def test_at_first_nobody_is_trusted(form: Form) -> None:
    shown = page(form)
    assert "No trust roots yet" in shown
    assert "No scans yet" in shown


def test_added_shown_removed(form: Form) -> None:
    added = form(
        "/trust/roots", name="team", scheme="notary-v1", scope="registry.example.com/shop/**\r\n", document="tofu"
    )
    assert added.status_code == 303
    shown = page(form)
    assert "registry.example.com/shop/**" in shown
    assert "version 1" in shown
    assert form("/trust/roots/team/remove").status_code == 303
    assert "No trust roots yet" in page(form)


def test_a_mistake_is_told(form: Form) -> None:
    answer = form("/trust/roots", name="team", scheme="notary-v1", document="<b>trust me</b>")
    assert answer.status_code == 422
    assert "nor a key id" in answer.text
    assert "<b>trust me" not in answer.text
    assert "&lt;b&gt;trust me" in answer.text  # nothing typed is lost
    assert re.search(r'name="document"[^>]*aria-invalid="true"', answer.text)


def test_a_private_key_does_not_come_back_in_the_form(form: Form) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    answer = form("/trust/roots", name="team", scheme="cosign", document=key.decode())
    assert answer.status_code == 422
    assert "private key" in answer.text
    assert key.decode().splitlines()[1] not in answer.text


def test_who_may_only_read_sees_no_form(app: OpenAPI, make_token: Callable[..., str]) -> None:
    reader = Form(app.test_client(), make_token("read"))
    assert "Add a trust root" not in page(reader)
    assert reader("/trust/roots", name="team", scheme="notary-v1", document="tofu").status_code == 403


def test_the_report_and_the_image(form: Form, database: Database) -> None:
    soon = datetime.now(UTC) + timedelta(days=30)
    signer = Signer("<i>alice</i>", "a" * 64, "targets/alice", expires=soon)
    found = factories.report()
    signed = Verification("notary-v1", TrustStatus.VERIFIED, found.digest, signers=(signer,), trust="team")
    found = replace(found, images=(replace(found.images[0], verifications=(signed,)),))
    with database.session() as session:
        trust.note(session, found, "default")
        trust.note(session, found, "default")
    shown = page(form)
    assert shown.count(found.repository) >= 1
    assert "Signed by Notary only" in shown
    assert "with cosign or Notation as well" in shown
    assert "&lt;i&gt;alice" in shown
    assert "<i>alice" not in shown
