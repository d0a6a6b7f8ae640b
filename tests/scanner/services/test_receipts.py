"""Receipts: what is refused, when one ends, and the keys that sign."""

from __future__ import annotations

import json

import pytest

from scanner import catalog
from scanner.config import Secret, Settings
from scanner.errors import ConflictError, NotFoundError, UsageError
from scanner.model.actor import COMMAND_LINE
from scanner.policy.evaluate import evidence_digest
from scanner.services import decisions
from scanner.services import receipts as use_cases
from scanner.store import images
from scanner.store import receipts as store
from scanner.store.schema import receipt
from scanner.store.session import Database, epoch
from tests.scanner.store import factories as make
from tests.scanner.store import recorded

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
    return database.uncrossed(lambda session: use_cases.issue(session, SIGNER, COMMAND_LINE, DIGEST))


def test_without_a_decision_nothing_is_signed(database: Database) -> None:
    with pytest.raises(NotFoundError) as refused, database.session() as session:
        use_cases.issue(session, SIGNER, COMMAND_LINE, "sha256:" + "0" * 64)
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
