"""Authorities for tests: certificates with exactly the extensions asked for, RFC 3161 timestamps, a sigstore-like
instance.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from asn1crypto import algos, cms, core, tsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from scanner.trust._pki import PublicKey, key_id
from tests.scanner.trust.trees import NOW

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
DAY = timedelta(days=1)
NAMES = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "CN": NameOID.COMMON_NAME,
}
NO_USAGE = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@cache
def ec_key(name: str = "a", curve: type[ec.EllipticCurve] = ec.SECP256R1) -> ec.EllipticCurvePrivateKey:
    """The same key for the same name: deterministic tests."""
    size = curve().key_size // 8
    value = int.from_bytes(hashlib.shake_256(f"{name}{curve.name}".encode()).digest(size - 1)) + 1
    return ec.derive_private_key(value, curve())


@cache
def rsa_key(size: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, size)


def pem(item: PrivateKey | PublicKey | x509.Certificate) -> str:
    """The public key, or the certificate."""
    if isinstance(item, x509.Certificate):
        return item.public_bytes(serialization.Encoding.PEM).decode()
    key = item.public_key() if hasattr(item, "public_key") else item
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return str(key.public_bytes(encoding, form).decode())


def der(item: PrivateKey | x509.Certificate) -> bytes:
    if isinstance(item, x509.Certificate):
        return item.public_bytes(serialization.Encoding.DER)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return item.public_key().public_bytes(serialization.Encoding.DER, form)


def usage(critical: bool = True, **bits: bool) -> tuple[x509.ExtensionType, bool]:
    return x509.KeyUsage(**{**NO_USAGE, **bits}), critical


def purposes(*oids: x509.ObjectIdentifier, critical: bool = False) -> tuple[x509.ExtensionType, bool]:
    return x509.ExtendedKeyUsage(oids), critical


CODE_SIGNING = purposes(ExtendedKeyUsageOID.CODE_SIGNING)
AUTHORITY = ((x509.BasicConstraints(True, None), True), usage(key_cert_sign=True, crl_sign=True))
LEAF = ((x509.BasicConstraints(False, None), True), usage(digital_signature=True), CODE_SIGNING)
ACME = {"C": "US", "ST": "WA", "O": "ACME", "CN": "release"}


def certify(
    subject: Mapping[str, str],
    key: PrivateKey,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    issuer: tuple[x509.Certificate, PrivateKey] | None = None,
    *,
    since: datetime = NOW - DAY,
    until: datetime = NOW + 365 * DAY,
    algorithm: hashes.HashAlgorithm | None = None,
) -> x509.Certificate:
    """A certificate; self-signed without an issuer."""
    name = x509.Name([x509.NameAttribute(NAMES[k], v) for k, v in subject.items()])
    builder = x509.CertificateBuilder(issuer[0].subject if issuer else name, name, key.public_key(), 7, since, until)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    signer = issuer[1] if issuer else key
    chosen = None if isinstance(signer, ed25519.Ed25519PrivateKey) else algorithm or hashes.SHA256()
    return builder.sign(signer, chosen)


@dataclass
class TimestampAuthority:
    """RFC 3161: tokens over any bytes, by a certificate below ``root``."""

    name: str = "tsa"
    eku: tuple[x509.ExtensionType, bool] = purposes(ExtendedKeyUsageOID.TIME_STAMPING, critical=True)

    def __post_init__(self) -> None:
        self.root_key, self.key = ec_key(f"{self.name} root"), ec_key(self.name)
        self.root = certify(
            {"CN": f"{self.name} root"}, self.root_key, AUTHORITY, since=NOW - 3650 * DAY, until=NOW + 3650 * DAY
        )
        extensions = [usage(digital_signature=True), self.eku]
        times = {"since": NOW - 3650 * DAY, "until": NOW + 3650 * DAY}
        self.certificate = certify({"CN": self.name}, self.key, extensions, (self.root, self.root_key), **times)

    def token(
        self,
        message: bytes,
        at: datetime,
        *,
        seconds: int = 0,
        named: x509.Certificate | None = None,
        response: bool = False,
    ) -> bytes:
        """A bare token, or a whole response.

        ``named``: the certificate that the signed attributes name, where it is another.
        """
        info = tsp.TSTInfo(
            {
                "version": 1,
                "policy": "1.2.3",
                "message_imprint": {
                    "hash_algorithm": {"algorithm": "sha256"},
                    "hashed_message": hashlib.sha256(message).digest(),
                },
                "serial_number": 1,
                "gen_time": at,
                "accuracy": {"seconds": seconds},
            }
        )
        content = info.dump()
        certificate = cms.Certificate.load(der(self.certificate))
        ess = tsp.SigningCertificateV2(
            {"certs": [{"cert_hash": hashlib.sha256(der(named or self.certificate)).digest()}]}
        )
        attributes = cms.CMSAttributes(
            [
                {"type": "content_type", "values": ["tst_info"]},
                {"type": "message_digest", "values": [hashlib.sha256(content).digest()]},
                {"type": "signing_certificate_v2", "values": [ess]},
            ]
        )
        signature = self.key.sign(attributes.dump(force=True), ec.ECDSA(hashes.SHA256()))
        signer = cms.SignerInfo(
            {
                "version": "v1",
                "sid": cms.SignerIdentifier(
                    "issuer_and_serial_number",
                    {"issuer": certificate.issuer, "serial_number": certificate.serial_number},
                ),
                "digest_algorithm": {"algorithm": "sha256"},
                "signed_attrs": attributes,
                "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": "sha256_ecdsa"}),
                "signature": signature,
            }
        )
        signed = cms.SignedData(
            {
                "version": "v3",
                "digest_algorithms": [{"algorithm": "sha256"}],
                "encap_content_info": {"content_type": "tst_info", "content": core.ParsableOctetString(content)},
                "certificates": [cms.CertificateChoices("certificate", certificate)],
                "signer_infos": [signer],
            }
        )
        token = cms.ContentInfo({"content_type": "signed_data", "content": signed})
        if not response:
            return bytes(token.dump())
        return bytes(tsp.TimeStampResp({"status": {"status": "granted"}, "time_stamp_token": token}).dump())


@dataclass
class Log:
    """Rekor: promises entries, and proves them in a tree of one leaf."""

    name: str = "rekor"
    origin: str = "rekor.example"
    key: ec.EllipticCurvePrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = ec_key(self.name)

    @property
    def id(self) -> str:
        return key_id(self.key.public_key())

    def promise(self, body: Mapping[str, Any], at: datetime, index: int = 7) -> dict[str, Any]:
        """What the annotation ``dev.sigstore.cosign/bundle`` holds."""
        payload = {
            "body": b64(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()),
            "integratedTime": int(at.timestamp()),
            "logID": self.id,
            "logIndex": index,
        }
        canonical = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
        signature = self.key.sign(canonical, ec.ECDSA(hashes.SHA256()))
        return {"SignedEntryTimestamp": b64(signature), "Payload": payload}

    def bundle_entry(self, body: Mapping[str, Any], at: datetime) -> dict[str, Any]:
        """The same as a ``tlogEntries`` member, with an inclusion proof and a signed checkpoint."""
        promise = self.promise(body, at)
        raw = base64.b64decode(promise["Payload"]["body"])
        root = hashlib.sha256(b"\0" + raw).digest()
        note = f"{self.origin}\n1\n{b64(root)}\n"
        signed = bytes.fromhex(self.id)[:4] + self.key.sign(note.encode(), ec.ECDSA(hashes.SHA256()))
        return {
            "logIndex": "7",
            "logId": {"keyId": b64(bytes.fromhex(self.id))},
            "kindVersion": {"kind": body["kind"], "version": body["apiVersion"]},
            "integratedTime": str(promise["Payload"]["integratedTime"]),
            "inclusionPromise": {"signedEntryTimestamp": promise["SignedEntryTimestamp"]},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": b64(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n\u2014 {self.origin} {b64(signed)}\n"},
            },
            "canonicalizedBody": promise["Payload"]["body"],
        }


@dataclass
class Instance:
    """A sigstore instance: certificate authority, certificate transparency log, Rekor."""

    name: str = "sigstore"
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        self.root_key, self.ct_key = ec_key(f"{self.name} root"), ec_key(f"{self.name} ct")
        self.root = certify(
            {"O": self.name, "CN": f"{self.name} root"},
            self.root_key,
            [*AUTHORITY, (x509.SubjectKeyIdentifier.from_public_key(self.root_key.public_key()), False)],
            since=NOW - 365 * DAY,
            until=NOW + 3650 * DAY,
        )

    def certify(
        self,
        key: ec.EllipticCurvePrivateKey,
        subject: str = "release@example.com",
        issuer: str = "https://accounts.example.com",
        *,
        since: datetime = NOW - timedelta(minutes=1),
        sct: bool = True,
        more: Sequence[tuple[x509.ExtensionType, bool]] = (),
        eku: tuple[x509.ExtensionType, bool] | None = CODE_SIGNING,
        by: tuple[x509.Certificate, PrivateKey] | None = None,
    ) -> x509.Certificate:
        """A certificate of ten minutes, in the log of certificates unless told otherwise."""
        san = (
            x509.RFC822Name(subject)
            if "@" in subject and ":" not in subject
            else x509.UniformResourceIdentifier(subject)
        )
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            usage(digital_signature=True),
            *([eku] if eku else []),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.root_key.public_key()), False),
            (x509.SubjectAlternativeName([san]), True),
            (
                x509.UnrecognizedExtension(
                    x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8"), core.UTF8String(issuer).dump()
                ),
                False,
            ),
            *more,
        ]
        signer = by or (self.root, self.root_key)
        until = since + timedelta(minutes=10)
        bare = certify({}, key, extensions, signer, since=since, until=until)
        if not sct:
            return bare
        extensions.append((self._sct(bare.tbs_certificate_bytes, since), False))
        return certify({}, key, extensions, signer, since=since, until=until)

    def _sct(self, tbs: bytes, at: datetime) -> x509.ExtensionType:
        """RFC 6962 3.3: a list of one, in the certificate."""
        moment = int(at.timestamp() * 1000)
        entry = hashlib.sha256(der(self.root_key)).digest() + len(tbs).to_bytes(3) + tbs
        signed = struct.pack("!BBQH", 0, 0, moment, 1) + entry + b"\0\0"
        signature = self.ct_key.sign(signed, ec.ECDSA(hashes.SHA256()))
        sct = b"\0" + hashlib.sha256(der(self.ct_key)).digest() + struct.pack("!QH", moment, 0) + b"\4\3"
        sct += struct.pack("!H", len(signature)) + signature
        listed = struct.pack("!H", len(sct)) + sct
        value = core.OctetString(struct.pack("!H", len(listed)) + listed).dump()
        return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2"), value)

    def trusted_root(self) -> dict[str, Any]:
        """Its ``trusted_root.json``."""
        forever = {"start": "2020-01-01T00:00:00Z"}

        def log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
            public = {"rawBytes": b64(der(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": forever}
            identifier = {"keyId": b64(hashlib.sha256(der(key)).digest())}
            return {
                "baseUrl": "https://log.example",
                "hashAlgorithm": "SHA2_256",
                "publicKey": public,
                "logId": identifier,
            }

        authority = {
            "subject": {"organization": self.name, "commonName": self.name},
            "uri": "https://fulcio.example",
            "certChain": {"certificates": [{"rawBytes": b64(der(self.root))}]},
            "validFor": forever,
        }
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.log.key)],
            "certificateAuthorities": [authority],
            "ctlogs": [log(self.ct_key)],
            "timestampAuthorities": [],
        }


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
