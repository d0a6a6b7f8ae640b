"""Receipts: what is refused, when one ends, and the keys that sign."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from scanner import catalog
from scanner.config import Secret, Settings
from scanner.errors import ConflictError, NotFoundError, RemoteError, UsageError
from scanner.model.actor import COMMAND_LINE, SERVICE
from scanner.policy.evaluate import evidence_digest
from scanner.services import decisions
from scanner.services import receipts as use_cases
from scanner.store import audit, images, registries
from scanner.store import receipts as store
from scanner.store.schema import receipt, receipt_push
from scanner.store.session import Database, epoch
from scanner.trust import _receipts as signing
from scanner.trust._pki import load_public_key
from tests.actors import ownerless
from tests.scanner.registry.cloud.fakes import SECRET
from tests.scanner.store import factories as make
from tests.scanner.store import recorded
from tests.scanner.trust.key_services import Fake

FOUND = make.report(packages=[make.package(1)])
DIGEST = str(FOUND.digest)
SIGNER = use_cases.Signer(Settings(), Secret("a secret key for tests, long enough"))


@pytest.fixture
def database(database: Database) -> Database:
    held = recorded.claim(database)
    with database.session() as session:
        made = decisions.decide_all(session, FOUND, catalog.known_names(), catalog.remedies())
        images.record(session, held, FOUND, evidence_digest(FOUND), made)
    return database


def issued(database: Database) -> store.ReceiptView:
    return use_cases.issue(database, SIGNER, COMMAND_LINE, DIGEST)


def test_without_a_decision_nothing_is_signed(database: Database) -> None:
    with pytest.raises(NotFoundError) as refused:
        use_cases.issue(database, SIGNER, COMMAND_LINE, "sha256:" + "0" * 64)
    assert refused.value.reason == "not_decided"
    with database.read() as session:
        assert store.keys(session) == ()


def test_a_receipt_ends_with_its_time(database: Database) -> None:
    made = issued(database)
    with database.session() as session:
        assert use_cases.state(session, made) == "current"
        assert [each.id for each in store.of_image(session, DIGEST, frozenset({"default"}))] == [made.id]
        assert store.of_image(session, DIGEST, frozenset({"bank"})) == ()
        session.execute(receipt.update().values(valid_until=epoch(session) - 1))
        assert use_cases.state(session, store.get(session, made.id, None)) == "ended"


def test_a_push_waits_an_hour_at_most(database: Database) -> None:
    """Also if the registry asks for a day, or the clock is set back by one."""
    with database.session() as session:
        registries.add(session, FOUND.repository.partition("/")[0], SIGNER.key, write_receipts=True)
    issued(database)
    with database.session() as session:
        (push,) = store.due(session)
        store.fail_push(session, push, "registry_error", "busy", 86400.0)
        assert store.due(session) == ()
        assert 3500 < session.execute(sa.select(receipt_push.c.next_at)).scalar_one() - epoch(session) <= 3600
        session.execute(receipt_push.update().values(next_at=receipt_push.c.next_at + 86400))
        assert len(store.due(session)) == 1


def test_a_reader_does_not_fill_the_registry_with_receipts_for_invented_environments(database: Database) -> None:
    """Verifiers that require every attestation to pass would refuse the image because of one of them."""
    with database.session() as session:
        registries.add(session, FOUND.repository.partition("/")[0], SIGNER.key, write_receipts=True)
    reader = ownerless("reader", "read")
    for number in range(use_cases._MOST_OTHERS):
        made = use_cases.issue(database, SIGNER, reader, DIGEST, environment=f"invented-{number}")
        assert made.environment == f"invented-{number}"
    with pytest.raises(ConflictError, match="20 environments that no policy names") as refused:
        use_cases.issue(database, SIGNER, reader, DIGEST, environment="one-more")
    assert refused.value.reason == "too_many_environments"
    assert use_cases.issue(database, SIGNER, reader, DIGEST, environment="invented-3").environment == "invented-3"
    with database.read() as session:
        assert store.due(session) == ()
    issued(database)
    with database.read() as session:
        assert [each.environment for each in store.to_push(session, DIGEST, FOUND.repository)] == [""]
        assert len(store.due(session)) == 1
    with database.session() as session:
        session.execute(receipt.update().values(valid_until=epoch(session) - 1))
    assert use_cases.issue(database, SIGNER, reader, DIGEST, environment="one-more").environment == "one-more"


def test_a_decision_that_ends_now_is_not_signed(database: Database) -> None:
    with database.session() as session:
        found = store.in_force(session, DIGEST, FOUND.repository, "")
        assert found is not None
        object.__setattr__(found, "valid_until", epoch(session))
        with pytest.raises(ConflictError) as refused:
            use_cases.sign(session, SIGNER, COMMAND_LINE, found, "")
    assert refused.value.reason == "not_decided"


def test_a_receipt_is_written_in_the_forms_that_there_are(database: Database) -> None:
    made = issued(database)
    with database.read() as session:
        for predicate in use_cases.SHORT_NAMES:
            dsse = json.loads(use_cases.render_attestation(session, made, "dsse", predicate))
            bundle = json.loads(use_cases.render_attestation(session, made, "bundle", predicate))
            assert bundle["dsseEnvelope"]["payload"] == dsse["payload"]
        for form, predicate, field in (("pdf", "summary", "format"), ("dsse", "poem", "predicate")):
            with pytest.raises(UsageError) as refused:
                use_cases.render_attestation(session, made, form, predicate)
            assert refused.value.field == field


@pytest.mark.parametrize("hours", [-1.0, 721.0, float("nan")])
def test_an_overlap_that_is_none_is_refused(database: Database, hours: float) -> None:
    with database.session() as session, pytest.raises(UsageError) as refused:
        use_cases.rotate_key(session, SIGNER, COMMAND_LINE, overlap_hours=hours)
    assert refused.value.field == "overlap"


def test_one_key_waits_at_a_time_and_a_key_is_revoked_by_its_beginning(database: Database) -> None:
    made = issued(database)
    with database.session() as session:
        use_cases.rotate_key(session, SIGNER, COMMAND_LINE, overlap_hours=1)
        with pytest.raises(ConflictError) as waiting:
            use_cases.rotate_key(session, SIGNER, COMMAND_LINE, overlap_hours=1)
        assert waiting.value.reason == "rotating"
        for beginning in (made.key_id[:7], "0" * 64, ""):
            with pytest.raises(NotFoundError):
                use_cases.revoke_key(session, SIGNER, COMMAND_LINE, beginning)
        assert use_cases.revoke_key(session, SIGNER, COMMAND_LINE, made.key_id[:8].upper()) == 1
        with pytest.raises(NotFoundError):
            use_cases.revoke_key(session, SIGNER, COMMAND_LINE, made.key_id)
        assert use_cases.state(session, store.get(session, made.id, None)) == "superseded"


# Keys in a key management service


@pytest.fixture
def fake(httpserver: HTTPServer) -> Iterator[Fake]:
    yield Fake.on(httpserver)
    httpserver.check_assertions()


@pytest.fixture
def signer(fake: Fake, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> use_cases.Signer:
    """Receipts are signed by Vault, as it stands in the environment of every process."""
    monkeypatch.setenv("VAULT_ADDR", fake.base)
    monkeypatch.setenv("VAULT_TOKEN", SECRET)
    return use_cases.Signer(replace(settings, receipt_kms_key="hashivault://receipts"), SIGNER.key)


def rotate(database: Database, signer: use_cases.Signer, hours: float = 0) -> store.KeyView:
    fetched = use_cases.fetch_key(signer)
    with database.session() as session:
        return use_cases.rotate_key(session, signer, SERVICE, overlap_hours=hours, fetched=fetched)


def issue(database: Database, signer: use_cases.Signer) -> store.ReceiptView:
    return use_cases.issue(database, signer, SERVICE, DIGEST)


def verified(made: store.ReceiptView, *pems: str) -> signing.VerifiedReceipt:
    (signed,) = signing.parse(made.envelopes[signing.DECISION].encode())
    found = signing.verify(signed, [load_public_key(pem) for pem in pems], signing.ExpectedReceipt(made.issued_at))
    assert found is not None
    return found


def test_receipts_are_signed_by_the_service_and_each_version_is_its_own_key(
    database: Database, signer: use_cases.Signer, fake: Fake
) -> None:
    with pytest.raises(ConflictError) as refused:
        issue(database, signer)
    assert (refused.value.reason, "rotate-key" in refused.value.hint) == ("no_signing_key", True)
    with pytest.raises(ConflictError), database.session() as session:
        use_cases.published_keys(session, signer, SERVICE)
    assert not fake.asked, "a stranger who reads the public keys makes us ask nobody"

    first = rotate(database, signer, hours=24)
    made, pem = issue(database, signer), fake.pem
    assert verified(made, pem).keyid == first.key_id == made.key_id, "there was no key that it had to wait for"
    asked = len(fake.asked)
    assert issue(database, signer).id == made.id
    assert len(fake.asked) == asked, "the current receipt is signed once"
    with pytest.raises(ConflictError, match="is in use"):
        rotate(database, signer)

    # Somebody adds a version. It signs after it was taken and published, not before.
    former, fake.key, fake.version = fake.key, ec.generate_private_key(ec.SECP256R1()), 2
    second = rotate(database, signer, hours=24)
    assert second.signs_from > first.signs_from
    with database.read() as session:
        assert [key.key_id for key in use_cases.published_keys(session, signer, SERVICE)] == [
            second.key_id,
            first.key_id,
        ]
    with database.session() as session:
        assert use_cases.revoke_key(session, signer, SERVICE, second.key_id) == 0
        detail = [dict(entry.detail) for entry in audit.list_entries(session).items if "kms" in entry.detail]
    assert {each["kms"] for each in detail} == {"hashivault://receipts/versions/1", "hashivault://receipts/versions/2"}
    with pytest.raises(ConflictError, match="was revoked"):
        rotate(database, signer)

    fake.key = former
    with database.session() as session:
        assert use_cases.revoke_key(session, signer, SERVICE, first.key_id) == 1, "although there is no other key"
    with pytest.raises(ConflictError, match="no key of the key management service"):
        issue(database, signer)


def test_a_service_that_fails_leaves_no_receipt_and_no_lock(
    database: Database, signer: use_cases.Signer, fake: Fake
) -> None:
    rotate(database, signer)
    fake.answer = Response("{}", 503)
    with pytest.raises(RemoteError, match="Vault answered 503"):
        issue(database, signer)
    seen: list[bool] = []
    right = fake.right

    def free(request: Request) -> dict[str, Any]:
        with database.session() as session:  # another writer, while the service is asked
            store.erase_key(session, "none")
        seen.append(True)
        return right(request)

    fake.answer, fake.right = None, free  # type: ignore[method-assign]
    assert verified(issue(database, signer), fake.pem).repository
    assert len(seen) == 2


def test_a_key_that_may_not_sign_is_not_published(database: Database, signer: use_cases.Signer, fake: Fake) -> None:
    right = fake.right

    def only_reads(request: Request) -> dict[str, Any]:
        return right(request) if request.method == "GET" else {"data": {"signature": "vault:v1:AAAA"}}

    fake.right = only_reads  # type: ignore[method-assign]
    with pytest.raises(RemoteError, match="does not belong"):
        rotate(database, signer)
    with database.read() as session:
        assert store.keys(session) == ()


def test_a_token_and_a_service_at_once_are_refused(signer: use_cases.Signer) -> None:
    both = replace(signer.settings, receipt_pkcs11_module=Path("/m.so"), receipt_pkcs11_token="t")
    with pytest.raises(UsageError, match="both set"):
        _ = use_cases.Signer(both, SIGNER.key).token
