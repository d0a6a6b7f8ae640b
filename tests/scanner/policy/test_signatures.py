"""When a signature rule is met, when it is not, and when that cannot be told. Nothing here fetches or verifies."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from scanner.model.finding import Signer, TrustStatus, Verification
from scanner.model.reference import Digest
from scanner.policy.document import SignatureSelector, signatures_of
from scanner.policy.signatures import RuleStatus, judge

NOW = datetime(2026, 11, 23, 7, tzinfo=UTC)
DAY = timedelta(days=1)
IMAGE, OTHER = Digest.of(b"image"), Digest.of(b"other")
ALICE = Signer("alice", "a" * 64, "targets/alice", expires=NOW + 90 * DAY)
BOB = Signer("bob", "b" * 64, "targets/bob", expires=NOW + 30 * DAY)
SIGNED = Verification("notary-v1", TrustStatus.VERIFIED, IMAGE, signers=(ALICE, BOB), trust="team", checked_at=NOW)
BY_KEY = Verification(
    "cosign", TrustStatus.VERIFIED, IMAGE, signers=(Signer("ci", "c" * 64),), trust="pipeline", checked_at=NOW
)
PERSON = replace(BY_KEY, signers=(Signer("a@b", "1" * 64, issuer="https://issuer"),))
WITH_ANOTHER_KEY = replace(BY_KEY, signers=(Signer("a@b", "2" * 64, issuer="https://issuer"),))
PROVENANCE = replace(
    BY_KEY,
    predicate_type="https://slsa.dev/provenance/v1",
    predicate=(("buildDefinition.buildType", "https://ci.example/v1"), ("metadata.complete", "true")),
)
UNSIGNED = Verification("cosign", TrustStatus.NOT_SIGNED, IMAGE, "not_signed", checked_at=NOW)
DOWN = Verification("cosign", TrustStatus.UNKNOWN, IMAGE, "unavailable", "nobody answers", checked_at=NOW)
REFUSED = Verification("cosign", TrustStatus.REFUSED, IMAGE, "expired", checked_at=NOW)

YES, NO, UNKNOWN = RuleStatus.SATISFIED, RuleStatus.UNSATISFIED, RuleStatus.UNKNOWN
SLSA = "https://slsa.dev/provenance/*"
CASES: dict[str, tuple[dict[str, Any], list[Verification], RuleStatus]] = {
    "anybody trusted": ({"scheme": "notary-v1"}, [SIGNED], YES),
    "a signer": ({"scheme": "notary-v1", "signers": "alice"}, [SIGNED], YES),
    "a trust root": ({"scheme": "notary-v1", "signers": "team"}, [SIGNED], YES),
    "a role": ({"scheme": "notary-v1", "signers": "targets/bob"}, [SIGNED], YES),
    "a key": ({"scheme": "notary-v1", "keys": "b" * 64}, [SIGNED], YES),
    "part of a key": ({"scheme": "notary-v1", "keys": "b" * 16}, [SIGNED], NO),
    "somebody else": ({"scheme": "notary-v1", "signers": "carol"}, [SIGNED], NO),
    "one of two": ({"scheme": "notary-v1", "signers": ["alice", "carol"]}, [SIGNED], YES),
    "both": ({"scheme": "notary-v1", "signers": ["alice", "bob"], "require": "all"}, [SIGNED], YES),
    "both, one is missing": ({"scheme": "notary-v1", "signers": ["alice", "carol"], "require": "all"}, [SIGNED], NO),
    "two of three": ({"scheme": "notary-v1", "signers": ["alice", "bob", "carol"], "require": 2}, [SIGNED], YES),
    "two of anybody": ({"scheme": "notary-v1", "require": 2}, [SIGNED], YES),
    "three of anybody": ({"scheme": "notary-v1", "require": 3}, [SIGNED], NO),
    "one key twice is one": ({"scheme": "cosign", "require": 2}, [BY_KEY, replace(BY_KEY, trust="other")], NO),
    "one key under two names is one": (
        {"scheme": "cosign", "require": 2},
        [BY_KEY, replace(BY_KEY, signers=(replace(BY_KEY.signers[0], name="other"),))],
        NO,
    ),
    "one person with two keys is one": ({"scheme": "cosign", "require": 2}, [PERSON, WITH_ANOTHER_KEY], NO),
    "one person with two keys, joined by the last": (
        {"scheme": "cosign", "require": 2},
        [PERSON, replace(PERSON, signers=(Signer("b@b", "2" * 64, issuer="https://issuer"),)), WITH_ANOTHER_KEY],
        NO,
    ),
    "a person and a key of the same name are two": (
        {"scheme": "cosign", "require": 2},
        [PERSON, replace(BY_KEY, signers=(Signer("a@b", "c" * 64),))],
        YES,
    ),
    "one name by two issuers is two": (
        {"scheme": "cosign", "require": 2},
        [PERSON, replace(PERSON, signers=(Signer("a@b", "2" * 64, issuer="https://other"),))],
        YES,
    ),
    "two keys of two schemes": ({"scheme": ["cosign", "notary-v1"], "require": 3}, [BY_KEY, SIGNED], YES),
    "every scheme": ({"scheme": ["cosign", "notary-v1"], "require": "all"}, [BY_KEY, SIGNED], YES),
    "every scheme, one unsigned": ({"scheme": ["cosign", "notary-v1"], "require": "all"}, [UNSIGNED, SIGNED], NO),
    "either scheme": ({"scheme": ["cosign", "notary-v1"]}, [UNSIGNED, SIGNED], YES),
    "either scheme, one down": ({"scheme": ["cosign", "notary-v1"]}, [DOWN, SIGNED], YES),
    "unsigned": ({"scheme": "cosign"}, [UNSIGNED], NO),
    "refused": ({"scheme": "cosign"}, [REFUSED], NO),
    "down": ({"scheme": "cosign"}, [DOWN], UNKNOWN),
    "never asked": ({"scheme": "cosign"}, [SIGNED], UNKNOWN),
    "nothing": ({"scheme": "cosign"}, [], UNKNOWN),
    "refused, and the other down": ({"scheme": ["cosign", "notary-v1"]}, [REFUSED], UNKNOWN),
    "of another image": ({"scheme": "notary-v1"}, [replace(SIGNED, digest=OTHER)], NO),
    "of no image": ({"scheme": "notary-v1"}, [replace(SIGNED, digest=None)], NO),
    "accepted unchecked": ({"scheme": "notary-v1"}, [replace(SIGNED, signers=())], NO),
    "verified long ago": ({"scheme": "notary-v1"}, [replace(SIGNED, checked_at=NOW - 2 * DAY)], UNKNOWN),
    "expired since": ({"scheme": "notary-v1"}, [replace(SIGNED, signers=(replace(ALICE, expires=NOW),))], UNKNOWN),
    "one signer expired since": (
        {"scheme": "notary-v1", "signers": "alice"},
        [replace(SIGNED, signers=(replace(ALICE, expires=NOW), BOB))],
        NO,
    ),
    "an identity": (
        {"scheme": "cosign", "identities": "a@b"},
        [replace(BY_KEY, signers=(Signer("a@b", issuer="https://issuer"),))],
        YES,
    ),
    "a key that is called like an identity": (
        {"scheme": "cosign", "identities": "a@b"},
        [replace(BY_KEY, signers=(Signer("a@b", "c" * 64),))],
        NO,
    ),
    "an attestation is no signature": ({"scheme": "cosign"}, [UNSIGNED, PROVENANCE], NO),
    "an attestation": ({"scheme": "cosign", "attestation": SLSA}, [BY_KEY, PROVENANCE], YES),
    "a signature is no attestation": ({"scheme": "cosign", "attestation": SLSA}, [BY_KEY], NO),
    "another attestation": ({"scheme": "cosign", "attestation": "https://spdx.dev/*"}, [BY_KEY, PROVENANCE], NO),
    "an attestation, nobody answers": ({"scheme": "cosign", "attestation": SLSA}, [DOWN], UNKNOWN),
    "a field": (
        {"scheme": "cosign", "attestation": SLSA, "fields": {"metadata.complete": True}},
        [PROVENANCE],
        YES,
    ),
    "one of a field's values": (
        {
            "scheme": "cosign",
            "attestation": SLSA,
            "fields": {"buildDefinition.buildType": ["x", "https://ci.example/v1"]},
        },
        [PROVENANCE],
        YES,
    ),
    "a field of another value": (
        {"scheme": "cosign", "attestation": SLSA, "fields": {"metadata.complete": False}},
        [PROVENANCE],
        NO,
    ),
    "a field that is not there": ({"scheme": "cosign", "attestation": SLSA, "fields": {"x": "y"}}, [PROVENANCE], NO),
    "a field that may have been cut off": (
        {"scheme": "cosign", "attestation": SLSA, "fields": {"x": "y"}},
        [replace(PROVENANCE, predicate_cut=True)],
        UNKNOWN,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    selector, verifications, expected = CASES[name]
    judged = judge(signatures_of(SignatureSelector.model_validate(selector)), verifications, (IMAGE,), NOW, DAY)
    assert judged.status is expected, judged.message
    assert judged.message
    assert (judged.slug != "") is (expected is UNKNOWN)


def test_the_reason_names_who_with_which_key_under_which_role_until_when() -> None:
    judged = judge(signatures_of(SignatureSelector(scheme=("notary-v1",))), [SIGNED], (IMAGE,), NOW, DAY)
    assert judged.message == (
        "signed by alice (key aaaaaaaaaaaaaaaa, role targets/alice, until 2027-02-21), "
        "bob (key bbbbbbbbbbbbbbbb, role targets/bob, until 2026-12-23); notary-v1, trusted by team"
    )
    assert [evidence.keyid for evidence in judged.evidence] == ["a" * 64, "b" * 64]
    assert judged.until == NOW + DAY, "verified a day ago, it has to be asked again"


@pytest.mark.parametrize("age", [timedelta(), DAY, 2 * DAY])
def test_time_alone_never_makes_a_signature_good(age: timedelta) -> None:
    selector = signatures_of(SignatureSelector(scheme=("cosign",)))
    assert judge(selector, [UNSIGNED], (IMAGE,), NOW + age, DAY).status is NO
    assert judge(selector, [DOWN], (IMAGE,), NOW + age, DAY).status is UNKNOWN


def test_a_rule_that_can_never_be_met_is_refused() -> None:
    with pytest.raises(ValidationError, match="3 of 2 cannot be satisfied"):
        SignatureSelector.model_validate({"scheme": "cosign", "signers": ["a", "b"], "require": 3})
    with pytest.raises(ValidationError, match="set its predicate type"):
        SignatureSelector.model_validate({"scheme": "cosign", "fields": {"a": "b"}})
