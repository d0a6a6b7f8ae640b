"""A receipt verifies for its image, name, environment and time only; anything tampered with is refused."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from scanner.config import Secret
from scanner.errors import UsageError
from scanner.model.reference import Digest
from scanner.trust import _receipts as receipts
from scanner.trust._pki import load_public_key
from scanner.trust.base import SignatureRefused

DIGEST, OTHER = Digest.of(b"image"), Digest.of(b"another image")
NAME = "registry.example.com/shop/web"
ISSUED = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
NOW, ENDS = ISSUED + timedelta(hours=1), ISSUED + timedelta(hours=24)
KEY, FOREIGN = receipts.new_key(), receipts.new_key()
PUBLIC = (load_public_key(receipts.public_of(KEY)[1]),)
REASON = {"rule": "r", "kind": "violation", "action": "deny", "message": "CVE-2026-00001 is critical", "evidence": []}


def facts(verdict: str = "allow", **more: Any) -> receipts.Facts:
    decision = {
        "verdict": verdict,
        "undecided": False,
        "policy": "production",
        "policy_version": 3,
        "policy_digest": f"{Digest.of(b'policy')}",
        "evidence": f"{Digest.of(b'evidence')}",
        "decided_at": "2026-11-27T08:59:00Z",
        "reasons": [REASON] if verdict == "deny" else [],
    }
    found = receipts.Facts(
        NAME,
        DIGEST,
        "shop",
        "production",
        decision,
        (("linux/amd64", str(DIGEST)),),
        ({"name": "trivy", "version": "0.76.0"},),
        "https://dockwarden.example.com",
        "1.0",
        ISSUED,
        ENDS,
    )
    return replace(found, **more)


def envelope(found: receipts.Facts, kind: str = receipts.DECISION, key: Secret = KEY) -> dict[str, Any]:
    signed: dict[str, Any] = orjson.loads(receipts.sign(receipts.statements(found)[kind], key))
    return signed


EXPECTED = receipts.ExpectedReceipt(NOW, DIGEST, NAME, "production", "linux/amd64")


def verified(document: Any, expected: receipts.ExpectedReceipt = EXPECTED) -> receipts.VerifiedReceipt | None:
    (signed,) = receipts.parse(orjson.dumps(document))
    return receipts.verify(signed, PUBLIC, expected)


def refusal(document: Any, expected: receipts.ExpectedReceipt = EXPECTED) -> str:
    with pytest.raises(SignatureRefused) as refused:
        verified(document, expected)
    return refused.value.reason


@pytest.mark.parametrize("kind", receipts.PREDICATES)
@pytest.mark.parametrize(("verdict", "passed"), [("allow", True), ("warn", True), ("deny", False), ("new", False)])
def test_a_receipt_says_what_was_decided(kind: str, verdict: str, passed: bool) -> None:
    found = verified(envelope(facts(verdict), kind))
    assert found is not None
    assert found.passed is passed
    assert (found.repository, found.digest, found.environment, found.project) == (NAME, DIGEST, "production", "shop")
    assert (found.issued_at, found.valid_until, found.platforms) == (ISSUED, ENDS, ("linux/amd64",))
    assert found.keyid == receipts.public_of(KEY)[0]
    assert receipts.decide([found], NOW) is found


def test_the_summary_has_a_type_of_its_environment_too() -> None:
    """cosign and Kyverno demand that each attestation of the type that they ask for meets the policy."""
    made = receipts.statements(facts())
    kind = "urn:dockwarden:receipt:v1:production"
    assert kind == receipts.environment_type("production")
    assert orjson.loads(made[kind]) == orjson.loads(made[receipts.SUMMARY]) | {"predicateType": kind}
    assert verified(envelope(facts(), kind)) is None, "our own verifier compares the environment"
    anywhere = receipts.statements(replace(facts(), environment=""))
    assert tuple(anywhere) == receipts.PREDICATES
    assert receipts.environment_type("") == receipts.SUMMARY


def test_the_summary_is_a_slsa_verification_summary() -> None:
    """https://slsa.dev/spec/v1.0/verification_summary: its required members, and nothing that claims a SLSA level."""
    statement = orjson.loads(receipts.statements(facts())[receipts.SUMMARY])
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert statement["subject"] == [{"name": NAME, "digest": {"sha256": DIGEST.hex}}]
    predicate = statement["predicate"]
    assert predicate["verifier"]["id"] == "https://dockwarden.example.com"
    assert predicate["timeVerified"] == "2026-11-27T09:00:00Z"
    assert predicate["resourceUri"] == f"{NAME}@{DIGEST}"
    assert predicate["policy"]["digest"] == {"sha256": Digest.of(b"policy").hex}
    assert predicate["verificationResult"] == "PASSED"
    assert not any(level.startswith("SLSA_") for level in predicate["verifiedLevels"])
    denied = orjson.loads(receipts.statements(facts("deny"))[receipts.SUMMARY])["predicate"]
    assert (denied["verificationResult"], denied["verifiedLevels"]) == ("FAILED", ["FAILED"])


def test_the_decision_has_policy_reasons_engines_and_end() -> None:
    many = facts("deny")
    many = replace(many, decision={**many.decision, "reasons": [REASON] * 4000})
    predicate = orjson.loads(receipts.statements(many)[receipts.DECISION])["predicate"]
    assert predicate["policy"] == {
        "name": "production",
        "version": 3,
        "digest": {"sha256": Digest.of(b"policy").hex},
    }
    assert (len(predicate["reasons"]), predicate["reasonsTotal"]) == (50, 4000)
    assert predicate["engines"] == [{"name": "trivy", "version": "0.76.0"}]
    assert predicate["validUntil"] == "2026-11-28T09:00:00Z"


def tampered(change: Callable[[dict[str, Any]], None], kind: str = receipts.DECISION) -> dict[str, Any]:
    """A receipt whose payload was changed after it was signed."""
    made = envelope(facts("deny"), kind)
    payload = orjson.loads(base64.b64decode(made["payload"]))
    change(payload)
    return made | {"payload": base64.b64encode(orjson.dumps(payload)).decode()}


def resigned(change: Callable[[dict[str, Any]], None], kind: str = receipts.DECISION) -> dict[str, Any]:
    """What only the holder of the key can make: a changed statement with a good signature."""
    payload = orjson.loads(receipts.statements(facts())[kind])
    change(payload)
    signed: dict[str, Any] = orjson.loads(receipts.sign(orjson.dumps(payload), KEY))
    return signed


def test_a_forged_payload_is_refused() -> None:
    assert refusal(tampered(lambda s: s["predicate"].update(result="PASSED", verdict="allow"))) == "signature"
    assert refusal(tampered(lambda s: s["subject"][0]["digest"].update(sha256=OTHER.hex))) == "signature"


def test_another_key_is_refused() -> None:
    forged = envelope(facts(), key=FOREIGN)
    assert refusal(forged) == "signature"
    forged["signatures"][0]["keyid"] = receipts.public_of(KEY)[0]  # the key id is a hint, not a proof
    assert refusal(forged) == "signature"


def test_the_signature_covers_the_payload_type() -> None:
    """The bare payload, signed, is no receipt; and an envelope of another type is none, whatever it holds."""
    made = envelope(facts())
    private = receipts._private(KEY)
    payload = base64.b64decode(made["payload"])
    algorithm = receipts.ec.ECDSA(receipts.hashes.SHA256())
    bare = base64.b64encode(private.sign(payload, algorithm)).decode()
    assert refusal(made | {"signatures": [{"sig": bare}]}) == "signature"
    kind = b"application/json"
    body = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    other = base64.b64encode(private.sign(body, algorithm)).decode()
    assert refusal(made | {"signatures": [{"sig": other}]}) == "signature"
    with pytest.raises(UsageError, match="payload type"):
        receipts.parse(orjson.dumps(made | {"payloadType": "application/json"}))


def test_further_signatures_neither_help_nor_harm() -> None:
    made, foreign = envelope(facts()), envelope(facts(), key=FOREIGN)
    both = made | {"signatures": [*foreign["signatures"], *made["signatures"]]}
    assert verified(both) is not None
    assert refusal(made | {"signatures": foreign["signatures"] * 2}) == "signature"
    for signatures in ([], made["signatures"] * 11):
        with pytest.raises(UsageError):
            receipts.parse(orjson.dumps(made | {"signatures": signatures}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"digest": OTHER}, "payload"),
        ({"repository": "registry.example.com/shop/other"}, "payload"),
        ({"environment": "staging"}, "environment"),
        ({"environment": ""}, "environment"),
        ({"platform": "linux/arm64"}, "platform"),
        ({"now": ISSUED - timedelta(minutes=5)}, "future"),
    ],
)
@pytest.mark.parametrize("kind", receipts.PREDICATES)
def test_a_receipt_opens_only_what_it_was_made_for(change: dict[str, Any], reason: str, kind: str) -> None:
    assert refusal(envelope(facts(), kind), replace(EXPECTED, **change)) == reason


def test_a_receipt_without_environment_opens_no_environment() -> None:
    made = envelope(facts(environment=""))
    assert refusal(made) == "environment"
    assert verified(made, replace(EXPECTED, environment="")) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda s: s.update(subject=s["subject"] * 2),
        lambda s: s.update(subject=[]),
        lambda s: s["subject"][0]["digest"].update(sha512="0" * 128),
        lambda s: s["subject"][0].update(digest={"md5": "0" * 32}),
        lambda s: s["subject"][0].update(digest={"sha256": "0" * 63}),
        lambda s: s["subject"][0].update(digest={"sha256": "A" * 64}),
        lambda s: s["predicate"].pop("validUntil"),
        lambda s: s["predicate"].update(validUntil="tomorrow"),
        lambda s: s["predicate"].update(validUntil=9999999999),
        lambda s: s["predicate"].update(issuedAt=None),
        lambda s: s["predicate"].pop("environment"),
        lambda s: s.update(predicate=[]),
    ],
)
def test_a_statement_that_is_not_ours_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    assert refusal(resigned(change)) == "malformed"


def test_result_and_verdict_must_agree() -> None:
    for change in ({"result": "PASSED", "verdict": "deny"}, {"result": "FAILED"}, {"verdict": "perhaps"}):
        found = verified(resigned(lambda s, change=change: s["predicate"].update(change)))  # type: ignore[misc]
        assert found is not None
        assert not found.passed


def test_another_attestation_by_the_same_key_is_no_receipt() -> None:
    assert verified(resigned(lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"))) is None


def test_the_newest_receipt_counts_even_after_its_end() -> None:
    old = verified(envelope(facts()))
    later = facts("deny", issued_at=ISSUED + timedelta(minutes=30), valid_until=ISSUED + timedelta(minutes=40))
    new = verified(envelope(later))
    assert old is not None
    assert new is not None
    assert receipts.decide([old], NOW).passed
    assert not receipts.decide([old, new], ISSUED + timedelta(minutes=35)).passed
    with pytest.raises(SignatureRefused) as refused:
        receipts.decide([old, new], NOW)  # the one that revokes has ended: that does not bring the old one back
    assert refused.value.reason == "expired"
    same = verified(envelope(facts("deny")))
    assert same is not None
    assert not receipts.decide([old, same], NOW).passed


@pytest.mark.parametrize(
    "other",
    [{"digest": OTHER}, {"repository": "registry.example.com/shop/cart"}, {"digest": OTHER, "repository": "a.io/b"}],
)
def test_the_newest_receipt_speaks_for_no_other_image(other: dict[str, Any]) -> None:
    """A file can hold the denial of one image, and a newer receipt that admits another."""
    anything = replace(EXPECTED, digest=None, repository="", platform="")
    denied = verified(envelope(facts("deny")), anything)
    admitted = verified(envelope(facts(issued_at=ISSUED + timedelta(minutes=1), **other)), anything)
    assert denied is not None
    assert admitted is not None
    with pytest.raises(SignatureRefused, match="several images") as refused:
        receipts.decide([denied, admitted], NOW)
    assert refused.value.reason == "ambiguous"
    assert receipts.decide([admitted], NOW).passed


def test_a_receipt_ends() -> None:
    found = verified(envelope(facts()), replace(EXPECTED, now=ENDS))
    assert found is not None
    with pytest.raises(SignatureRefused, match="ended at 2026-11-28T09:00:00Z"):
        receipts.decide([found], ENDS)


def test_every_form_of_a_file_is_read() -> None:
    made = {kind: envelope(facts(), kind) for kind in receipts.PREDICATES}
    bundle = receipts.bundle_of(orjson.dumps(made[receipts.SUMMARY]).decode(), receipts.public_of(KEY)[1])
    lines = b"\n".join(orjson.dumps(each) for each in made.values())
    answer = {"attestations": [{"predicate_type": kind, "envelope": each} for kind, each in made.items()]}
    assert len(receipts.parse(bundle.encode())) == 1
    assert len(receipts.parse(lines)) == 2
    assert len(receipts.parse(orjson.dumps(answer))) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"attestations": []}',
        b'{"payload": "e30="}',
        b'{"dsseEnvelope": 7, "mediaType": "x"}',
        b"{" * 100_000,
        b" " * (receipts.MAX_RECEIPT + 1),
        b"\xff\xfe",
        b'{"payload":"", "payload":""}',
    ],
)
def test_a_file_that_is_no_receipt_is_bad_input(data: bytes) -> None:
    with pytest.raises(UsageError):
        receipts.parse(data)


def test_keys_are_read_as_pem_and_as_jwks() -> None:
    pems = [receipts.public_of(key)[1] for key in (KEY, FOREIGN)]
    jwks = orjson.dumps({"keys": [receipts.jwk(pem) for pem in pems]})
    for data in ("".join(pems).encode(), jwks):
        assert [receipts.key_id(key) for key in receipts.load_keys(data, "keys")] == [
            receipts.public_of(key)[0] for key in (KEY, FOREIGN)
        ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"keys": []}',
        b'{"keys": [{"kty": "RSA"}]}',
        b'{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}',
        b'{"keys": [{"kty": "EC", "crv": "P-256", "x": "' + b"A" * 43 + b'", "y": "' + b"A" * 43 + b'"}]}',
        KEY.reveal().encode(),
    ],
)
def test_what_is_no_public_key_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError) as refused:
        receipts.load_keys(data, "keys.json")
    assert KEY.reveal()[40:60] not in str(refused.value)
