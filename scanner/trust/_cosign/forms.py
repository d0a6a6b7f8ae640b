"""The forms in which cosign stores a signature: a layer with annotations, a DSSE envelope with annotations, a
sigstore bundle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.trust._cosign.payload import MAX_ENVELOPE, members, parse_envelope
from scanner.trust._cosign.transparency import LogEntry, parse_annotation, parse_bundle_entry
from scanner.trust._cosign.verification import FoundSignature
from scanner.trust._pki import decode_base64, load_certificates, load_der_certificate
from scanner.trust._timestamp import MAX_TIMESTAMP
from scanner.trust.base import SignatureRefused

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
BUNDLES = (
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
)
_SIGNATURE = "dev.cosignproject.cosign/signature"
_CERTIFICATE, _CHAIN = "dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain"
_LOG, _TIMESTAMP = "dev.sigstore.cosign/bundle", "dev.sigstore.cosign/rfc3161timestamp"
_MAX_LOG_ENTRIES = 4  # A bundle needs one. Each costs a signature and a proof to verify.


@dataclass(frozen=True)
class _Annotations:
    """A layer's annotations as verification material. See ``Material``."""

    annotations: Mapping[str, str]

    @property
    def certificate(self) -> x509.Certificate | None:
        found = _pem(self.annotations.get(_CERTIFICATE, ""), "the certificate")
        return found[0] if found else None

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        above = _pem(self.annotations.get(_CERTIFICATE, ""), "the certificate")[1:]
        return (*above, *_pem(self.annotations.get(_CHAIN, ""), "the certificate's chain"))

    @property
    def entries(self) -> tuple[LogEntry, ...]:
        text = self.annotations.get(_LOG, "")
        return (parse_annotation(text),) if text else ()

    @property
    def timestamps(self) -> tuple[bytes, ...]:
        return _classic_timestamp(self.annotations.get(_TIMESTAMP, ""))


@dataclass(frozen=True)
class _Material:
    """A bundle's verification material. See ``Material``."""

    certificate: x509.Certificate | None
    chain: tuple[x509.Certificate, ...]  # intermediates, the issuer of ``certificate`` first
    entries: tuple[LogEntry, ...]  # of the transparency log
    timestamps: tuple[bytes, ...]  # RFC 3161 tokens


def parse_classic(data: bytes, annotations: Mapping[str, str], *, attestation: bool) -> FoundSignature:
    """Parse a layer with its annotations.

    The annotations are not signed. Raises SignatureRefused(reason="malformed").
    """
    if attestation:
        loaded = load_untrusted_json(data, limit=MAX_ENVELOPE, error=SignatureRefused, reason="malformed")
        envelope = parse_envelope(loaded)
        payload, signed_bytes, signatures = envelope.payload, envelope.signed_bytes, envelope.signatures
    elif _SIGNATURE in annotations:
        payload, signed_bytes = data, data
        signatures = (decode_base64(annotations[_SIGNATURE], "the signature"),)
    else:
        raise SignatureRefused("a layer without a signature", reason="malformed")
    return FoundSignature(
        payload=payload,
        signed_bytes=signed_bytes,
        signatures=signatures,
        statement=attestation,
        material=_Annotations(annotations),
    )


def _pem(text: str, what: str) -> tuple[x509.Certificate, ...]:
    if not text.strip():
        return ()
    try:
        return load_certificates(text)
    except ValueError as error:
        raise SignatureRefused(f"{what} cannot be read", reason="malformed") from error


def _classic_timestamp(text: str) -> tuple[bytes, ...]:
    if not text:
        return ()
    data = text.encode("utf-8", "surrogatepass")
    document = load_untrusted_json(data, limit=2 * MAX_TIMESTAMP, error=SignatureRefused, reason="malformed")
    return (decode_base64(members(document, "the timestamp").get("SignedRFC3161Timestamp"), "the timestamp"),)


def parse_bundle(data: bytes) -> FoundSignature:
    """Parse a sigstore bundle (protobuf-specs, sigstore_bundle.proto) with a DSSE envelope. Raises SignatureRefused."""
    loaded = load_untrusted_json(data, limit=MAX_ENVELOPE, error=SignatureRefused, reason="malformed")
    # ``null`` first: protobuf writers may emit it for a missing member, and the library refuses it.
    document = members(_without_null(loaded), "the bundle")
    # A later version may give a member another meaning, so only known ones are read.
    if document.get("mediaType") not in BUNDLES:
        raise SignatureRefused(
            f"a bundle of type {clean_text(str(document.get('mediaType')), 100)}", reason="malformed"
        )
    envelope = parse_envelope(document.get("dsseEnvelope"))
    material = members(document.get("verificationMaterial"), "verificationMaterial")
    certificates = [load_der_certificate(raw) for raw in _certificates(material)]
    entries, stamps = (
        material.get("tlogEntries", []),
        members(material.get("timestampVerificationData", {}), "timestamps"),
    )
    tokens = stamps.get("rfc3161Timestamps", [])
    if not isinstance(entries, list) or not isinstance(tokens, list) or len(entries) > _MAX_LOG_ENTRIES:
        raise SignatureRefused("the bundle's verification material is not well-formed", reason="malformed")
    return FoundSignature(
        payload=envelope.payload,
        signed_bytes=envelope.signed_bytes,
        signatures=envelope.signatures,
        statement=True,
        material=_Material(
            certificates[0] if certificates else None,
            tuple(certificates[1:]),
            tuple(parse_bundle_entry(entry) for entry in entries),
            tuple(decode_base64(members(t, "a timestamp").get("signedTimestamp"), "a timestamp") for t in tokens),
        ),
        bundle=json.dumps(document).encode(),
    )


def _without_null(value: object) -> object:
    """Drop members that are null: in protobuf's JSON (protobuf.dev/programming-guides/json) they are absent.

    The signed payload is base64 text inside the document, so this does not change it.
    """
    if isinstance(value, dict):
        return {name: _without_null(item) for name, item in value.items() if item is not None}
    return [_without_null(item) for item in value] if isinstance(value, list) else value


def _certificates(material: Mapping[str, Any]) -> Iterator[bytes]:
    listed: object = [material["certificate"]] if material.get("certificate") is not None else []
    if material.get("x509CertificateChain") is not None:
        listed = members(material["x509CertificateChain"], "x509CertificateChain").get("certificates")
    if not isinstance(listed, list) or len(listed) > 10:
        raise SignatureRefused("the bundle's certificates are not a short list", reason="malformed")
    for item in listed:
        yield decode_base64(members(item, "a certificate").get("rawBytes"), "a certificate")
