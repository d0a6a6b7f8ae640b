"""RFC 3161 timestamps: every form that authorities write is read, and each step of the verification refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from asn1crypto import algos, cms, core, tsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from scanner.trust._path import build_path
from scanner.trust._timestamp import MAX_TIMESTAMP, verify_timestamp
from scanner.trust.base import SignatureRefused
from tests.scanner.trust.certificates import (
    AUTHORITY,
    DAY,
    PrivateKey,
    TimestampAuthority,
    certify,
    der,
    ec_key,
    purposes,
    rsa_key,
    usage,
)
from tests.scanner.trust.trees import NOW

MESSAGE = b"a signature"
STAMPING = purposes(ExtendedKeyUsageOID.TIME_STAMPING, critical=True)
ROOT = certify({"CN": "root"}, ec_key("root"), AUTHORITY, since=NOW - DAY)
Sign = Callable[[PrivateKey, bytes], bytes]


@cache
def issued(key: PrivateKey) -> x509.Certificate:
    named = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return certify(
        {"CN": "tsa"}, key, [usage(digital_signature=True), STAMPING, (named, False)], (ROOT, ec_key("root"))
    )


def by_ecdsa(key: PrivateKey, data: bytes) -> bytes:
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def by_pkcs1(key: PrivateKey, data: bytes) -> bytes:
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def by_pss(key: PrivateKey, data: bytes) -> bytes:
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


def pss_parameters() -> algos.SignedDigestAlgorithm:
    return algos.SignedDigestAlgorithm(
        {"algorithm": "rsassa_pss", "parameters": {"hash_algorithm": {"algorithm": "sha256"}, "salt_length": 32}}
    )


def named_by_sha256(certificate: x509.Certificate) -> tuple[str, Any]:
    digest = hashlib.sha256(der(certificate)).digest()
    return "signing_certificate_v2", tsp.SigningCertificateV2({"certs": [{"cert_hash": digest}]})


def named_by_sha1(certificate: x509.Certificate) -> tuple[str, Any]:
    """The form of RFC 3161 itself, before RFC 5816."""
    digest = hashlib.sha1(der(certificate)).digest()
    return "signing_certificate", tsp.SigningCertificate({"certs": [{"cert_hash": digest}]})


@dataclass(frozen=True)
class Stamp:
    """A timestamp over ``MESSAGE``; each field is one thing that an authority may write in another way."""

    key: PrivateKey = field(default_factory=ec_key)
    content_type: str = "tst_info"
    attribute_type: str = "tst_info"
    imprint: str = "sha256"
    accuracy: dict[str, int] | None = None
    digest: str = "sha256"
    algorithm: Any = "sha256_ecdsa"
    sign: Sign = by_ecdsa
    names: Callable[[x509.Certificate], tuple[str, Any]] | None = named_by_sha256
    named: x509.Certificate | None = None
    digests: int = 1  # values of the attribute message_digest
    by_key_identifier: bool = False
    shuffled: bool = False
    certificates: bool = True
    signers: int = 1

    def token(self) -> bytes:
        certificate = issued(self.key)
        parsed = cms.Certificate.load(der(certificate))
        info: dict[str, Any] = {
            "version": 1,
            "policy": "1.2.3",
            "message_imprint": {
                "hash_algorithm": {"algorithm": self.imprint},
                "hashed_message": hashlib.new(self.imprint, MESSAGE).digest(),
            },
            "serial_number": 1,
            "gen_time": NOW,
        }
        if self.accuracy:
            info["accuracy"] = self.accuracy
        content = tsp.TSTInfo(info).dump()
        attributes: list[dict[str, Any]] = [
            {"type": "content_type", "values": [self.attribute_type]},
            {"type": "message_digest", "values": [hashlib.new(self.digest, content).digest()] * self.digests},
        ]
        if self.names is not None:
            kind, value = self.names(self.named or certificate)
            attributes.append({"type": kind, "values": [value]})
        written = cms.CMSAttributes(attributes[::-1] if self.shuffled else attributes)
        if self.shuffled:  # as some authorities do it: what is signed is the set in the order that they wrote
            signed_bytes = b"\x31" + written.dump()[1:]
        else:
            signed_bytes = written.dump(force=True)
        sid = (
            cms.SignerIdentifier("subject_key_identifier", parsed.key_identifier)
            if self.by_key_identifier
            else cms.SignerIdentifier(
                "issuer_and_serial_number", {"issuer": parsed.issuer, "serial_number": parsed.serial_number}
            )
        )
        algorithm = self.algorithm
        if isinstance(algorithm, str):
            algorithm = algos.SignedDigestAlgorithm({"algorithm": algorithm})
        signer = cms.SignerInfo(
            {
                "version": "v1",
                "sid": sid,
                "digest_algorithm": {"algorithm": self.digest},
                "signed_attrs": written,
                "signature_algorithm": algorithm,
                "signature": self.sign(self.key, signed_bytes),
            }
        )
        signed = {
            "version": "v3",
            "digest_algorithms": [{"algorithm": self.digest}],
            "encap_content_info": {"content_type": self.content_type, "content": core.ParsableOctetString(content)},
            "signer_infos": [signer] * self.signers,
        }
        if self.certificates:
            signed["certificates"] = [cms.CertificateChoices("certificate", parsed)]
        return bytes(cms.ContentInfo({"content_type": "signed_data", "content": cms.SignedData(signed)}).dump())


GOOD = {
    "as most write it": Stamp(),
    "the certificate named with SHA-1": Stamp(names=named_by_sha1),
    "the signer named by its key": Stamp(by_key_identifier=True),
    "the set not sorted": Stamp(shuffled=True),
    "an imprint of SHA-512": Stamp(imprint="sha512"),
    "RSA": Stamp(rsa_key(), algorithm="sha256_rsa", sign=by_pkcs1),
    "RSA, its digest said beside it": Stamp(rsa_key(), algorithm="rsassa_pkcs1v15", sign=by_pkcs1),
    "RSA-PSS": Stamp(rsa_key(), algorithm=pss_parameters(), sign=by_pss),
}


@pytest.mark.parametrize("stamp", GOOD.values(), ids=list(GOOD))
def test_the_forms_that_authorities_write(stamp: Stamp) -> None:
    found = verify_timestamp(stamp.token(), MESSAGE, [ROOT])
    assert (found.earliest, found.latest, found.authority) == (NOW, NOW, "CN=tsa")


def test_the_signers_certificate_may_be_an_anchor_itself() -> None:
    stamp = Stamp(certificates=False)
    assert verify_timestamp(stamp.token(), MESSAGE, [issued(stamp.key)]).earliest == NOW


def test_the_accuracy_widens_the_time() -> None:
    found = verify_timestamp(Stamp(accuracy={"seconds": 2, "millis": 500, "micros": 1}).token(), MESSAGE, [ROOT])
    about = timedelta(seconds=2, milliseconds=500, microseconds=1)
    assert (found.earliest, found.latest) == (NOW - about, NOW + about)


OTHER = issued(ec_key("other"))
REFUSED = {
    "of something else": (Stamp(content_type="data"), "not a timestamp"),
    "two signers": (Stamp(signers=2), "one signer"),
    "no signer": (Stamp(signers=0), "one signer"),
    "no certificate": (Stamp(certificates=False, by_key_identifier=True), "certificate is missing"),
    "attributes of something else": (Stamp(attribute_type="data"), "attributes"),
    "another's signature": (
        Stamp(sign=lambda key, data: by_ecdsa(ec_key("other"), data)),
        "its signature does not verify",
    ),
    "another certificate": (Stamp(named=OTHER), "names another certificate"),
    "another certificate, by SHA-1": (Stamp(names=named_by_sha1, named=OTHER), "names another certificate"),
    "no certificate named": (Stamp(names=None), "does not name its certificate"),
    "an imprint of MD5": (Stamp(imprint="md5"), "uses the hash md5"),
    "a digest of SHA-1": (Stamp(digest="sha1"), "uses the hash sha1"),
    "signed with SHA-1": (Stamp(rsa_key(), algorithm="sha1_rsa", sign=by_pkcs1), "uses the hash sha1"),
    "two digests": (Stamp(digests=2), "attributes"),
    "no digest": (Stamp(digests=0), "attributes"),
    "a weak key": (Stamp(rsa_key(1024), algorithm="sha256_rsa", sign=by_pkcs1), "the certificate's key is not"),
    "a key of another kind": (Stamp(algorithm="sha256_rsa"), "does not match its signature"),
}


@pytest.mark.parametrize(("stamp", "why"), REFUSED.values(), ids=list(REFUSED))
def test_what_is_refused(stamp: Stamp, why: str) -> None:
    with pytest.raises(SignatureRefused, match=why) as refused:
        verify_timestamp(stamp.token(), MESSAGE, [ROOT])
    assert refused.value.reason == "timestamp"


def not_signed() -> bytes:
    return bytes(cms.ContentInfo({"content_type": "data", "content": core.OctetString(b"x")}).dump())


def not_granted() -> bytes:
    token = cms.ContentInfo.load(Stamp().token())
    return bytes(tsp.TimeStampResp({"status": {"status": "rejection"}, "time_stamp_token": token}).dump())


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (bytes(MAX_TIMESTAMP + 1), "too large"),
        (not_signed(), "not signed"),
        (not_granted(), "did not grant the request"),
        (b"", "cannot be read"),
        (b"\x30\x00", "cannot be read"),
        (Stamp().token()[:-1], "cannot be read"),
    ],
    ids=["too large", "not signed", "not granted", "nothing", "an empty sequence", "cut off"],
)
def test_bytes_that_are_no_timestamp(token: bytes, why: str) -> None:
    with pytest.raises(SignatureRefused, match=why) as refused:
        verify_timestamp(token, MESSAGE, [ROOT])
    assert refused.value.reason == "timestamp"


def test_a_response_is_read_as_its_token() -> None:
    authority = TimestampAuthority()
    token = authority.token(MESSAGE, NOW, response=True)
    assert verify_timestamp(token, MESSAGE, [authority.root]).authority == "CN=tsa"


@pytest.mark.parametrize(
    ("purpose", "key", "accepted"),
    [
        (ExtendedKeyUsageOID.TIME_STAMPING, ec_key("between"), True),
        (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, ec_key("between"), True),
        (ExtendedKeyUsageOID.SERVER_AUTH, ec_key("between"), False),
        (ExtendedKeyUsageOID.TIME_STAMPING, rsa_key(1024), False),
    ],
    ids=["for timestamps", "for anything", "for servers", "with a weak key"],
)
def test_what_an_authority_between_may_issue(purpose: x509.ObjectIdentifier, key: PrivateKey, accepted: bool) -> None:
    """A certificate for timestamps, below an authority that the same company keeps for its web servers."""
    between = certify({"CN": "between"}, key, [*AUTHORITY, purposes(purpose)], (ROOT, ec_key("root")), since=NOW - DAY)
    leaf = certify({"CN": "tsa"}, ec_key(), [usage(digital_signature=True), STAMPING], (between, key))
    if accepted:
        assert build_path(leaf, [between], [ROOT], NOW, ExtendedKeyUsageOID.TIME_STAMPING) == (leaf, between, ROOT)
        return
    with pytest.raises(SignatureRefused, match="no valid chain"):
        build_path(leaf, [between], [ROOT], NOW, ExtendedKeyUsageOID.TIME_STAMPING)


def test_an_authority_below_no_anchor() -> None:
    with pytest.raises(SignatureRefused) as refused:
        verify_timestamp(Stamp().token(), MESSAGE, [OTHER])
    assert refused.value.reason == "timestamp"
