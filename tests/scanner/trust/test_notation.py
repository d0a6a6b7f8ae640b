"""Notation: the sample cases, then every rule on envelopes made here, then each step taken away."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from scanner.config import Limits, Settings
from scanner.errors import UsageError
from scanner.model.finding import TrustStatus, Verification
from scanner.model.reference import Descriptor
from scanner.policy.document import SignatureSelector, signatures_of
from scanner.policy.signatures import RuleStatus, judge
from scanner.trust._notation import verification
from scanner.trust._notation.envelope import parse_envelope
from scanner.trust._notation.policy import parse_name
from scanner.trust._pki import key_id
from scanner.trust.base import UNSOUND_TRUST, SignatureRefused
from scanner.trust.notation import Notation
from tests.scanner.trust.certificates import (
    ACME,
    AUTHORITY,
    CODE_SIGNING,
    LEAF,
    TimestampAuthority,
    certify,
    ec_key,
    pem,
    purposes,
    rsa_key,
    usage,
)
from tests.scanner.trust.notation_signing import (
    ABSENT,
    AUTHENTIC,
    COSE,
    EXPIRY,
    JWS,
    PAYLOAD,
    SCHEME,
    TIME,
    Chain,
    cose,
    epoch,
    jws,
    put_envelope,
    raw_sign,
    target,
)
from tests.scanner.trust.trees import NOW, Files, cases, run_case, serving, verify

CASES = cases("cases_notation.json")
DAY = timedelta(days=1)
CHAIN, TSA = Chain(), TimestampAuthority()
RELEASE = "x509.subject: C=US, ST=WA, O=ACME, CN=release"
BY_AUTHORITY = {
    SCHEME: "notary.x509.signingAuthority",
    TIME: ABSENT,
    AUTHENTIC: "2026-11-23T07:00:00Z",
    "crit": [SCHEME, AUTHENTIC],
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_sample_cases(case: dict[str, Any]) -> None:
    answer = run_case(Notation(), case)
    if "digest" in case["expect"]:
        assert (answer.status, answer.digest) == (TrustStatus.VERIFIED, case["expect"]["digest"])
        assert answer.notes, "what was not checked is said"
    else:
        assert answer.status in (TrustStatus.REFUSED, TrustStatus.NOT_SIGNED)
        assert answer.reason in case["expect"]["error"], answer


def trust(
    level: str = "strict",
    stores: tuple[str, ...] = ("ca:acme",),
    identities: tuple[str, ...] = ("*",),
    scopes: tuple[str, ...] = ("*",),
    override: Mapping[str, str] | None = None,
    **other: Any,
) -> dict[str, Any]:
    verifying: dict[str, Any] = {"level": level, **({"override": dict(override)} if override else {}), **other}
    policy = {
        "name": "p",
        "registryScopes": scopes,
        "signatureVerification": verifying,
        "trustStores": stores,
        "trustedIdentities": identities,
    }
    certificates = {
        "ca:acme": [pem(CHAIN.top)],
        "ca:other": [pem(certify({"CN": "other"}, ec_key("other"), AUTHORITY))],
        "signingAuthority:acme": [pem(CHAIN.top)],
        "tsa:acme": [pem(TSA.root)],
        "tsa:other": [pem(TimestampAuthority("other").root)],
    }
    return {"trustpolicy": {"version": "1.0", "trustPolicies": [policy]}, "stores": certificates}


@dataclass(frozen=True)
class Scene:
    """An envelope for the image, by which trust, when, and the reason of its refusal; empty: it verifies."""

    make: Callable[[Descriptor], bytes]
    trust: Mapping[str, Any] = field(default_factory=trust)
    reason: str = ""
    media_type: str = JWS
    now: datetime = NOW
    require_signers: tuple[str, ...] = ()
    manifest: Mapping[str, Any] = field(default_factory=dict)


def a_jws(chain: Chain = CHAIN, **how: Any) -> Callable[[Descriptor], bytes]:
    return lambda image: jws(target(image), chain, **how)


def a_cose(chain: Chain = CHAIN, **how: Any) -> Callable[[Descriptor], bytes]:
    return lambda image: cose(target(image), chain, **how)


def headed(chain: Chain = CHAIN, **changed: Any) -> Callable[[Descriptor], bytes]:
    """A JWS whose protected header has other members: ``crit=[…]``."""
    return a_jws(chain, header=changed)


def also_unsigned(**members: Any) -> Callable[[Descriptor], bytes]:
    """A JWS that has more members in its unprotected header."""

    def make(image: Descriptor) -> bytes:
        document = json.loads(jws(target(image), CHAIN))
        document["header"].update(members)
        return json.dumps(document).encode()

    return make


def about(**changed: Any) -> Callable[[Descriptor], bytes]:
    return lambda image: jws(target(image, **changed), CHAIN)


def leaf(*extensions: tuple[x509.ExtensionType, bool]) -> Chain:
    return Chain(leaf=extensions)


def expiring(when: str, critical: bool = True) -> Callable[[Descriptor], bytes]:
    return a_jws(header={EXPIRY: when, "crit": [SCHEME, EXPIRY] if critical else [SCHEME]})


def stamp(at: datetime = NOW, tsa: TimestampAuthority = TSA, over: bytes = b"", **how: Any) -> Callable[[bytes], bytes]:
    return lambda signature: tsa.token(over or signature, at, **how)


BASIC, SIGN = (x509.BasicConstraints(False, None), True), usage(digital_signature=True)
EXPIRED = Chain(leaf_times={"since": NOW - 2 * DAY, "until": NOW + DAY})
LATER = NOW + 30 * DAY
TIMED = trust(stores=("ca:acme", "tsa:acme"))
REVERSED = list(reversed(CHAIN.certificates))
SHORT = (x509.BasicConstraints(True, 0), True)
UNKNOWN_CRITICAL = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True)
SOLO = certify({"C": "US", "ST": "WA", "O": "ACME", "CN": "solo"}, ec_key("leaf"), LEAF)
INJECTED = Chain(subject={"C": "US", "ST": "WA", "O": "ACME, CN=release", "CN": "mallory"})
_REST = (
    b"\x02\x81"
    + cbor2.dumps(SCHEME)
    + b"\x03"
    + cbor2.dumps(PAYLOAD)
    + cbor2.dumps(SCHEME)
    + cbor2.dumps("notary.x509")
)
_REST += cbor2.dumps(TIME) + cbor2.dumps(epoch(NOW))
# CBOR true and 1.0 instead of the label 1.
UNDER_TRUE, UNDER_FLOAT = (
    b"\xa5\xf5\x26" + _REST,
    b"\xa5\xf9\x3c\x00\x26" + _REST,
)
DOUBLE = (
    b"\xa6\x01\x26\x01\x26\x02\x81"
    + cbor2.dumps(SCHEME)
    + b"\x03"
    + cbor2.dumps("x")
    + cbor2.dumps(SCHEME)
    + cbor2.dumps("notary.x509")
)

SCENES: dict[str, Scene] = {
    # integrity
    "a JWS": Scene(a_jws()),
    "a COSE": Scene(a_cose(), media_type=COSE),
    **{
        f"{name} {size}": Scene(make(Chain(key)), media_type=kind)
        for name, size, key in (
            ("P", 384, ec_key("leaf", ec.SECP384R1)),
            ("P", 521, ec_key("leaf", ec.SECP521R1)),
            ("RSA", 2048, rsa_key()),
            ("RSA", 3072, rsa_key(3072)),
        )
        for make, kind in ((a_jws, JWS),)
    },
    "RSA in COSE": Scene(a_cose(Chain(rsa_key())), media_type=COSE),
    "alg of another key": Scene(headed(alg="ES384"), reason="signature"),
    "alg none": Scene(headed(alg="none"), reason="signature"),
    "alg of COSE in a JWS": Scene(headed(alg=-7), reason="malformed"),
    "alg of COSE in a JWS, as a text": Scene(headed(alg="-7"), reason="signature"),
    "alg of COSE in a JWS, with a point": Scene(headed(alg=-7.0), reason="malformed"),
    "alg of a JWS in COSE": Scene(a_cose(header={1: "ES256"}), reason="malformed", media_type=COSE),
    "alg under true in COSE": Scene(a_cose(protected=UNDER_TRUE), reason="malformed", media_type=COSE),
    "alg under 1.0 in COSE": Scene(a_cose(protected=UNDER_FLOAT), reason="malformed", media_type=COSE),
    "a header of COSE's in crit": Scene(headed(crit=[SCHEME, 1]), reason="malformed"),
    "true in crit": Scene(a_cose(header={2: [SCHEME, True]}), reason="malformed", media_type=COSE),
    "a header signed and unsigned": Scene(also_unsigned(alg="ES256"), reason="malformed"),
    "crit unsigned": Scene(also_unsigned(crit=[SCHEME]), reason="malformed"),
    "alg missing": Scene(headed(alg=ABSENT), reason="malformed"),
    "alg of PKCS#1": Scene(headed(Chain(rsa_key()), alg="RS256"), reason="signature"),
    "signed by another": Scene(a_jws(signature=raw_sign(ec_key("other"), b"", hashes.SHA256())), reason="signature"),
    "signed in DER": Scene(a_jws(signature=ec_key("leaf").sign(b"", ec.ECDSA(hashes.SHA256()))), reason="signature"),
    "signed with nothing": Scene(a_jws(signature=b""), reason="signature"),
    "another payload": Scene(a_jws(payload="e30"), reason="signature"),
    # form
    "a member too many": Scene(a_jws(more=1), reason="malformed"),
    "a member missing": Scene(a_jws(payload=ABSENT), reason="malformed"),
    "padded": Scene(a_jws(payload="e30="), reason="malformed"),
    "two texts for one": Scene(a_jws(payload="e31"), reason="malformed"),
    "not JSON": Scene(lambda image: b"{", reason="malformed"),
    "no certificates": Scene(a_jws(certificates=[]), reason="malformed"),
    "certificates that are no list": Scene(
        lambda image: json.dumps({**json.loads(a_jws()(image)), "header": {"x5c": "x"}}).encode(), reason="malformed"
    ),
    "certificates that are none": Scene(
        lambda image: json.dumps({**json.loads(a_jws()(image)), "header": {"x5c": ["eA=="]}}).encode(),
        reason="malformed",
    ),
    "untagged": Scene(a_cose(tag=None), reason="malformed", media_type=COSE),
    "another tag": Scene(a_cose(tag=98), reason="malformed", media_type=COSE),
    "something after": Scene(lambda image: a_cose()(image) + b"\0", reason="malformed", media_type=COSE),
    "a header twice": Scene(a_cose(protected=DOUBLE), reason="malformed", media_type=COSE),
    "a time as text": Scene(
        a_cose(header={TIME: cbor2.CBORTag(0, "2026-11-23T07:00:00Z")}), reason="malformed", media_type=COSE
    ),
    "a time as a number": Scene(a_cose(header={TIME: 1795417200}), reason="malformed", media_type=COSE),
    "a tag for a regular expression": Scene(
        a_cose(header={"x": cbor2.CBORTag(35, "(a+)+$")}), reason="malformed", media_type=COSE
    ),
    "not CBOR": Scene(lambda image: b"\xff", reason="malformed", media_type=COSE),
    "another media type": Scene(a_jws(), reason="malformed", media_type="application/json"),
    # headers
    "another content type": Scene(headed(cty="text/plain"), reason="malformed"),
    "another scheme": Scene(a_jws(header={SCHEME: "notary.x510"}), reason="malformed"),
    "no scheme": Scene(a_jws(header={SCHEME: ABSENT}), reason="malformed"),
    "the scheme not critical": Scene(headed(crit=[]), reason="malformed"),
    "no crit": Scene(headed(crit=ABSENT), reason="malformed"),
    "a plug-in asked for": Scene(
        a_jws(header={"io.cncf.notary.verificationPlugin": "x", "crit": [SCHEME, "io.cncf.notary.verificationPlugin"]}),
        reason="malformed",
    ),
    "critical, and not there": Scene(headed(crit=[SCHEME, EXPIRY]), reason="malformed"),
    "critical twice": Scene(headed(crit=[SCHEME, SCHEME]), reason="malformed"),
    "an unknown header that is not critical": Scene(headed(other="x")),
    "no time of signing": Scene(a_jws(header={TIME: ABSENT}), reason="malformed"),
    "a time that is none": Scene(a_jws(header={TIME: "2026-11-31T07:00:00Z"}), reason="malformed"),
    "both times": Scene(
        a_jws(header={AUTHENTIC: "2026-11-23T07:00:00Z", "crit": [SCHEME, AUTHENTIC]}), reason="malformed"
    ),
    # payload
    "another digest": Scene(about(digest="sha256:" + "0" * 64), reason="payload"),
    "another size": Scene(about(size=7), reason="payload"),
    "another media type of the artifact": Scene(about(mediaType="x"), reason="payload"),
    "no size": Scene(about(size=ABSENT), reason="payload"),
    "a payload of nothing": Scene(lambda image: jws(b"{}", CHAIN), reason="malformed"),
    "a payload that is none": Scene(lambda image: jws(b"[", CHAIN), reason="malformed"),
    # chain
    "the chain the other way round": Scene(a_jws(certificates=REVERSED), reason="signature"),
    "the root missing": Scene(a_jws(certificates=CHAIN.certificates[:2]), reason="certificate"),
    "the middle missing": Scene(a_jws(certificates=CHAIN.certificates[::2]), reason="certificate"),
    "a stranger": Scene(a_jws(certificates=[*CHAIN.certificates, SOLO]), reason="certificate"),
    "self-signed alone": Scene(a_jws(certificates=[SOLO]), {**trust(), "stores": {"ca:acme": [pem(SOLO)]}}),
    "usage not critical": Scene(
        a_jws(leaf(BASIC, usage(False, digital_signature=True), CODE_SIGNING)), reason="certificate"
    ),
    "usage missing": Scene(a_jws(leaf(BASIC, CODE_SIGNING)), reason="certificate"),
    "usage of more": Scene(
        a_jws(leaf(BASIC, usage(digital_signature=True, key_encipherment=True), CODE_SIGNING)), reason="certificate"
    ),
    "usage of other": Scene(a_jws(leaf(BASIC, usage(content_commitment=True), CODE_SIGNING)), reason="certificate"),
    "purpose absent": Scene(a_jws(leaf(BASIC, SIGN))),
    **{
        f"purpose {oid.dotted_string}": Scene(
            a_jws(leaf(BASIC, SIGN, purposes(ExtendedKeyUsageOID.CODE_SIGNING, oid))), reason="certificate"
        )
        for oid in (
            ExtendedKeyUsageOID.SERVER_AUTH,
            ExtendedKeyUsageOID.CLIENT_AUTH,
            ExtendedKeyUsageOID.EMAIL_PROTECTION,
            ExtendedKeyUsageOID.TIME_STAMPING,
            ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        )
    },
    "purpose other": Scene(a_jws(leaf(BASIC, SIGN, purposes(x509.ObjectIdentifier("1.2.3")))), reason="certificate"),
    "an authority signs": Scene(
        a_jws(leaf((x509.BasicConstraints(True, None), True), SIGN, CODE_SIGNING)), reason="certificate"
    ),
    "not understood": Scene(a_jws(leaf(*LEAF, UNKNOWN_CRITICAL)), reason="certificate"),
    "SHA-1": Scene(a_jws(Chain(leaf_algorithm=hashes.SHA224())), reason="certificate"),
    "the middle is no authority": Scene(a_jws(Chain(between=LEAF)), reason="certificate"),
    "the middle's constraints not critical": Scene(
        a_jws(Chain(between=((AUTHORITY[0][0], False), AUTHORITY[1]))), reason="certificate"
    ),
    "the middle may not sign": Scene(a_jws(Chain(between=(AUTHORITY[0], usage(crl_sign=True)))), reason="certificate"),
    "the middle is for servers": Scene(
        a_jws(Chain(between=(*AUTHORITY, purposes(ExtendedKeyUsageOID.SERVER_AUTH)))), reason="certificate"
    ),
    "the middle is for code": Scene(a_jws(Chain(between=(*AUTHORITY, CODE_SIGNING)))),
    "the chain too long": Scene(a_jws(Chain(root=(SHORT, AUTHORITY[1]))), reason="certificate"),
    # authenticity
    "another store": Scene(a_jws(), trust(stores=("ca:other",)), "certificate"),
    "an empty store": Scene(a_jws(), {**trust(), "stores": {}}, "certificate"),
    "a store of another kind": Scene(a_jws(), trust(stores=("signingAuthority:acme",)), "certificate"),
    "an authority": Scene(a_jws(header=BY_AUTHORITY), trust(stores=("signingAuthority:acme",))),
    "an authority in COSE": Scene(
        a_cose(header={**BY_AUTHORITY, 2: BY_AUTHORITY["crit"], "crit": ABSENT, AUTHENTIC: epoch(NOW)}),
        trust(stores=("signingAuthority:acme",)),
        media_type=COSE,
    ),
    "an authority in a store of another kind": Scene(a_jws(header=BY_AUTHORITY), trust(), "certificate"),
    "an authority's time not critical": Scene(
        a_jws(header={**BY_AUTHORITY, "crit": [SCHEME]}), trust(stores=("signingAuthority:acme",)), "malformed"
    ),
    "the release": Scene(a_jws(), trust(identities=(RELEASE,))),
    "the release, S for ST": Scene(a_jws(), trust(identities=("x509.subject:S=WA,C=US,O=ACME",))),
    "not the release": Scene(a_jws(), trust(identities=("x509.subject: C=US, ST=WA, O=ACME, CN=test",)), "identity"),
    "one of two": Scene(a_jws(), trust(identities=("x509.subject: C=DE, ST=BE, O=ACME", RELEASE))),
    "injected": Scene(a_jws(INJECTED), trust(identities=(RELEASE,)), "identity"),
    "injected, as it stands": Scene(
        a_jws(INJECTED), trust(identities=("x509.subject: C=US, ST=WA, O=ACME\\, CN=release",))
    ),
    "the signer asked for": Scene(a_jws(), require_signers=("release",)),
    "the signer asked for by subject": Scene(a_jws(), require_signers=("CN=release,O=ACME,ST=WA,C=US",)),
    "the signer asked for by key": Scene(a_jws(), require_signers=(key_id(ec_key("leaf").public_key()),)),
    "another signer asked for": Scene(a_jws(), require_signers=("test",), reason="signer_missing"),
    **{
        f"a signer asked for who is only {name} of another": Scene(
            a_jws(Chain(subject={**ACME, "CN": "mallory", name: "release"})),
            require_signers=("release",),
            reason="signer_missing",
        )
        for name in ("O", "ST")
    },
    "a signer asked for in an audit": Scene(
        a_jws(), trust("audit", stores=("ca:other",)), "signer_missing", require_signers=("release",)
    ),
    # scopes and levels
    "the scope": Scene(a_jws(), {**trust(scopes=("registry.example/team/app",)), "scope": "registry.example/team/app"}),
    "another scope": Scene(
        a_jws(), {**trust(scopes=("registry.example/team/app2",)), "scope": "registry.example/team/app"}, "policy"
    ),
    "audit": Scene(a_jws(), trust("audit", stores=("ca:other",))),
    "audit of a broken one": Scene(headed(alg="ES384"), trust("audit"), "signature"),
    "audit of another image": Scene(about(size=7), trust("audit"), "payload"),
    "permissive is of the authority": Scene(a_jws(), trust("permissive", stores=("ca:other",)), "certificate"),
    "skipped": Scene(headed(alg="ES384"), trust("skip")),
    # times
    "expires tomorrow": Scene(expiring("2026-11-24T07:00:00Z")),
    "expires now": Scene(expiring("2026-11-23T07:00:00Z"), reason="expired"),
    "expired, with a fraction and a zone": Scene(expiring("2026-11-23T07:59:59.999999999+01:00"), reason="expired"),
    "expires, not critical": Scene(expiring("2026-11-24T07:00:00Z", critical=False), reason="malformed"),
    "expired, permissive": Scene(expiring("2026-11-22T07:00:00Z"), trust("permissive")),
    "expired, logged": Scene(expiring("2026-11-22T07:00:00Z"), trust(override={"expiry": "log"})),
    "expired, enforced": Scene(
        expiring("2026-11-22T07:00:00Z"), trust("permissive", override={"expiry": "enforce"}), "expired"
    ),
    "the certificate expired": Scene(a_jws(EXPIRED), reason="expired", now=LATER),
    "the certificate not yet valid": Scene(a_jws(), reason="certificate", now=NOW - 2 * DAY),
    "the certificate expired, permissive": Scene(a_jws(EXPIRED), trust("permissive"), now=LATER),
    "the certificate expired after the authority signed": Scene(
        a_jws(EXPIRED, header=BY_AUTHORITY), trust(stores=("signingAuthority:acme",)), now=LATER
    ),
    "the authority signed too late": Scene(
        a_jws(EXPIRED, header={**BY_AUTHORITY, AUTHENTIC: "2026-11-25T07:00:00Z"}),
        trust(stores=("signingAuthority:acme",)),
        "expired",
        now=LATER,
    ),
    "timestamped": Scene(a_jws(EXPIRED, timestamp=stamp()), TIMED, now=LATER),
    "timestamped in COSE": Scene(a_cose(EXPIRED, timestamp=stamp()), TIMED, now=LATER, media_type=COSE),
    "timestamped, and nobody asks": Scene(a_jws(EXPIRED, timestamp=stamp()), reason="expired", now=LATER),
    "not timestamped": Scene(a_jws(), TIMED, "timestamp"),
    "not timestamped, and not yet needed": Scene(
        a_jws(EXPIRED), trust(stores=("ca:acme", "tsa:acme"), verifyTimestamp="afterCertExpiry")
    ),
    "not timestamped, and needed by now": Scene(
        a_jws(EXPIRED), trust(stores=("ca:acme", "tsa:acme"), verifyTimestamp="afterCertExpiry"), "timestamp", now=LATER
    ),
    "timestamped too late": Scene(a_jws(EXPIRED, timestamp=stamp(NOW + 2 * DAY)), TIMED, "expired", now=LATER),
    "timestamped, give or take two days": Scene(
        a_jws(EXPIRED, timestamp=stamp(seconds=172800)), TIMED, "certificate", now=LATER
    ),
    "timestamped, other bytes": Scene(a_jws(EXPIRED, timestamp=stamp(over=b"x")), TIMED, "timestamp", now=LATER),
    "timestamped by another": Scene(
        a_jws(EXPIRED, timestamp=stamp()), trust(stores=("ca:acme", "tsa:other")), "timestamp", now=LATER
    ),
    "timestamped with garbage": Scene(
        a_jws(EXPIRED, timestamp=lambda signature: b"0\0"), TIMED, "timestamp", now=LATER
    ),
    # the manifest
    "under another subject": Scene(
        a_jws(), reason="payload", manifest={"subject": {"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 1}}
    ),
    "of no layer": Scene(a_jws(), reason="malformed", manifest={"layers": []}),
    "of something else": Scene(a_jws(), reason="not_signed", manifest={"artifactType": "text/plain"}),
}


def play(scene: Scene, **how: Any) -> Verification:
    files = Files()
    image = files.put_image()
    put_envelope(files, image, scene.make(image), scene.media_type, **scene.manifest)
    with serving(files) as client:
        signers = scene.require_signers
        return verify(Notation(), client, image, scene.trust, now=scene.now, require_signers=signers, **how)[0]


@pytest.mark.parametrize("name", SCENES)
def test_a_rule(name: str) -> None:
    scene = SCENES[name]
    answer = play(scene)
    expected = {"": TrustStatus.VERIFIED, "not_signed": TrustStatus.NOT_SIGNED}.get(scene.reason, TrustStatus.REFUSED)
    assert (answer.status, answer.reason) == (expected, scene.reason), answer.detail


def test_who_signed_is_told_and_what_was_not_checked() -> None:
    answer = play(SCENES["expires tomorrow"])
    (signer,) = answer.signers
    assert (signer.name, signer.role) == ("CN=release,O=ACME,ST=WA,C=US", "p")
    assert signer.keyid == key_id(ec_key("leaf").public_key())
    assert signer.expires == NOW + DAY
    assert answer.notes == ("revocation: not checked; the certificates name no revocation server",)


ENDS: dict[str, datetime | None] = {
    "a JWS": NOW + 365 * DAY,
    "expires tomorrow": NOW + DAY,
    "expired, logged": NOW + 365 * DAY,
    "expired, permissive": None,
    "an authority": None,
    "timestamped": None,
    "not timestamped, and not yet needed": NOW + DAY,
    "the certificate expired, permissive": None,
}


@pytest.mark.parametrize("name", ENDS)
def test_until_when_it_holds(name: str) -> None:
    assert play(SCENES[name]).signers[0].expires == ENDS[name]


def test_what_is_only_logged_is_said() -> None:
    assert any("expiry failed and is only logged" in note for note in play(SCENES["expired, permissive"]).notes)
    assert any("authenticity failed and is only logged" in note for note in play(SCENES["audit"]).notes)
    skipped = play(SCENES["skipped"])
    assert (skipped.signers, "accepted unchecked" in skipped.notes[0]) == ((), True)
    revocation = play(Scene(a_jws(), trust(override={"revocation": "skip"})))
    assert revocation.notes == ("revocation: skipped, as the trust policy requires",)


def test_nobody_signed_what_only_an_audit_accepts() -> None:
    """A stranger makes a certificate with any name. It must satisfy no rule that names or counts signers."""
    for strange in (SCENES["audit"], Scene(a_jws(), trust("audit", identities=(f"{RELEASE}2",)))):
        answer = play(strange)
        assert (answer.status, answer.signers) == (TrustStatus.VERIFIED, ())
        for wanted in ({}, {"signers": ["p"]}, {"identities": ["CN=release,O=ACME,ST=WA,C=US"]}):
            selector = signatures_of(SignatureSelector.model_validate({"scheme": "notation", **wanted}))
            judged = judge(selector, [answer], [d for d in [answer.digest] if d], NOW, DAY)
            assert judged.status is RuleStatus.UNSATISFIED
    assert [signer.name for signer in play(Scene(a_jws(), trust("audit"))).signers] == ["CN=release,O=ACME,ST=WA,C=US"]


STEPS: dict[str, tuple[str, str]] = {
    "2 integrity": ("check_integrity", "alg of another key"),
    "3 the payload": ("check_payload", "another size"),
    "4 the chain": ("check_chain", "usage of more"),
    "5 authenticity": ("check_authenticity", "another store"),
    "6 the identity": ("check_identity", "not the release"),
    "7 expiry": ("check_expiry", "expires now"),
    "8 the time": ("check_time", "the certificate expired"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_taken_away_is_noticed(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, scene = STEPS[step]
    assert play(SCENES[scene]).status is TrustStatus.REFUSED
    monkeypatch.setattr(verification, name, lambda *a: None)
    assert play(SCENES[scene]).status is TrustStatus.VERIFIED


def test_the_first_that_verifies_wins() -> None:
    files = Files()
    image = files.put_image()
    for make in (SCENES["another size"].make, SCENES["not JSON"].make, SCENES["a JWS"].make):
        put_envelope(files, image, make(image))
    with serving(files) as client:
        (answer,) = verify(Notation(), client, image, trust())
        few = Settings(limits=Limits(signatures=2))
        (unsure,) = verify(Notation(), client, image, trust(), settings=few)
    assert answer.status is TrustStatus.VERIFIED
    assert (unsure.status, unsure.reason) == (TrustStatus.UNKNOWN, "too_many_signatures")


def test_forty_signers_are_all_named() -> None:
    chains = [Chain(key=ec_key(f"s{n}"), subject={**ACME, "CN": f"s{n}"}) for n in range(40)]
    files = Files()
    image = files.put_image()
    for chain in chains:
        put_envelope(files, image, jws(target(image), chain))
    with serving(files) as client:
        (answer,) = verify(Notation(), client, image, trust())
        (both,) = verify(Notation(), client, image, trust(), require_signers=("s0", "s39"))
        (neither,) = verify(Notation(), client, image, trust(), require_signers=("s0", "s40"))
    assert {signer.name for signer in answer.signers} == {c.certificates[0].subject.rfc4514_string() for c in chains}
    assert both.status is TrustStatus.VERIFIED
    assert (neither.status, neither.reason) == (TrustStatus.REFUSED, "signer_missing")


def test_what_cannot_be_asked_is_unknown() -> None:
    files = Files()
    image = files.put_image()
    for faults in ({"*": 500}, {f"/v2/team/app/referrers/{image.digest}": 403}):
        with serving(files, faults) as client:
            (answer,) = verify(Notation(), client, image, trust())
            (without,) = verify(Notation(), client, image)
        assert (answer.status, answer.reason) == (TrustStatus.UNKNOWN, "unavailable")
        assert without.status is TrustStatus.UNKNOWN


def test_without_a_trust_root_nothing_is_accepted() -> None:
    files = Files()
    image = files.put_image()
    with serving(files) as client:
        assert verify(Notation(), client, image)[0].status is TrustStatus.NOT_SIGNED
        put_envelope(files, image, SCENES["a JWS"].make(image))
        (answer,) = verify(Notation(), client, image)
    assert (answer.status, answer.reason) == (TrustStatus.UNKNOWN, "no_trust_root")


def changed(**policy: Any) -> dict[str, Any]:
    """The trust document with other members of its one policy."""
    document = trust()
    document["trustpolicy"]["trustPolicies"][0].update(policy)
    return document


def twice(**second: Any) -> dict[str, Any]:
    document = trust()
    first = document["trustpolicy"]["trustPolicies"][0]
    document["trustpolicy"]["trustPolicies"].append({**first, "name": "q", "registryScopes": ["a.example/b"], **second})
    return document


UNSOUND: dict[str, tuple[dict[str, Any], str]] = {
    "everything and more": (changed(registryScopes=["*", "a.example/b"]), "'*' must be the only one"),
    "a scope with a tag": (changed(registryScopes=["a.example/b:1"]), "without a tag"),
    "everybody and more": (changed(trustedIdentities=["*", RELEASE]), "'*' must be the only one"),
    "nobody": (changed(trustedIdentities=[]), "are required"),
    "no store": (changed(trustStores=[]), "are required"),
    "too little": (changed(trustedIdentities=["x509.subject: C=US, O=ACME"]), "lacks ST"),
    "overlapping": (changed(trustedIdentities=[RELEASE, "x509.subject: C=US, ST=WA, O=ACME"]), "overlap"),
    "another kind of identity": (changed(trustedIdentities=["email: a@example.com"]), "does not begin with"),
    "an attribute twice": (changed(trustedIdentities=["x509.subject: C=US, ST=WA, O=A, O=B"]), "occurs twice"),
    "an attribute of two": (
        changed(trustedIdentities=["x509.subject: C=US, ST=WA, O=A+CN=B"]),
        "not a distinguished name",
    ),
    "an empty attribute": (changed(trustedIdentities=["x509.subject: C=US, ST=WA, O="]), "is empty"),
    "no attribute": (changed(trustedIdentities=["x509.subject: ACME"]), "not a distinguished name"),
    "integrity overridden": (trust(override={"integrity": "log"}), "integrity cannot be overridden"),
    "expiry skipped": (trust(override={"expiry": "skip"}), "expiry cannot be skipped"),
    "skip overridden": (trust("skip", override={"expiry": "log"}), "override must be empty"),
    "two of a name": (twice(name="p"), "the same name"),
    "two of a scope": (twice(registryScopes=["*"]), "in two trust policies"),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_a_policy_that_contradicts_itself_is_refused(name: str) -> None:
    document, words = UNSOUND[name]
    with pytest.raises(UsageError, match=r"^trust\.json: trustpolicy") as caught:
        Notation().parse_trust(json.dumps(document).encode(), "trust.json")
    assert words in str(caught.value)
    assert caught.value.reason == UNSOUND_TRUST


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a version to come": (
        {**trust(), "trustpolicy": {**trust()["trustpolicy"], "version": "2.0"}},
        "trustpolicy.version",
    ),
    "an unknown level": (trust("mild"), "level"),
    "an unknown validation": (trust(override={"colour": "log"}), "colour"),
    "an unknown kind of store": (changed(trustStores=["tpm:acme"]), "not a trust store"),
    "no certificate": ({**trust(), "stores": {"ca:acme": ["no PEM"]}}, "stores.ca:acme.0: not PEM certificates"),
    "an unknown field": (changed(colour="red"), "colour: unknown field"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_document_of_another_form_names_its_member(name: str) -> None:
    document, words = WRONG[name]
    with pytest.raises(UsageError) as caught:
        Notation().parse_trust(json.dumps(document).encode(), "trust.json")
    assert words in str(caught.value)
    assert caught.value.reason == "bad_input"


def test_a_document_is_stored_and_read_again() -> None:
    once = Notation().parse_trust(json.dumps(trust()).encode(), "a")
    assert Notation().parse_trust(json.dumps(once).encode(), "b") == once


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("C=US, ST=WA,O=ACME", {"C": "US", "ST": "WA", "O": "ACME"}),
        ("O=ACME\\, Inc.", {"O": "ACME, Inc."}),
        ('O="ACME, Inc."', {"O": "ACME, Inc."}),
        ("O=Caf\\C3\\A9", {"O": "Café"}),
        ("s=WA", {"ST": "WA"}),
        ("1.2.3=x", {"1.2.3": "x"}),
        ("O=a=b", {"O": "a=b"}),
    ],
)
def test_names_are_parsed(text: str, found: dict[str, str]) -> None:
    assert parse_name(text) == found


def sign1(*parts: Any) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(18, list(parts)))


HEADER = cbor2.dumps({1: -7})


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (sign1(HEADER, {}, b""), "has four parts"),
        (sign1(HEADER, [], b"", b""), "has four parts"),
        (sign1("text", {}, b"", b""), "must be byte strings"),
        (sign1(HEADER, {}, None, b""), "must be byte strings"),
        (sign1(cbor2.dumps([1]), {}, b"", b""), "the protected header is not a map"),
        (sign1(HEADER, {True: 1}, b"", b""), "neither a whole number nor a text"),
        (sign1(cbor2.dumps({}), {}, b"", b""), "alg must be a whole number"),
        (sign1(HEADER, {33: "text"}, b"", b""), "must be a list of certificates"),
        (sign1(HEADER, {33: ["text"]}, b"", b""), "must be a list of certificates"),
        (cbor2.dumps([HEADER, {}, b"", b""]), "not a tagged COSE_Sign1"),
    ],
)
def test_a_cose_envelope_of_another_form(data: bytes, why: str) -> None:
    with pytest.raises(SignatureRefused, match=why) as refused:
        parse_envelope(data, COSE)
    assert refused.value.reason == "malformed"
