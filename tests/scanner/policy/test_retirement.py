"""What would fail without Notary, and what to do first."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from scanner import catalog
from scanner.model.finding import Signer, TrustStatus, Verification
from scanner.model.reference import Digest
from scanner.policy.retirement import Dependence, Name, dependence
from scanner.policy.rules import KnownNames, Policy, parse_policy

NOW = datetime(2026, 11, 23, 7, tzinfo=UTC)
DAY = timedelta(days=1)
IMAGE = Digest.of(b"image")
REPOSITORY = "registry.example.com/shop/cart"
NOTARY = Verification(
    "notary-v1",
    TrustStatus.VERIFIED,
    IMAGE,
    trust="team",
    checked_at=NOW - 40 * DAY,
    signers=(Signer("alice", "a" * 64, "targets/alice", expires=NOW + 30 * DAY),),
    expiries=(("timestamp", NOW + 3 * DAY), ("root", NOW + 900 * DAY), ("root certificate abc", NOW + 60 * DAY)),
)
COSIGN = Verification("cosign", TrustStatus.VERIFIED, IMAGE, signers=(Signer("ci", "c" * 64),), trust="pipeline")
NO_COSIGN = Verification("cosign", TrustStatus.NOT_SIGNED, IMAGE, "not_signed")
DOWN = Verification("notary-v1", TrustStatus.UNKNOWN, IMAGE, "unavailable", "notary.example does not answer")


def policy(scheme: str, images: str = "**") -> Policy:
    text = f"""apiVersion: dockwarden/v1
kind: Policy
metadata: {{name: signed}}
match: {{images: ["{images}"]}}
rules: [{{id: must-be-signed, signature: {{scheme: {scheme}}}, action: deny}}]
"""
    return parse_policy(text, known=KnownNames({}, frozenset(catalog.schemes())))


def of(*answers: Verification, policies: tuple[Policy, ...] = ()) -> Dependence:
    return dependence({REPOSITORY: [Name("1", IMAGE, answers)]}, policies, NOW)[0]


def test_signed_by_notary_alone() -> None:
    found = of(NOTARY, NO_COSIGN, policies=(policy("notary-v1"),))
    assert found.on_notary == ("1",)
    assert [(f.policy, f.rule, f.tags) for f in found.failing] == [("signed", "must-be-signed", ("1",))]
    assert [end.what for end in found.ending] == ["targets/alice (notary-v1)", "root certificate abc (notary-v1)"]
    words = " | ".join(found.todo)
    assert (
        words.index("renew") < words.index("with cosign or Notation") < words.index("trust root") < words.index("rule")
    )
    assert found.schemes[1].signers == (f"alice (key {'a' * 16}, role targets/alice, until 2026-12-23)",)


def test_signed_by_both_is_ready_to_leave() -> None:
    found = of(NOTARY, COSIGN, policies=(policy("[notary-v1, cosign]"),))
    assert (found.on_notary, found.failing) == ((), ())
    assert "remove notary-v1 from the policies" in found.todo[-1]


def test_a_rule_that_asks_for_notary_fails_even_where_cosign_signed() -> None:
    found = of(NOTARY, COSIGN, policies=(policy("notary-v1"),))
    assert found.failing
    assert "let rule must-be-signed of policy signed accept the new scheme" in " ".join(found.todo)


def test_a_policy_for_other_repositories_does_not_count() -> None:
    assert of(NOTARY, policies=(policy("notary-v1", "registry.example.com/other/**"),)).failing == ()


def test_an_attestation_is_no_other_signature() -> None:
    found = of(NOTARY, replace(COSIGN, predicate_type="https://slsa.dev/provenance/v1"))
    assert found.on_notary == ("1",)


def test_what_is_not_signed_depends_on_nothing() -> None:
    found = of(NO_COSIGN, Verification("notary-v1", TrustStatus.NOT_SIGNED, IMAGE, "no_trust_data"))
    assert (found.on_notary, found.failing, found.todo) == ((), (), ())


def test_what_cannot_be_told_is_said() -> None:
    found = of(DOWN, NO_COSIGN)
    assert found.schemes[1].unknown == 1
    assert found.todo == ("resolve first: notary.example does not answer",)


def test_those_that_depend_most_come_first() -> None:
    names = {"a/free": [Name("1", IMAGE, (COSIGN,))], "b/bound": [Name("1", IMAGE, (NOTARY,))]}
    assert [d.repository for d in dependence(names, (), NOW)] == ["b/bound", "a/free"]
