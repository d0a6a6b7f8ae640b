"""Whatever lies beside an image: it is verified, or refused with a reason; never another exception, never a long
wait.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import cbor2
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanner import catalog
from scanner.errors import UsageError
from scanner.model.reference import Descriptor, Digest
from scanner.trust._constraints import violation
from scanner.trust._cosign import document as cosign_document
from scanner.trust._cosign.authorities import Authority, Log
from scanner.trust._cosign.forms import parse_bundle, parse_classic
from scanner.trust._cosign.keyless import check_certificate, check_identity, check_sct
from scanner.trust._cosign.verification import verify_one as verify_cosign
from scanner.trust._notation import policy as notation_policy
from scanner.trust._notation.chain import check_chain
from scanner.trust._notation.envelope import COSE, JWS
from scanner.trust._notation.verification import verify_one as verify_notation
from scanner.trust._path import build_path
from scanner.trust._pki import certificate_key, load_certificates, load_der_certificate, load_public_key
from scanner.trust._timestamp import verify_timestamp
from scanner.trust._tuf.anchors import anchor_of, begin
from scanner.trust._tuf.documents import ROOT_LIMIT, parse_root
from scanner.trust._tuf.documents import key_id as key_id_of_notary
from scanner.trust._tuf.repository import State
from scanner.trust.base import SignatureRefused
from tests.scanner.trust.certificates import AUTHORITY, TimestampAuthority, b64, certify, der, pem
from tests.scanner.trust.cosign_signing import classic, logged_bundle, payload, statement
from tests.scanner.trust.notation_signing import cose, jws, target
from tests.scanner.trust.test_cosign import BIT_STRING, KEYED, LOG, LOGGED, ROOT, SEEN, SIGSTORE, A
from tests.scanner.trust.test_notation import CHAIN, stamp, trust
from tests.scanner.trust.trees import MANIFEST, NOW

IMAGE = Descriptor(MANIFEST, Digest("sha256:" + "1" * 64), 400)
TSA = TimestampAuthority()
QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        ["", "AAAA", "sha256:" + "1" * 64, "0.0.1", "2026-11-23T07:00:00Z", "9" * 40, "-----BEGIN CERTIFICATE-----"]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def edited(draw: st.DrawFn, original: bytes) -> bytes:
    """The bytes with a few places overwritten, cut out or put in."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 4))
        data[place : place + length] = draw(st.binary(max_size=4))
    return bytes(data)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        found += paths(inner, (*at, name))
    return found


@st.composite
def altered(draw: st.DrawFn, original: Any) -> Any:
    """The document with one or two members of another value, or gone."""
    document = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 2))):
        *above, last = draw(st.sampled_from(paths(document) or [("x",)]))
        inner = document
        for name in above:
            inner = inner[name]
        if draw(st.booleans()) or not isinstance(inner, dict):
            inner[last] = draw(values)
        else:
            inner.pop(last, None)
    return document


Result = TypeVar("Result")


def outcome(call: Callable[[], Result]) -> Result | SignatureRefused:
    """What the call returns, or its refusal, which has a reason; any other exception is a failure."""
    try:
        return call()
    except SignatureRefused as error:
        return error


def cosign_verdicts(signed: Any) -> None:
    for document in (KEYED, LOGGED, SEEN, ROOT):
        parsed = cosign_document.parse_trust(document)
        found = outcome(partial(verify_cosign, signed, parsed, IMAGE.digest))
        assert found.reason if isinstance(found, SignatureRefused) else found[0].signer


def bundle_verdicts(data: bytes) -> None:
    signed = outcome(lambda: parse_bundle(data))
    if isinstance(signed, SignatureRefused):
        assert signed.reason == "malformed"
    else:
        cosign_verdicts(signed)


BUNDLE = json.loads(logged_bundle(A, statement(IMAGE.digest), LOG, SIGSTORE.certify(A)))
CLASSIC = classic(A, payload(IMAGE.digest), SIGSTORE.certify(A), [SIGSTORE.root], LOG)


@QUICK
@given(altered(BUNDLE) | values)
def test_bundles(document: Any) -> None:
    bundle_verdicts(json.dumps(document).encode())


@QUICK
@given(edited(json.dumps(BUNDLE).encode()))
def test_bytes_of_bundles(data: bytes) -> None:
    bundle_verdicts(data)


@QUICK
@given(st.sampled_from(sorted(CLASSIC.annotations)), st.data())
def test_annotations(name: str, data: st.DataObject) -> None:
    text = CLASSIC.annotations[name]
    changed = data.draw(edited(text.encode()) | st.binary(max_size=40)).decode("utf-8", "replace")
    signed = outcome(lambda: parse_classic(CLASSIC.data, {**CLASSIC.annotations, name: changed}, attestation=False))
    if not isinstance(signed, SignatureRefused):
        cosign_verdicts(signed)


@QUICK
@given(altered(json.loads(CLASSIC.annotations["dev.sigstore.cosign/bundle"])))
def test_log_entries(document: Any) -> None:
    annotations = {**CLASSIC.annotations, "dev.sigstore.cosign/bundle": json.dumps(document)}
    cosign_verdicts(parse_classic(CLASSIC.data, annotations, attestation=False))


@QUICK
@given(altered(json.loads(payload(IMAGE.digest, env="prod"))) | values)
def test_payloads_that_are_signed(document: Any) -> None:
    layer = classic(A, json.dumps(document).encode(), log=LOG)
    cosign_verdicts(parse_classic(layer.data, layer.annotations, attestation=False))


@QUICK
@given(altered(json.loads(statement(IMAGE.digest, predicate={"a": [1, {"b": None}]}))) | values)
def test_statements_that_are_signed(document: Any) -> None:
    cosign_verdicts(parse_bundle(logged_bundle(A, json.dumps(document).encode(), LOG)))


def notation_verdict(data: bytes, media_type: str) -> None:
    document = notation_policy.parse_trust(trust(stores=("ca:acme", "tsa:acme")))
    found = outcome(lambda: verify_notation(data, media_type, IMAGE, document, document.policy_for("a/b"), NOW))
    assert found.reason if isinstance(found, SignatureRefused) else found.leaf == CHAIN.certificates[0]


SIGNED_JWS = jws(target(IMAGE), CHAIN, timestamp=stamp())
SIGNED_COSE = cose(target(IMAGE), CHAIN, timestamp=stamp())


@QUICK
@given(altered(json.loads(SIGNED_JWS)) | values)
def test_jws(document: Any) -> None:
    notation_verdict(json.dumps(document).encode(), JWS)


@QUICK
@given(edited(SIGNED_JWS), st.sampled_from([JWS, COSE]))
def test_bytes_of_jws(data: bytes, media_type: str) -> None:
    notation_verdict(data, media_type)


@QUICK
@given(edited(SIGNED_COSE) | st.binary(max_size=60))
def test_bytes_of_cose(data: bytes) -> None:
    notation_verdict(data, COSE)


headers = st.dictionaries(
    st.sampled_from([1, 2, 3, 33, "io.cncf.notary.signingScheme", "io.cncf.notary.expiry", "x"]), values, max_size=4
)


@QUICK
@given(headers)
def test_signed_headers_of_cose(changed: dict[Any, Any]) -> None:
    notation_verdict(cose(target(IMAGE), CHAIN, header=changed, timestamp=stamp()), COSE)


@QUICK
@given(
    st.dictionaries(
        st.sampled_from(["alg", "crit", "cty", "io.cncf.notary.signingTime", "io.cncf.notary.expiry", "b64"]),
        values,
        max_size=4,
    )
)
def test_signed_headers_of_jws(changed: dict[str, Any]) -> None:
    notation_verdict(jws(target(IMAGE), CHAIN, header=changed, timestamp=stamp()), JWS)


@QUICK
@given(altered(json.loads(target(IMAGE))) | values)
def test_payloads_of_notation(document: Any) -> None:
    notation_verdict(jws(json.dumps(document).encode(), CHAIN, timestamp=stamp()), JWS)


@QUICK
@given(edited(TSA.token(b"x", NOW)) | edited(TSA.token(b"x", NOW, response=True)) | st.binary(max_size=60))
def test_timestamps(token: bytes) -> None:
    found = outcome(lambda: verify_timestamp(token, b"x", [TSA.root]))
    assert found.reason == "timestamp" if isinstance(found, SignatureRefused) else found.earliest == NOW


@QUICK
@given(edited(der(CHAIN.certificates[0])))
def test_certificates(data: bytes) -> None:
    broken = json.loads(SIGNED_JWS)
    broken["header"]["x5c"][0] = b64(data)
    notation_verdict(json.dumps(broken).encode(), JWS)
    bundle = copy.deepcopy(BUNDLE)
    bundle["verificationMaterial"]["certificate"]["rawBytes"] = b64(data)
    bundle_verdicts(json.dumps(bundle).encode())


@QUICK
@given(altered(trust()) | altered({**SEEN, "keys": {"a": pem(A)}, "threshold": 1}) | altered(ROOT) | values)
def test_trust_documents(document: Any) -> None:
    data = json.dumps(document).encode()
    for parse in (cosign_document.parse_document, notation_policy.parse_document):
        try:
            found = parse(data, "here")
        except UsageError:
            continue
        assert parse(json.dumps(found).encode(), "here") == found


@pytest.mark.parametrize(
    "nested",
    [b"\x81" * 100_000, b"\xd2" * 100_000, b"\xa1\x01" * 100_000, b"\x9a\xff\xff\xff\xff", b"\x5a\xff\xff\xff\xff"],
)
def test_cbor_that_would_not_end(nested: bytes) -> None:
    notation_verdict(nested, COSE)
    notation_verdict(cbor2.dumps(cbor2.CBORTag(18, [nested, {}, b"", b""])), COSE)


def test_every_byte_of_a_certificate() -> None:
    """Each byte by itself: what random edits may miss, such as a version that does not exist."""
    good = der(CHAIN.certificates[0])
    for place in range(len(good)):
        broken = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
        found = outcome(partial(load_der_certificate, broken))
        assert not isinstance(found, SignatureRefused) or found.reason == "malformed"


def certificates_to_break() -> list[bytes]:
    """Kinds of certificates that readers meet: a leaf, an authority with name constraints, a timestamp authority's,
    one with a SAN.
    """
    limits = x509.NameConstraints([x509.RFC822Name("example.com")], [x509.DNSName("a.example")])
    limited = certify({"CN": "limited"}, A, [*AUTHORITY, (limits, True)])
    return [
        der(CHAIN.certificates[0]),
        der(limited),
        der(TSA.certificate),
        der(SIGSTORE.certify(A)),
        BIT_STRING.read_bytes(),
    ]


BROKEN = st.sampled_from(certificates_to_break()).flatmap(edited)


def refusal(call: Callable[[], object], *kinds: type[Exception]) -> None:
    with suppress(SignatureRefused, *kinds):
        call()


@QUICK
@given(BROKEN | st.binary(max_size=60))
def test_certificates_in_every_reader(data: bytes) -> None:
    """Whatever the library raises, and wherever: a certificate is read to its end, or it is refused at once."""
    text = f"-----BEGIN CERTIFICATE-----\n{b64(data)}\n-----END CERTIFICATE-----\n"
    refusal(lambda: load_certificates(text), ValueError)
    found = outcome(partial(load_der_certificate, data))
    if isinstance(found, SignatureRefused):
        return
    refusal(lambda: certificate_key(found))
    purpose = ExtendedKeyUsageOID.CODE_SIGNING
    refusal(lambda: build_path(found, [found, *CHAIN.certificates], [found, CHAIN.top], NOW, purpose))
    refusal(lambda: build_path(CHAIN.certificates[0], [found], [found], NOW, purpose))
    refusal(lambda: check_chain([found, *CHAIN.certificates[1:]]))
    refusal(lambda: check_chain([CHAIN.certificates[0], found, CHAIN.top]))
    violation([CHAIN.certificates[0], found, found])
    check_authority = [Authority((found,))]
    refusal(lambda: check_certificate(found, [found], check_authority, [NOW]))
    refusal(lambda: check_identity(found, []))
    refusal(lambda: check_sct([found, found], {"00": Log(A.public_key())}))


@QUICK
@given(BROKEN)
def test_root_certificates_of_notary(data: bytes) -> None:
    """A root whose key is a certificate that cannot be read: the key never counts."""
    text = f"-----BEGIN CERTIFICATE-----\n{b64(data)}\n-----END CERTIFICATE-----\n".encode()
    key = {"keytype": "ecdsa-x509", "keyval": {"private": None, "public": b64(text)}}
    identifier = key_id_of_notary("ecdsa-x509", text)
    role = {"keyids": [identifier], "threshold": 1}
    signed = {
        "_type": "Root",
        "version": 1,
        "expires": "2027-01-01T00:00:00Z",
        "keys": {identifier: key},
        "roles": dict.fromkeys(("root", "targets", "snapshot", "timestamp"), role),
    }
    root = parse_root(json.dumps({"signed": signed, "signatures": []}).encode(), ROOT_LIMIT)
    for anchor in ({"mode": "tofu"}, {"mode": "ca", "pem": pem(CHAIN.top)}):
        refusal(lambda anchor=anchor: begin(anchor_of(anchor), root, "registry.example/app", NOW))  # type: ignore[misc]


@QUICK
@given(st.binary(max_size=200) | edited(State(b"{}", None, None, frozenset({"targets"}), {}).dump()))
def test_states_that_were_damaged(data: bytes) -> None:
    refusal(lambda: State.load(data))


@QUICK
@given(
    st.text(max_size=200)
    | edited(CLASSIC.annotations["dev.sigstore.cosign/certificate"].encode()).map(
        lambda b: b.decode("utf-8", "replace")
    )
)
def test_texts_that_should_be_pem(text: str) -> None:
    for load in (load_certificates, load_public_key):
        refusal(lambda load=load: load(text), ValueError)  # type: ignore[misc]
    for scheme in catalog.schemes().values():
        refusal(lambda scheme=scheme: scheme.parse_trust(text.encode(), "here"), UsageError)  # type: ignore[misc]
