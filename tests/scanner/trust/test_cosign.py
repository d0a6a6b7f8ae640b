"""cosign: the sample cases, then every rule on signatures made here, then each step taken away."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from scanner.config import Limits, Settings
from scanner.errors import UsageError
from scanner.model.finding import TrustStatus, Verification
from scanner.model.reference import Descriptor, Digest, Reference
from scanner.policy.document import SignatureSelector, signatures_of
from scanner.policy.signatures import RuleStatus, judge
from scanner.trust._cosign import verification
from scanner.trust._cosign.document import parse_trust
from scanner.trust._cosign.forms import parse_classic
from scanner.trust._cosign.keyless import KeylessSigner
from scanner.trust._cosign.payload import SIGNATURE_PREDICATE, Statement, flatten
from scanner.trust._pki import key_id
from scanner.trust._state import NoState
from scanner.trust._timestamp import Timestamp
from scanner.trust.base import UNSOUND_TRUST, SignatureRefused, TrustJob, TrustRoot
from scanner.trust.cosign import Cosign
from tests.scanner.trust.certificates import (
    AUTHORITY,
    CODE_SIGNING,
    Instance,
    Log,
    PrivateKey,
    TimestampAuthority,
    b64,
    certify,
    der,
    ec_key,
    pem,
    purposes,
    rsa_key,
)
from tests.scanner.trust.cosign_signing import (
    BUNDLE,
    PROVENANCE,
    Layer,
    attestation,
    bundle,
    classic,
    dsse_entry,
    hashed_rekord,
    in_toto_entry,
    logged_bundle,
    pae,
    payload,
    put_bundle,
    put_layers,
    sign,
    statement,
)
from tests.scanner.trust.trees import NOW, Files, cases, run_case, serving, verify

A, B = ec_key("a"), ec_key("b")
SIGSTORE, LOG, TSA = Instance(), Log(), TimestampAuthority()
ANNA = {"issuer": "https://accounts.example.com", "subject": "release@example.com"}
KEYED: dict[str, Any] = {"keys": {"a": pem(A)}}
LOGGED = {**KEYED, "rekor_keys": [pem(LOG.key)]}
KEYLESS = {"identities": [ANNA], "fulcio": [pem(SIGSTORE.root)], "rekor_keys": [pem(LOG.key)]}
SEEN = {**KEYLESS, "ctfe_keys": [pem(SIGSTORE.ct_key)]}
STAMPED = {"identities": [ANNA], "fulcio": [pem(SIGSTORE.root)], "tsa": [pem(TSA.certificate) + pem(TSA.root)]}
ROOT = {"identities": [ANNA], "trusted_root": SIGSTORE.trusted_root()}
LATE, EARLY = NOW + timedelta(hours=1), NOW - timedelta(hours=1)

BIT_STRING = Path(__file__).parents[2] / "data" / "certificate_bitstring_subject.der"
CASES = cases("cases_cosign.json")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_sample_cases(case: dict[str, Any]) -> None:
    answer = run_case(Cosign(), case)
    if "digest" in case["expect"]:
        assert (answer.status, answer.digest) == (TrustStatus.VERIFIED, case["expect"]["digest"])
        assert answer.signers
    else:
        assert answer.status is not TrustStatus.VERIFIED
        assert answer.reason in case["expect"]["error"], answer
        assert (answer.status is TrustStatus.UNKNOWN) is (answer.reason == "unavailable")


@dataclass(frozen=True)
class Scene:
    """What is put beside the image, by which trust, and the reason of its refusal; empty: it verifies."""

    put: Callable[[Files, Descriptor], None]
    trust: Mapping[str, Any]
    reason: str = ""
    require_signers: tuple[str, ...] = ()


def layers(*makers: Callable[[str], Layer]) -> Callable[[Files, Descriptor], None]:
    """A ``.sig`` manifest; each maker is given the image's digest."""
    return lambda files, image: put_layers(files, image, [make(image.digest) for make in makers])


def bundles(*makers: Callable[[str], bytes], **other: Any) -> Callable[[Files, Descriptor], None]:
    def put(files: Files, image: Descriptor) -> None:
        for make in makers:
            put_bundle(files, image, make(image.digest), **other)

    return put


def keyless(
    at: Any = NOW, *, log: Log | None = LOG, key: ec.EllipticCurvePrivateKey = A, **how: Any
) -> Callable[[str], Layer]:
    certificate = SIGSTORE.certify(key, **how)
    return lambda d: classic(key, payload(d), certificate, [SIGSTORE.root], log, at)


def stamped(at: Any, tsa: TimestampAuthority = TSA, over: bytes = b"", **how: Any) -> Callable[[str], Layer]:
    def make(digest: str) -> Layer:
        signature = sign(A, payload(digest))
        token = tsa.token(over or signature, at, **how)
        return classic(A, payload(digest), SIGSTORE.certify(A), [SIGSTORE.root], timestamp=token, signature=signature)

    return make


def entry_of(**changed: Any) -> Callable[[str], Layer]:
    """A promised entry that is true of something else: its payload, signature, key or certificate."""

    def make(digest: str) -> Layer:
        body, key = payload(digest), changed.get("key", A)
        signature = sign(A, body)
        logged = hashed_rekord(
            changed.get("data", body), changed.get("signature", signature), key, changed.get("certificate")
        )
        return classic(A, body, log=LOG, entry={**logged, **changed.get("members", {})}, signature=signature)

    return make


def annotated(**annotations: str) -> Callable[[str], Layer]:
    def make(digest: str) -> Layer:
        layer = classic(A, payload(digest))
        names = {"signature": "dev.cosignproject.cosign/signature", "log": "dev.sigstore.cosign/bundle"}
        return Layer(layer.data, {**layer.annotations, **{names[k]: v for k, v in annotations.items()}})

    return make


def other_root() -> Instance:
    return Instance("elsewhere")


ED = ed25519.Ed25519PrivateKey.from_private_bytes(b"7" * 32)
ZERO = "sha256:" + "0" * 64
INTERMEDIATE = certify({"CN": "between"}, B, AUTHORITY, (SIGSTORE.root, SIGSTORE.root_key))
NO_CA = certify({"CN": "between"}, B, [], (SIGSTORE.root, SIGSTORE.root_key))
UNKNOWN_CRITICAL = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True)
OLD_ISSUER = (
    x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1"), b"https://other.example"),
    False,
)
BY_REGEXP = {"issuer_regexp": "https://.*\\.example\\.com", "subject_regexp": "release@example"}

BOTH = {"keys": {"a": pem(A), "b": pem(B)}}
_REFERRER = "application/vnd.dev.cosign.artifact.sig.v1+json"


def referring(*makers: Callable[[str], Layer], **other: Any) -> Callable[[Files, Descriptor], None]:
    """As cosign writes signatures for registries with the referrers API: the type is the config's."""

    def put(files: Files, image: Descriptor) -> None:
        listed = [
            {"mediaType": layer.media_type, **files.put_blob(layer.data), "annotations": dict(layer.annotations)}
            for layer in (make(image.digest) for make in makers)
        ]
        config = {"mediaType": _REFERRER, **files.put_blob(b"{}")}
        files.put_referrer(
            image, _REFERRER, "x", b"x", **{"layers": listed, "config": config, "artifactType": "", **other}
        )

    return put


SERVERS = purposes(ExtendedKeyUsageOID.SERVER_AUTH)


def signed_by(
    digest: str, *keys: ec.EllipticCurvePrivateKey, logged: ec.EllipticCurvePrivateKey | None = None
) -> bytes:
    """A bundle whose one envelope has several signatures, of which a log has one."""
    body = statement(digest)
    made = [sign(key, pae(body)) for key in keys]
    envelope = {
        "payload": b64(body),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": b64(one)} for one in made],
    }
    entries = [
        LOG.bundle_entry(dsse_entry(body, one, key), NOW) for key, one in zip(keys, made, strict=True) if key is logged
    ]
    return bundle(keys[0], body, entries=entries, dsseEnvelope=envelope)


@cache
def below(eku: tuple[x509.ExtensionType, bool], key: PrivateKey = B) -> x509.Certificate:
    """An intermediate authority of the instance that is limited to a purpose."""
    return certify({"CN": "between"}, key, [*AUTHORITY, eku], (SIGSTORE.root, SIGSTORE.root_key))


def issued_below(eku: tuple[x509.ExtensionType, bool], key: PrivateKey = B) -> Callable[[str], Layer]:
    middle = below(eku, key)
    return lambda d: classic(A, payload(d), SIGSTORE.certify(A, by=(middle, key)), [middle, SIGSTORE.root], LOG)


SCENES: dict[str, Scene] = {
    # keys and what they sign
    "by the key": Scene(layers(lambda d: classic(A, payload(d))), KEYED),
    "by rsa": Scene(layers(lambda d: classic(rsa_key(), payload(d))), {"keys": {"r": pem(rsa_key())}}),
    "by ed25519": Scene(layers(lambda d: classic(ED, payload(d))), {"keys": {"e": pem(ED)}}),
    "by P-521": Scene(
        layers(lambda d: classic(ec_key("a", ec.SECP521R1), payload(d))),
        {"keys": {"p": pem(ec_key("a", ec.SECP521R1))}},
    ),
    "by another key": Scene(layers(lambda d: classic(B, payload(d))), KEYED, "signature"),
    "the good one is the second": Scene(
        layers(lambda d: classic(B, payload(d)), lambda d: classic(A, payload(d))), KEYED
    ),
    "of another image": Scene(layers(lambda d: classic(A, payload(ZERO))), KEYED, "payload"),
    "of another type": Scene(
        layers(lambda d: classic(A, payload(d, kind="atomic container signature"))), KEYED, "payload"
    ),
    "digest as a number": Scene(
        layers(lambda d: classic(A, payload(d).replace(f'"{d}"'.encode(), b"7"))), KEYED, "payload"
    ),
    "not JSON": Scene(layers(lambda d: classic(A, b"signed")), KEYED, "malformed"),
    "a list": Scene(layers(lambda d: classic(A, b"[]")), KEYED, "malformed"),
    "signature not base64": Scene(layers(annotated(signature="!")), KEYED, "malformed"),
    "signature empty": Scene(layers(annotated(signature="")), KEYED, "signature"),
    "no signature at all": Scene(layers(lambda d: Layer(payload(d), {})), KEYED, "malformed"),
    "a broken log entry that nobody asks for": Scene(layers(annotated(log="{")), KEYED),
    "a broken log entry": Scene(layers(annotated(log="{")), LOGGED, "malformed"),
    "a broken one beside a good one": Scene(layers(annotated(signature="!"), lambda d: classic(A, payload(d))), KEYED),
    # thresholds
    "two of two": Scene(
        layers(lambda d: classic(A, payload(d)), lambda d: classic(B, payload(d))),
        {"keys": {"a": pem(A), "b": pem(B)}, "threshold": 2},
    ),
    "classic and bundle together": Scene(
        lambda f, i: (
            put_layers(f, i, [classic(A, payload(i.digest))]),
            put_bundle(f, i, bundle(B, statement(i.digest))),
            None,
        )[-1],
        {"keys": {"a": pem(A), "b": pem(B)}, "threshold": 2},
    ),
    "one key in two forms": Scene(
        lambda f, i: (
            put_layers(f, i, [classic(A, payload(i.digest))]),
            put_bundle(f, i, bundle(A, statement(i.digest))),
            None,
        )[-1],
        {"keys": {"a": pem(A), "b": pem(B)}, "threshold": 2},
        "threshold",
    ),
    "two of two in one envelope": Scene(bundles(lambda d: signed_by(d, A, B)), {**BOTH, "threshold": 2}),
    "one of two twice in one envelope": Scene(
        bundles(lambda d: signed_by(d, A, A)), {**BOTH, "threshold": 2}, "threshold"
    ),
    "one of two, and a stranger, in one envelope": Scene(
        bundles(lambda d: signed_by(d, ec_key("c"), A)), {**BOTH, "threshold": 2}, "threshold"
    ),
    "the second of an envelope asked for": Scene(bundles(lambda d: signed_by(d, A, B)), BOTH, "", ("b",)),
    "an envelope of two, of which one is logged": Scene(
        bundles(lambda d: signed_by(d, A, B, logged=B)), {**BOTH, "rekor_keys": [pem(LOG.key)]}
    ),
    "an envelope of two, of which the other is logged": Scene(
        bundles(lambda d: signed_by(d, A, B, logged=B)),
        {**KEYED, "rekor_keys": [pem(LOG.key)]},
        "tlog",
    ),
    "by a key, with a broken certificate beside it": Scene(
        layers(
            lambda d: Layer(
                payload(d),
                {**classic(A, payload(d), log=LOG).annotations, "dev.sigstore.cosign/certificate": "no PEM"},
            )
        ),
        {**KEYLESS, **KEYED},
    ),
    "one person twice": Scene(layers(keyless(), keyless(key=B)), {**KEYLESS, "threshold": 2}, "threshold"),
    "a key and a person": Scene(
        layers(lambda d: classic(B, payload(d), log=LOG), keyless()), {**KEYLESS, "keys": {"b": pem(B)}, "threshold": 2}
    ),
    # signers asked for
    "the signer asked for": Scene(layers(lambda d: classic(A, payload(d))), KEYED, "", ("a",)),
    "by its key id": Scene(layers(lambda d: classic(A, payload(d))), KEYED, "", (key_id(A.public_key()),)),
    "another signer asked for": Scene(layers(lambda d: classic(A, payload(d))), KEYED, "signer_missing", ("b",)),
    # annotations
    "annotated": Scene(layers(lambda d: classic(A, payload(d, env="prod"))), {**KEYED, "annotations": {"env": "prod"}}),
    "annotated otherwise": Scene(
        layers(lambda d: classic(A, payload(d, env="test"))), {**KEYED, "annotations": {"env": "prod"}}, "annotations"
    ),
    "not annotated": Scene(
        layers(lambda d: classic(A, payload(d))), {**KEYED, "annotations": {"env": "prod"}}, "annotations"
    ),
    "an annotation of another kind": Scene(
        layers(lambda d: classic(A, payload(d, env=["prod"]))), {**KEYED, "annotations": {"env": "prod"}}, "annotations"
    ),
    # the log
    "logged": Scene(layers(lambda d: classic(A, payload(d), log=LOG)), LOGGED),
    "not logged": Scene(layers(lambda d: classic(A, payload(d))), LOGGED, "tlog"),
    "not logged, and nobody asks": Scene(layers(lambda d: classic(A, payload(d))), {**LOGGED, "tlog": "ignored"}),
    "asked without a known log": Scene(
        layers(lambda d: classic(A, payload(d), log=LOG)), {**KEYED, "tlog": "required"}, "tlog"
    ),
    "another log": Scene(layers(lambda d: classic(A, payload(d), log=Log("b"))), LOGGED, "tlog"),
    "a promise by another key": Scene(
        layers(
            lambda d: annotated(log=json.dumps({**LOG.promise({}, NOW), "SignedEntryTimestamp": b64(sign(B, b""))}))(d)
        ),
        LOGGED,
        "tlog",
    ),
    "an empty promise": Scene(
        layers(annotated(log=json.dumps({**LOG.promise({"kind": "x"}, NOW), "SignedEntryTimestamp": ""}))),
        LOGGED,
        "tlog",
    ),
    "logged of another payload": Scene(layers(entry_of(data=b"other")), LOGGED, "tlog"),
    "logged of another signature": Scene(layers(entry_of(signature=b"other")), LOGGED, "tlog"),
    "logged of another key": Scene(layers(entry_of(key=B)), LOGGED, "tlog"),
    "logged of a certificate": Scene(layers(entry_of(certificate=SIGSTORE.certify(A))), LOGGED, "tlog"),
    "logged of no key": Scene(
        layers(
            lambda d: entry_of(
                members={
                    "spec": {
                        **hashed_rekord(payload(d), sign(A, payload(d)), A)["spec"],
                        "signature": {"content": b64(sign(A, payload(d))), "publicKey": {"content": b64(b"no PEM")}},
                    }
                }
            )(d)
        ),
        LOGGED,
        "tlog",
    ),
    "logged as another kind": Scene(layers(entry_of(members={"kind": "rpm"})), LOGGED, "tlog"),
    # keyless
    "keyless": Scene(layers(keyless()), KEYLESS),
    "keyless and seen": Scene(layers(keyless()), SEEN),
    "keyless, by an intermediate": Scene(
        layers(
            lambda d: classic(
                A, payload(d), SIGSTORE.certify(A, by=(INTERMEDIATE, B)), [INTERMEDIATE, SIGSTORE.root], LOG
            )
        ),
        KEYLESS,
    ),
    "keyless, by somebody who is no authority": Scene(
        layers(lambda d: classic(A, payload(d), SIGSTORE.certify(A, by=(NO_CA, B)), [NO_CA, SIGSTORE.root], LOG)),
        KEYLESS,
        "certificate",
    ),
    "keyless, by an authority for servers": Scene(layers(issued_below(SERVERS)), KEYLESS, "certificate"),
    "keyless, by an authority for code": Scene(layers(issued_below(CODE_SIGNING)), KEYLESS),
    "keyless, by an authority for anything": Scene(
        layers(issued_below(purposes(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE))), KEYLESS
    ),
    "keyless, by a pinned authority for servers": Scene(
        layers(issued_below(SERVERS)), {**KEYLESS, "fulcio": [pem(below(SERVERS))]}, "certificate"
    ),
    "keyless, by an authority with a weak key": Scene(
        layers(issued_below(CODE_SIGNING, rsa_key(1024))), KEYLESS, "certificate"
    ),
    "keyless, not seen": Scene(layers(keyless(sct=False)), SEEN, "certificate"),
    "keyless, seen by another log": Scene(layers(keyless()), {**KEYLESS, "ctfe_keys": [pem(B)]}, "certificate"),
    "keyless, not logged": Scene(layers(keyless(log=None)), KEYLESS, "tlog"),
    "keyless, logged too late": Scene(layers(keyless(LATE)), KEYLESS, "certificate"),
    "keyless, logged too early": Scene(layers(keyless(EARLY)), KEYLESS, "certificate"),
    "keyless, another authority": Scene(
        layers(keyless()), {**KEYLESS, "fulcio": [pem(other_root().root)]}, "certificate"
    ),
    "keyless, not for code": Scene(
        layers(keyless(eku=purposes(ExtendedKeyUsageOID.SERVER_AUTH))), KEYLESS, "certificate"
    ),
    "keyless, for nothing": Scene(layers(keyless(eku=None)), KEYLESS, "certificate"),
    "keyless, an authority itself": Scene(layers(keyless(more=[AUTHORITY[0]])), KEYLESS, "certificate"),
    "keyless, not understood": Scene(layers(keyless(more=[UNKNOWN_CRITICAL])), KEYLESS, "certificate"),
    "keyless, another subject": Scene(layers(keyless(subject="mallory@example.com")), KEYLESS, "identity"),
    "keyless, another issuer": Scene(layers(keyless(issuer="https://elsewhere.example")), KEYLESS, "identity"),
    "keyless, two issuers": Scene(layers(keyless(more=[OLD_ISSUER])), KEYLESS, "malformed"),
    "keyless, half an expression": Scene(layers(keyless()), {**KEYLESS, "identities": [BY_REGEXP]}, "identity"),
    "keyless, the whole expression": Scene(
        layers(keyless()), {**KEYLESS, "identities": [{**BY_REGEXP, "subject_regexp": "release@example\\.com"}]}
    ),
    "keyless, of another image": Scene(
        layers(lambda d: classic(A, payload(ZERO), SIGSTORE.certify(A), [], LOG)), KEYLESS, "payload"
    ),
    "keyless, by another key": Scene(
        layers(lambda d: classic(B, payload(d), SIGSTORE.certify(A), [], LOG)), KEYLESS, "signature"
    ),
    "a certificate where keys are wanted": Scene(
        layers(lambda d: classic(B, payload(d), SIGSTORE.certify(B), [], LOG)), KEYED, "signature"
    ),
    "no certificate where one is wanted": Scene(
        layers(lambda d: classic(A, payload(d), log=LOG)), KEYLESS, "signature"
    ),
    # timestamps
    "timestamped": Scene(layers(stamped(NOW, response=True)), STAMPED),
    "timestamped too late": Scene(layers(stamped(LATE)), STAMPED, "certificate"),
    "timestamped, give or take an hour": Scene(layers(stamped(NOW, seconds=3600)), STAMPED, "certificate"),
    "timestamped, other bytes": Scene(layers(stamped(NOW, over=b"other")), STAMPED, "timestamp"),
    "timestamped by another": Scene(layers(stamped(NOW, TimestampAuthority("b"))), STAMPED, "timestamp"),
    "timestamped by somebody for more": Scene(
        layers(stamped(NOW, TimestampAuthority("tsa", purposes(ExtendedKeyUsageOID.TIME_STAMPING)))),
        STAMPED,
        "timestamp",
    ),
    "timestamped, naming another": Scene(layers(stamped(NOW, named=SIGSTORE.root)), STAMPED, "timestamp"),
    "not timestamped": Scene(layers(keyless(log=None)), STAMPED, "certificate"),
    # bundles
    "a bundle": Scene(bundles(lambda d: bundle(A, statement(d))), KEYED),
    "a bundle by another key": Scene(bundles(lambda d: bundle(B, statement(d))), KEYED, "signature"),
    "a bundle of another image": Scene(bundles(lambda d: bundle(A, statement(ZERO))), KEYED, "payload"),
    "a bundle about nothing": Scene(bundles(lambda d: bundle(A, statement(d, subject=[]))), KEYED, "payload"),
    "a bundle of another statement": Scene(bundles(lambda d: bundle(A, statement(d, _type="x"))), KEYED, "malformed"),
    "an attestation is no signature": Scene(
        bundles(lambda d: bundle(A, statement(d, PROVENANCE))), KEYED, "not_signed"
    ),
    "a bundle under another subject": Scene(
        bundles(lambda d: bundle(A, statement(d)), subject={"mediaType": "x", "digest": ZERO, "size": 1}),
        KEYED,
        "payload",
    ),
    "a bundle of two layers": Scene(bundles(lambda d: bundle(A, statement(d)), layers=[]), KEYED, "malformed"),
    "a bundle of another version": Scene(
        bundles(lambda d: bundle(A, statement(d), mediaType="application/vnd.dev.sigstore.bundle.v9+json")),
        KEYED,
        "malformed",
    ),
    "a bundle without an envelope": Scene(
        bundles(lambda d: bundle(A, statement(d), dsseEnvelope=None)), KEYED, "malformed"
    ),
    "an envelope of another type": Scene(
        bundles(
            lambda d: bundle(
                A,
                statement(d),
                dsseEnvelope={
                    "payload": b64(statement(d)),
                    "payloadType": "text/plain",
                    "signatures": [{"sig": b64(sign(A, pae(statement(d), "text/plain")))}],
                },
            )
        ),
        KEYED,
        "malformed",
    ),
    "a listed manifest of something else": Scene(
        bundles(lambda d: bundle(A, statement(d)), artifactType="text/plain"), KEYED, "not_signed"
    ),
    "a logged bundle": Scene(bundles(lambda d: logged_bundle(A, statement(d), LOG)), LOGGED),
    "a bundle not logged": Scene(bundles(lambda d: bundle(A, statement(d))), LOGGED, "tlog"),
    "a bundle logged of another": Scene(
        bundles(
            lambda d: bundle(A, statement(d), entries=[LOG.bundle_entry(dsse_entry(statement(d), b"other", A), NOW)])
        ),
        LOGGED,
        "tlog",
    ),
    "a bundle logged twice, once for another": Scene(
        bundles(
            lambda d: with_entry(logged_bundle(A, statement(d), LOG), LOG.bundle_entry(dsse_entry(b"x", b"x", B), NOW))
        ),
        LOGGED,
    ),
    "a keyless bundle": Scene(bundles(lambda d: logged_bundle(A, statement(d), LOG, SIGSTORE.certify(A))), SEEN),
    "a keyless bundle, timestamped": Scene(
        bundles(lambda d: stamped_bundle(d, NOW)), {**STAMPED, "ctfe_keys": [pem(SIGSTORE.ct_key)]}
    ),
    # classic signatures among the referrers
    "a referrer": Scene(referring(lambda d: classic(A, payload(d))), KEYED),
    "a referrer, logged and keyless": Scene(referring(keyless()), SEEN),
    "a referrer of two, the first broken": Scene(
        referring(annotated(signature="!"), lambda d: classic(A, payload(d))), KEYED
    ),
    "a referrer of two for a threshold": Scene(
        referring(lambda d: classic(A, payload(d)), lambda d: classic(B, payload(d))), {**BOTH, "threshold": 2}
    ),
    "a referrer by another key": Scene(referring(lambda d: classic(B, payload(d))), KEYED, "signature"),
    "a referrer of another image": Scene(referring(lambda d: classic(A, payload(ZERO))), KEYED, "payload"),
    "a referrer under another subject": Scene(
        referring(lambda d: classic(A, payload(d)), subject={"mediaType": "x", "digest": ZERO, "size": 1}),
        KEYED,
        "payload",
    ),
    "a referrer of nothing": Scene(referring(), KEYED, "not_signed"),
    # the sigstore library
    "sigstore": Scene(bundles(lambda d: logged_bundle(A, statement(d), LOG, SIGSTORE.certify(A))), ROOT),
    "sigstore, classic": Scene(layers(keyless()), ROOT),
    "sigstore, of another image": Scene(
        bundles(lambda d: logged_bundle(A, statement(ZERO), LOG, SIGSTORE.certify(A))), ROOT, "payload"
    ),
    "sigstore, an attestation": Scene(
        bundles(lambda d: logged_bundle(A, statement(d, PROVENANCE), LOG, SIGSTORE.certify(A))), ROOT, "not_signed"
    ),
    "sigstore, another subject": Scene(
        bundles(lambda d: logged_bundle(A, statement(d), LOG, SIGSTORE.certify(A, "mallory@example.com"))),
        ROOT,
        "identity",
    ),
    "sigstore, another log": Scene(
        bundles(lambda d: logged_bundle(A, statement(d), Log("b"), SIGSTORE.certify(A))), ROOT, "tlog"
    ),
    "sigstore, too late": Scene(
        bundles(lambda d: logged_bundle(A, statement(d), LOG, SIGSTORE.certify(A), LATE)), ROOT, "certificate"
    ),
    "sigstore, not seen": Scene(
        bundles(lambda d: logged_bundle(A, statement(d), LOG, SIGSTORE.certify(A, sct=False))), ROOT, "certificate"
    ),
    "sigstore, not logged": Scene(bundles(lambda d: bundle(A, statement(d), SIGSTORE.certify(A))), ROOT, "malformed"),
    "sigstore, another authority": Scene(
        bundles(lambda d: logged_bundle(A, statement(d), LOG, other_root().certify(A))), ROOT, "certificate"
    ),
}


OPENED, CLOSED = {"start": "2999-01-01T00:00:00Z"}, {"start": "2020-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}
RETIRED: dict[str, tuple[str, ...]] = {
    "tlogs": ("publicKey", "validFor"),
    "ctlogs": ("publicKey", "validFor"),
    "certificateAuthorities": ("validFor",),
    "timestampAuthorities": ("validFor",),
}


def rooted(part: str = "", period: Any = None, *, tsa: bool = False, **trust: Any) -> dict[str, Any]:
    """A trust root with a sigstore instance of which one part is trusted for another period only."""
    root = SIGSTORE.trusted_root()
    if tsa:
        root["timestampAuthorities"] = [
            {
                **root["certificateAuthorities"][0],
                "certChain": {"certificates": [{"rawBytes": b64(der(c))} for c in (TSA.certificate, TSA.root)]},
            }
        ]
    if part:
        *above, last = RETIRED[part]
        for item in root[part]:
            for name in above:
                item = item[name]
            item[last] = period
    return {"identities": [ANNA], "trusted_root": root, **trust}


def in_toto_bundle(digest: str, certificate: x509.Certificate | None = None) -> bytes:
    """As cosign attested into Rekor before it knew the kind ``dsse``."""
    made = json.loads(bundle(A, statement(digest), certificate))
    signature = base64.b64decode(made["dsseEnvelope"]["signatures"][0]["sig"])
    entry = LOG.bundle_entry(in_toto_entry(statement(digest), signature, A, certificate), NOW)
    made["verificationMaterial"]["tlogEntries"] = [entry]
    return json.dumps(made).encode()


def with_null(made: bytes, *names: str) -> bytes:
    document = json.loads(made)
    document["verificationMaterial"].update(dict.fromkeys(names))
    return json.dumps(document).encode()


def by_curve(curve: type[ec.EllipticCurve], chosen: hashes.HashAlgorithm) -> Callable[[str], Layer]:
    """Signed with the hash that goes with the curve."""
    key = ec_key("a", curve)
    return lambda d: classic(key, payload(d), signature=key.sign(payload(d), ec.ECDSA(chosen)))


def logged_by_curve(digest: str) -> Layer:
    """The log entry names the payload by SHA-384, too."""
    key = ec_key("a", ec.SECP384R1)
    data = payload(digest)
    signature = key.sign(data, ec.ECDSA(hashes.SHA384()))
    entry = hashed_rekord(data, signature, key)
    entry["spec"]["data"]["hash"] = {"algorithm": "sha384", "value": hashlib.sha384(data).hexdigest()}
    return classic(key, data, log=LOG, entry=entry, signature=signature)


def constrained(subject: str, **limits: Any) -> Callable[[str], Layer]:
    """Keyless, by an intermediate authority that may certify certain names only."""
    limit = x509.NameConstraints(limits.get("permitted"), limits.get("excluded"))
    between = certify({"CN": "between"}, B, [*AUTHORITY, (limit, True)], (SIGSTORE.root, SIGSTORE.root_key))
    leaf = SIGSTORE.certify(A, subject, by=(between, B))
    return lambda d: classic(A, payload(d), leaf, [between, SIGSTORE.root], LOG)


EXAMPLE = x509.RFC822Name("example.com")
P384, P521 = ({"keys": {"p": pem(ec_key("a", curve))}} for curve in (ec.SECP384R1, ec.SECP521R1))
SCENES |= {
    # each part of an instance is trusted for a period
    "the log was retired": Scene(layers(keyless()), rooted("tlogs", CLOSED), "tlog"),
    "the log was not yet trusted": Scene(layers(keyless()), rooted("tlogs", OPENED), "tlog"),
    "the log was retired, keyed": Scene(
        layers(lambda d: classic(A, payload(d), log=LOG)),
        {**KEYED, "trusted_root": rooted("tlogs", CLOSED)["trusted_root"]},
        "tlog",
    ),
    "the log was retired, a keyed bundle": Scene(
        bundles(lambda d: logged_bundle(A, statement(d), LOG)),
        {**KEYED, "trusted_root": rooted("tlogs", CLOSED)["trusted_root"]},
        "tlog",
    ),
    "the log is trusted, keyed": Scene(
        layers(lambda d: classic(A, payload(d), log=LOG)), {**KEYED, "trusted_root": rooted()["trusted_root"]}
    ),
    "the authority was retired": Scene(layers(keyless()), rooted("certificateAuthorities", CLOSED), "certificate"),
    "the log of certificates was retired": Scene(layers(keyless()), rooted("ctlogs", CLOSED), "certificate"),
    "the timestamp authority is trusted": Scene(layers(stamped(NOW)), rooted(tsa=True, tlog="ignored")),
    "the timestamp authority was retired": Scene(
        layers(stamped(NOW)), rooted("timestampAuthorities", CLOSED, tsa=True, tlog="ignored"), "timestamp"
    ),
    **{
        f"sigstore, {part} retired": Scene(
            bundles(lambda d: logged_bundle(A, statement(d), LOG, SIGSTORE.certify(A))), rooted(part, CLOSED), reason
        )
        for part, reason in (("tlogs", "tlog"), ("certificateAuthorities", "certificate"), ("ctlogs", "certificate"))
    },
    # the hash that goes with a curve
    "by P-384 and SHA-384": Scene(layers(by_curve(ec.SECP384R1, hashes.SHA384())), P384),
    "by P-521 and SHA-512": Scene(layers(by_curve(ec.SECP521R1, hashes.SHA512())), P521),
    "by P-384 and SHA-256": Scene(layers(by_curve(ec.SECP384R1, hashes.SHA256())), P384),
    "by P-384 and SHA-512": Scene(layers(by_curve(ec.SECP384R1, hashes.SHA512())), P384, "signature"),
    "by P-256 and SHA-384": Scene(layers(by_curve(ec.SECP256R1, hashes.SHA384())), KEYED, "signature"),
    "by P-384 and SHA-384, logged": Scene(layers(logged_by_curve), {**P384, "rekor_keys": [pem(LOG.key)]}),
    # what older and other clients write
    "an intoto entry": Scene(bundles(in_toto_bundle), LOGGED),
    "an intoto entry, keyless": Scene(bundles(lambda d: in_toto_bundle(d, SIGSTORE.certify(A))), SEEN),
    "an intoto entry, sigstore": Scene(bundles(lambda d: in_toto_bundle(d, SIGSTORE.certify(A))), ROOT),
    "an intoto entry, the log retired": Scene(
        bundles(lambda d: in_toto_bundle(d, SIGSTORE.certify(A))), rooted("tlogs", CLOSED), "tlog"
    ),
    "null where nothing is, keyed": Scene(
        bundles(
            lambda d: with_null(bundle(A, statement(d)), "timestampVerificationData", "tlogEntries", "certificate")
        ),
        KEYED,
    ),
    "null where nothing is, sigstore": Scene(
        bundles(
            lambda d: with_null(
                logged_bundle(A, statement(d), LOG, SIGSTORE.certify(A)), "timestampVerificationData", "publicKey"
            )
        ),
        ROOT,
    ),
    "null where a log entry is needed": Scene(
        bundles(lambda d: with_null(logged_bundle(A, statement(d), LOG), "tlogEntries")), LOGGED, "tlog"
    ),
    # name constraints
    "constrained to its own names": Scene(layers(constrained("release@example.com", permitted=[EXAMPLE])), KEYLESS),
    "constrained to other names": Scene(
        layers(constrained("release@example.com", permitted=[x509.RFC822Name("example.org")])), KEYLESS, "certificate"
    ),
    "constrained against its names": Scene(
        layers(constrained("release@example.com", excluded=[EXAMPLE])), KEYLESS, "certificate"
    ),
    "constrained in names of another kind": Scene(
        layers(constrained("release@example.com", permitted=[x509.DNSName("example.org")])), KEYLESS
    ),
    # one bad certificate
    "a certificate with a bit string beside a good signature": Scene(
        bundles(
            lambda d: raw_certificate(logged_bundle(A, statement(d), LOG, SIGSTORE.certify(A))),
            lambda d: logged_bundle(A, statement(d), LOG, SIGSTORE.certify(A)),
        ),
        ROOT,
    ),
    "a certificate with a bit string": Scene(
        bundles(lambda d: raw_certificate(logged_bundle(A, statement(d), LOG, SIGSTORE.certify(A)))), ROOT, "malformed"
    ),
}


def raw_certificate(made: bytes) -> bytes:
    """The bundle with a certificate whose subject is no text, at which the library raises TypeError."""
    document = json.loads(made)
    document["verificationMaterial"]["certificate"]["rawBytes"] = b64(BIT_STRING.read_bytes())
    return json.dumps(document).encode()


def stamped_bundle(digest: str, at: Any) -> bytes:
    made = json.loads(bundle(A, statement(digest), SIGSTORE.certify(A)))
    signature = base64.b64decode(made["dsseEnvelope"]["signatures"][0]["sig"])
    listed = [{"signedTimestamp": b64(TSA.token(signature, at))}]
    made["verificationMaterial"]["timestampVerificationData"] = {"rfc3161Timestamps": listed}
    return json.dumps(made).encode()


def with_entry(made: bytes, entry: Mapping[str, Any]) -> bytes:
    """The bundle with another log entry before its own."""
    document = json.loads(made)
    document["verificationMaterial"]["tlogEntries"].insert(0, entry)
    return json.dumps(document).encode()


def play(scene: Scene, **how: Any) -> tuple[Verification, ...]:
    files = Files()
    image = files.put_image()
    scene.put(files, image)
    with serving(files) as client:
        return verify(Cosign(), client, image, scene.trust, require_signers=scene.require_signers, **how)


@pytest.mark.parametrize("name", SCENES)
def test_a_rule(name: str) -> None:
    scene = SCENES[name]
    answer = play(scene)[0]
    expected = {"": TrustStatus.VERIFIED, "not_signed": TrustStatus.NOT_SIGNED}.get(scene.reason, TrustStatus.REFUSED)
    assert (answer.status, answer.reason) == (expected, scene.reason), answer.detail
    assert bool(answer.signers) is (scene.reason in ("", "threshold", "signer_missing"))


def test_forty_signers_are_all_named() -> None:
    keys = {f"s{number}": ec_key(f"s{number}") for number in range(40)}
    scene = Scene(
        layers(*(lambda d, key=key: classic(key, payload(d)) for key in keys.values())),  # type: ignore[misc]
        {"keys": {name: pem(key) for name, key in keys.items()}, "threshold": 40},
    )
    (answer,) = play(scene)
    assert {signer.name for signer in answer.signers} == set(keys)


def test_who_signed_is_told() -> None:
    (keyed,) = play(SCENES["by the key"])
    assert [(s.name, s.keyid) for s in keyed.signers] == [("a", key_id(A.public_key()))]
    assert keyed.notes == ("the trust root does not require the transparency log",)
    (person,) = play(SCENES["keyless"])
    assert [(s.name, s.issuer) for s in person.signers] == [("release@example.com", "https://accounts.example.com")]
    assert person.notes == ()


# A step taken away, what stands in its place, and the scene whose verdict then is another.
ACCEPTING: dict[str, tuple[str, Callable[..., Any], str]] = {
    "1 the signature": ("verify_signature", lambda *a: True, "by another key"),
    "2 the promise": ("check_promise", lambda *a: None, "another log"),
    "2 the entry": ("check_entry", lambda *a: None, "logged of another key"),
    "2 the log": ("check_log", lambda *a, **k: None, "not logged"),
    "3 the certificate": (
        "check_certificate",
        lambda leaf, others, roots, times: (leaf, roots[0]),
        "keyless, another authority",
    ),
    "3 its purpose": (
        "check_certificate",
        lambda leaf, others, roots, times: (leaf, roots[0]),
        "keyless, not for code",
    ),
    "3 its time": (
        "check_certificate",
        lambda leaf, others, roots, times: (leaf, roots[0]),
        "keyless, logged too late",
    ),
    "3 the certificate's log": ("check_sct", lambda *a: None, "keyless, not seen"),
    "3 the identity": (
        "check_identity",
        lambda *a: KeylessSigner("anybody", "anywhere"),
        "keyless, another subject",
    ),
    "3 the timestamp": (
        "verify_timestamp",
        lambda *a: Timestamp(NOW, NOW, ""),
        "timestamped, other bytes",
    ),
    "4 simple signing": ("check_simple_signing", lambda *a: {}, "of another image"),
    "4 the statement": (
        "check_statement",
        lambda *a: Statement(SIGNATURE_PREDICATE, (), {}),
        "a bundle of another image",
    ),
    "4 the predicate type": ("SIGNATURE_PREDICATE", PROVENANCE, "an attestation is no signature"),
    "5 the annotations": ("check_annotations", lambda *a: None, "annotated otherwise"),
}


@pytest.mark.parametrize("step", ACCEPTING)
def test_a_step_taken_away_is_noticed(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, stand_in, scene = ACCEPTING[step]
    assert play(SCENES[scene])[0].status is not TrustStatus.VERIFIED
    monkeypatch.setattr(verification, name, stand_in)
    assert play(SCENES[scene])[0].status is TrustStatus.VERIFIED


def test_attestations_are_answered_beside_the_signature() -> None:
    predicate = {
        "runDetails": {"builder": {"id": "https://ci.example/1"}},
        "buildDefinition": {"resolvedDependencies": [{"uri": "git+x"}]},
    }

    def put(files: Files, image: Descriptor) -> None:
        put_layers(files, image, [classic(A, payload(image.digest))])
        sbom = {
            **json.loads(statement(image.digest, "https://cyclonedx.org/bom", {"bomFormat": "CycloneDX"})),
            "_type": "https://in-toto.io/Statement/v0.1",
        }
        put_layers(
            files,
            image,
            [attestation(A, json.dumps(sbom).encode(), LOG), attestation(B, statement(image.digest, "x"), LOG)],
            "att",
        )
        put_bundle(files, image, logged_bundle(A, statement(image.digest, PROVENANCE, predicate), LOG))

    signature, *others = play(Scene(put, {**LOGGED, "tlog": "ignored"}))
    assert (signature.status, signature.predicate_type) == (TrustStatus.VERIFIED, "")
    assert [(o.status, o.predicate_type, o.signers[0].name) for o in others] == [
        (TrustStatus.VERIFIED, "https://cyclonedx.org/bom", "a"),
        (TrustStatus.VERIFIED, PROVENANCE, "a"),
    ]
    assert dict(others[1].predicate) == {
        "runDetails.builder.id": "https://ci.example/1",
        "buildDefinition.resolvedDependencies.0.uri": "git+x",
    }
    logged, *others = play(Scene(put, LOGGED))
    # The attestations are in the log, the signature is not.
    assert (logged.status, len(others)) == (
        TrustStatus.REFUSED,
        2,
    )


BUILT = {"runDetails": {"builder": {"id": "https://ci.example/1"}}, "complete": True}
IN_POLICY: dict[str, tuple[dict[str, Any], RuleStatus]] = {
    "signed": ({}, RuleStatus.SATISFIED),
    "signed by name": ({"signers": ["a"]}, RuleStatus.SATISFIED),
    "signed by key": ({"keys": [key_id(A.public_key())]}, RuleStatus.SATISFIED),
    "signed by another": ({"signers": ["b"]}, RuleStatus.UNSATISFIED),
    "built": (
        {"attestation": PROVENANCE, "fields": {"runDetails.builder.id": "https://ci.example/1", "complete": True}},
        RuleStatus.SATISFIED,
    ),
    "built elsewhere": (
        {"attestation": PROVENANCE, "fields": {"runDetails.builder.id": "https://ci.example/2"}},
        RuleStatus.UNSATISFIED,
    ),
    "built by another": ({"attestation": PROVENANCE, "signers": ["b"]}, RuleStatus.UNSATISFIED),
    "described": ({"attestation": "https://cyclonedx.org/bom"}, RuleStatus.UNSATISFIED),
    "described at length": (
        {"attestation": "https://spdx.dev/Document", "fields": {"spdxVersion": "SPDX-2.3"}},
        RuleStatus.SATISFIED,
    ),
    "described beside the length": (
        {"attestation": "https://spdx.dev/Document", "fields": {"last": "x"}},
        RuleStatus.SATISFIED,
    ),
    "described too much at length": (
        {"attestation": "https://spdx.dev/Document", "fields": {"packages.0.name": "0"}},
        RuleStatus.UNKNOWN,
    ),
}


@pytest.mark.parametrize("name", IN_POLICY)
def test_what_a_policy_can_ask_of_it(name: str) -> None:
    selected, judgement = IN_POLICY[name]
    long = {"spdxVersion": "SPDX-2.3", "packages": [{"name": str(n)} for n in range(3000)], "last": "x"}

    def put(files: Files, image: Descriptor) -> None:
        put_layers(files, image, [classic(A, payload(image.digest))])
        for kind, predicate in ((PROVENANCE, BUILT), ("https://spdx.dev/Document", long)):
            put_bundle(files, image, bundle(A, statement(image.digest, kind, predicate)))

    answers = play(Scene(put, KEYED))
    about = [answer.digest for answer in answers if answer.digest]
    judged = judge(
        signatures_of(SignatureSelector(scheme=("cosign",), **selected)), answers, about, NOW, timedelta(hours=1)
    )
    assert judged.status is judgement, judged.message


def test_a_predicate_is_cut_and_says_so() -> None:
    deep: Any = "end"
    for _ in range(20):
        deep = {"x": deep}
    for predicate in ({"a": 1, "deep": deep}, {"a": 1, "list": list(range(5000))}, {"a": 1, "z": "x" * 1000}):
        fields, cut = flatten(predicate)
        assert cut
        assert fields[0] == ("a", "1")
        assert len(fields) <= 500
    assert flatten({"a.b": "forged", "a": {"b": "true"}, "c": 1}) == ((("c", "1"),), True)
    assert flatten({"a": {"b": [True, None, 1.5]}}) == ((("a.b.0", "true"), ("a.b.2", "1.5")), False)


def test_without_a_trust_root_nothing_is_accepted() -> None:
    files = Files()
    image = files.put_image()
    with serving(files) as client:
        assert verify(Cosign(), client, image)[0].status is TrustStatus.NOT_SIGNED
        put_layers(files, image, [classic(A, payload(image.digest))])
        (answer,) = verify(Cosign(), client, image)
    assert (answer.status, answer.reason) == (TrustStatus.UNKNOWN, "no_trust_root")


def test_each_trust_root_answers_for_itself() -> None:
    files = Files()
    image = files.put_image()
    put_layers(files, image, [classic(A, payload(image.digest))])
    with serving(files) as client:
        answers = verify(Cosign(), client, image, KEYED, {"keys": {"b": pem(B)}})
    assert [(a.trust, a.status) for a in answers] == [("root-0", TrustStatus.VERIFIED), ("root-1", TrustStatus.REFUSED)]


def failing(*paths: str) -> tuple[Files, Descriptor, dict[str, int]]:
    files = Files()
    image = files.put_image()
    put_layers(files, image, [classic(A, payload(image.digest))])
    named = {
        "sig": f"/v2/team/app/manifests/sha256-{image.digest.hex}.sig",
        "att": f"/v2/team/app/manifests/sha256-{image.digest.hex}.att",
        "referrers": f"/v2/team/app/referrers/{image.digest}",
    }
    return files, image, {named.get(path, path): 500 for path in paths}


@pytest.mark.parametrize("path", ["sig", "*"])
def test_what_cannot_be_asked_is_unknown(path: str) -> None:
    files, image, faults = failing(path)
    with serving(files, faults) as client:
        (answer,) = verify(Cosign(), client, image, KEYED)
        (without,) = verify(Cosign(), client, image)
    assert (answer.status, answer.reason) == (TrustStatus.UNKNOWN, "unavailable")
    assert without.status is TrustStatus.UNKNOWN


def test_what_cannot_be_asked_and_is_not_needed() -> None:
    files, image, faults = failing("referrers")
    with serving(files, faults) as client:
        signature, attestations = answers = verify(Cosign(), client, image, KEYED)
        (other,) = verify(Cosign(), client, image, {"keys": {"b": pem(B)}})
    assert signature.status is TrustStatus.VERIFIED
    assert (attestations.status, attestations.predicate_type) == (TrustStatus.UNKNOWN, "*")
    for selected, judgement in (({}, RuleStatus.SATISFIED), ({"attestation": PROVENANCE}, RuleStatus.UNKNOWN)):
        selector = signatures_of(SignatureSelector(scheme=("cosign",), **selected))
        judged = judge(selector, answers, [image.digest], NOW, timedelta(hours=1))
        assert judged.status is judgement
    assert other.status is TrustStatus.UNKNOWN, "the missing signature may stand where we could not look"


def test_a_blob_that_is_missing_or_another_is_refused() -> None:
    files = Files()
    image = files.put_image()
    put_layers(files, image, [classic(A, payload(image.digest))])
    blob = next(path for path, data in files.items() if data == payload(image.digest))
    for changed, reason in ((b"other", "checksum"), (None, "missing")):
        altered = Files({**files, blob: changed} if changed else {k: v for k, v in files.items() if k != blob})
        with serving(altered) as client:
            (answer,) = verify(Cosign(), client, image, KEYED)
        assert (answer.status, answer.reason) == (TrustStatus.REFUSED, reason)


def test_no_more_signatures_are_examined_than_allowed() -> None:
    settings = Settings(limits=Limits(signatures=2))
    bad = [classic(B, payload(ZERO, n=n)) for n in range(2)]

    def put(files: Files, image: Descriptor) -> None:
        put_layers(files, image, [*bad, classic(A, payload(image.digest))])

    (answer,) = play(Scene(put, KEYED), settings=settings)
    assert (answer.status, answer.reason) == (TrustStatus.UNKNOWN, "too_many_signatures")
    assert play(Scene(put, KEYED))[0].status is TrustStatus.VERIFIED


@pytest.mark.parametrize("kind", ["application/vnd.cyclonedx+json", "application/spdx+json", "", "attestations"])
def test_many_artifacts_do_not_hide_a_signature(kind: str) -> None:
    """300 SBOMs, or attestations that say so, listed before the signature; 64 was once the end of the list."""
    files = Files()
    image = files.put_image()
    if kind == "attestations":
        for n in range(60):
            files.put_referrer(image, BUNDLE, BUNDLE, bundle(A, statement(image.digest, PROVENANCE, {"n": n})))
        path = f"/v2/team/app/referrers/{image.digest}"
        index = json.loads(files[path])
        for item in index["manifests"]:
            item["annotations"] = {"dev.sigstore.bundle.predicateType": PROVENANCE}
        files[path] = json.dumps(index).encode()
    else:
        for n in range(300 if kind else 70):
            files.put_referrer(image, kind, "text/plain", b"%d" % n)
    put_bundle(files, image, bundle(A, statement(image.digest)))
    few = Settings(limits=Limits(signatures=50))
    with serving(files) as client:
        assert verify(Cosign(), client, image, KEYED, settings=few)[0].status is TrustStatus.VERIFIED


@pytest.mark.parametrize("name", ["a list", "of two layers", "an index", "garbage"])
def test_a_signature_manifest_that_is_none(name: str) -> None:
    files = Files()
    image = files.put_image()
    documents = {
        "a list": b"[]",
        "of two layers": json.dumps({"schemaVersion": 2, "mediaType": "x", "layers": [{}, {}]}).encode(),
        "an index": b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}',
        "garbage": b"\xff\xfe",
    }
    files[f"/v2/team/app/manifests/sha256-{image.digest.hex}.sig"] = documents[name]
    with serving(files) as client:
        (answer,) = verify(Cosign(), client, image, KEYED)
    assert answer.status is (TrustStatus.NOT_SIGNED if name == "an index" else TrustStatus.REFUSED)


def test_bundles_by_the_tag_of_old_registries() -> None:
    files = Files()
    image = files.put_image()
    put_bundle(files, image, bundle(A, statement(image.digest)))
    index = files.pop(f"/v2/team/app/referrers/{image.digest}")
    untyped = json.loads(index)
    del untyped["manifests"][0]["artifactType"]
    for listed in (index, json.dumps(untyped).encode()):
        files[f"/v2/team/app/manifests/sha256-{image.digest.hex}"] = listed
        with serving(files) as client:
            assert verify(Cosign(), client, image, KEYED)[0].status is TrustStatus.VERIFIED


UNSOUND: dict[str, tuple[Mapping[str, Any], str]] = {
    "nobody": ({"threshold": 1}, "names no signer"),
    "no subject": ({"identities": [{"issuer": "a"}]}, "exactly one of subject"),
    "two issuers": ({"identities": [{**ANNA, "issuer_regexp": "a"}]}, "exactly one of issuer"),
    "two instances": ({**KEYLESS, "trusted_root": "bundled"}, "not both"),
    "half an instance": ({"identities": [ANNA], "rekor_keys": [pem(LOG.key)]}, "fulcio is missing"),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_a_document_that_contradicts_itself(name: str) -> None:
    document, words = UNSOUND[name]
    with pytest.raises(UsageError, match=r"^trust\.json: ") as caught:
        Cosign().parse_trust(json.dumps(document).encode(), "trust.json")
    assert words in str(caught.value)
    assert caught.value.reason == UNSOUND_TRUST


WRONG: dict[str, tuple[Mapping[str, Any], str]] = {
    "a private key": (
        {"keys": {"a": "-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n"}},
        "keys.a: this is a private key",
    ),
    "a key too small": ({"keys": {"a": pem(rsa_key(1024))}}, "keys.a: not a key of a usable kind"),
    "a threshold of none": ({**KEYED, "threshold": 0}, "threshold"),
    "a threshold in words": ({**KEYED, "threshold": "2"}, "threshold"),
    "no expression": (
        {"identities": [{"issuer": "a", "subject_regexp": "("}]},
        "identities.0.subject_regexp: not a regular",
    ),
    "no certificate": ({**KEYLESS, "fulcio": [pem(A)]}, "fulcio.0: not PEM certificates"),
    "no trusted root": ({"identities": [ANNA], "trusted_root": {"mediaType": "x"}}, "not a sigstore trusted root"),
    "an unknown field": ({**KEYED, "rekor": []}, "rekor: unknown field"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_document_of_another_form_names_its_member(name: str) -> None:
    document, words = WRONG[name]
    with pytest.raises(UsageError) as caught:
        Cosign().parse_trust(json.dumps(document).encode(), "trust.json")
    assert words in str(caught.value)
    assert caught.value.reason == "bad_input"


def test_a_trust_root_that_was_damaged_says_so() -> None:
    files = Files()
    image = files.put_image()
    with serving(files) as client:
        root = TrustRoot("broken", "cosign", {"keys": {"a": "no PEM"}})
        reference = Reference(client.host, "team/app", "v1", image.digest)
        job = TrustJob(reference=reference, roots=(root,), now=NOW, state=NoState(), descriptor=image, fetch=client)
        (answer,) = Cosign().verify(job)
    assert (answer.status, answer.reason) == (TrustStatus.UNKNOWN, "trust_root_invalid")


def test_a_file_of_keys_is_a_document() -> None:
    scheme = Cosign()
    one = scheme.parse_trust(pem(A).encode(), "/keys/release.pub")
    assert one == {"keys": {"release": pem(A)}}
    two = scheme.parse_trust((pem(A) + pem(B)).encode(), "team.pem")
    assert list(two["keys"]) == ["team-1", "team-2"]
    assert scheme.parse_trust(json.dumps(two).encode(), "stored") == two


def test_the_public_instance_is_trusted_where_nothing_else_is_said() -> None:
    """The library's own root can be read, and by it a stranger's instance is none."""
    scene = Scene(SCENES["sigstore"].put, {"identities": [ANNA]})
    assert play(scene)[0].reason == "certificate"


@pytest.mark.parametrize("trust", [{}, {"trusted_root": "bundled"}, KEYED])
def test_a_timestamp_does_not_replace_the_log_of_the_public_instance(trust: dict[str, Any]) -> None:
    """Its root names a timestamp authority. A thief of an identity must not be able to sign unseen by it."""
    layer = stamped(NOW)(ZERO)
    signed = parse_classic(layer.data, layer.annotations, attestation=False)
    with pytest.raises(SignatureRefused, match="no entry of the transparency log"):
        verification.verify_one(signed, parse_trust({"identities": [ANNA], **trust, "keys": {}}), Digest(ZERO))
    assert not parse_trust({"identities": [ANNA], "tlog": "ignored"}).keyless_log_required


def test_an_attestation_names_all_its_signers() -> None:
    def put(files: Files, image: Descriptor) -> None:
        body = statement(image.digest, PROVENANCE)
        signatures = [{"sig": b64(sign(key, pae(body)))} for key in (A, B)]
        envelope = {"payload": b64(body), "payloadType": "application/vnd.in-toto+json", "signatures": signatures}
        put_bundle(files, image, bundle(A, body, dsseEnvelope=envelope))

    _, attested = play(Scene(put, BOTH))
    assert [signer.name for signer in attested.signers] == ["a", "b"]


def test_one_person_who_attests_twice_is_one() -> None:
    """Each keyless signature has a key of its own. Two of them are not two signers."""

    def put(files: Files, image: Descriptor) -> None:
        for key in (A, B):
            put_bundle(
                files, image, logged_bundle(key, statement(image.digest, PROVENANCE), LOG, SIGSTORE.certify(key))
            )

    answers = play(Scene(put, SEEN))
    assert [answer.status for answer in answers[1:]] == [TrustStatus.VERIFIED] * 2
    assert len({answer.signers[0].keyid for answer in answers[1:]}) == 2
    selector = signatures_of(SignatureSelector(scheme=("cosign",), attestation=PROVENANCE, require=2))
    about = [answer.digest for answer in answers if answer.digest]
    assert judge(selector, answers, about, NOW, timedelta(hours=1)).status is RuleStatus.UNSATISFIED
