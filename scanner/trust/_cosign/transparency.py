"""Rekor's promise (signed entry timestamp) and the log entry that it promises: both must be about this signature.

The classic attack presents a valid entry of another signature, so the entry's body is compared with payload, signature
and signer. Rekor v2 gives inclusion proofs instead of promises; the sigstore library verifies them, for keyless
bundles only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509

from scanner.model.untrusted import load_untrusted_json
from scanner.trust._cosign.authorities import Log
from scanner.trust._cosign.payload import members
from scanner.trust._pki import (
    PublicKey,
    certificate_fingerprint,
    decode_base64,
    key_id,
    load_certificates,
    load_public_key,
    verify_signature,
)
from scanner.trust.base import SignatureRefused

# Bytes of a log entry's body.
_MAX_ENTRY = 64 << 10
_MAX_TIME = 253402300799  # the last second of the year 9999


@dataclass(frozen=True)
class LogEntry:
    """An entry as it came with the signature. ``promise`` is empty if the log gave none."""

    body: str  # base64, as signed
    integrated_time: int
    log_index: int
    log_id: str  # hex
    promise: bytes

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.integrated_time, UTC)


@dataclass(frozen=True)
class LoggedSignature:
    """The signature that the log entry must be about. ``certificate`` is None for a signature by a key."""

    payload: bytes
    signed_bytes: bytes  # what the signature covers; for DSSE not the payload alone
    signature: bytes
    key: PublicKey
    certificate: x509.Certificate | None


def parse_annotation(text: str) -> LogEntry:
    """Parse the annotation ``dev.sigstore.cosign/bundle``. Raises SignatureRefused: tlog, malformed."""
    document = _object(text.encode("utf-8", "surrogatepass"), "the log bundle")
    payload = members(document.get("Payload"), "the log bundle's Payload")
    return _entry(
        payload.get("body"),
        payload.get("integratedTime"),
        payload.get("logIndex"),
        payload.get("logID"),
        document.get("SignedEntryTimestamp"),
    )


def parse_bundle_entry(value: object) -> LogEntry:
    """Parse a ``tlogEntries`` member of a sigstore bundle (protobuf JSON writes 64-bit integers as strings)."""
    item = members(value, "a log entry")
    promise = item.get("inclusionPromise")
    log_id = decode_base64(members(item.get("logId"), "logId").get("keyId"), "the log's id").hex()
    return _entry(
        item.get("canonicalizedBody"),
        _integer(item.get("integratedTime", "0")),
        _integer(item.get("logIndex", "0")),
        log_id,
        members(promise, "inclusionPromise").get("signedEntryTimestamp") if promise is not None else "",
    )


def _integer(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20 else value


def _entry(body: object, time: object, index: object, log_id: object, promise: object) -> LogEntry:
    if not isinstance(body, str) or not isinstance(log_id, str) or len(body) > _MAX_ENTRY:
        raise SignatureRefused("the log entry is not well-formed", reason="malformed")
    for number in (time, index):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _MAX_TIME:
            raise SignatureRefused("the log entry's time or index is not a number", reason="malformed")
    assert isinstance(time, int)
    assert isinstance(index, int)
    return LogEntry(body, time, index, log_id, decode_base64(promise, "the log's promise"))


def check_promise(entry: LogEntry, logs: Mapping[str, Log]) -> None:
    """Verify that a trusted log promised this entry, while it was trusted. Raises SignatureRefused(reason="tlog")."""
    log = logs.get(entry.log_id)
    if log is None:
        raise SignatureRefused(f"the log {entry.log_id[:16]}… is not trusted", reason="tlog")
    signed = {
        "body": entry.body,
        "integratedTime": entry.integrated_time,
        "logID": entry.log_id,
        "logIndex": entry.log_index,
    }
    # Rekor signs the canonical JSON (RFC 8785) of these four members.
    canonical = json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    # An empty promise must not reach the library: bundles of Rekor v2 have none, and are not verified here.
    if not entry.promise or not verify_signature(log.key, entry.promise, canonical):
        raise SignatureRefused("the log's promise does not verify", reason="tlog")
    # After the signature, because only then the time is the log's own and not the attacker's.
    log.period.require(entry.time, "the transparency log", "tlog")


def check_entry(entry: LogEntry, signing: LoggedSignature) -> None:
    """Check that the promised entry is about this payload, signature and signer.

    Raises SignatureRefused(reason="tlog").
    """
    body = _object(decode_base64(entry.body, "the log entry"), "the log entry")
    kind = (body.get("kind"), body.get("apiVersion"))
    check = _KINDS.get(kind)
    if check is None:
        raise SignatureRefused(f"a log entry of kind {str(kind)[:60]} cannot be compared", reason="tlog")
    check(members(body.get("spec"), "the log entry's spec"), signing)


def is_in_toto(entry: LogEntry) -> bool:
    """True if the entry claims to be of the kind ``intoto`` 0.0.2. Raises SignatureRefused if it cannot be read."""
    body = _object(decode_base64(entry.body, "the log entry"), "the log entry")
    return (body.get("kind"), body.get("apiVersion")) == ("intoto", "0.0.2")


def _hashed_rekord(spec: Mapping[str, object], signing: LoggedSignature) -> None:
    found = members(members(spec.get("data"), "data").get("hash"), "data.hash")
    _same_hash(found, signing.signed_bytes)
    signature = members(spec.get("signature"), "signature")
    if decode_base64(signature.get("content"), "the logged signature") != signing.signature:
        raise SignatureRefused("the log entry is about another signature", reason="tlog")
    _same_signer(members(signature.get("publicKey"), "publicKey").get("content"), signing)


def _dsse(spec: Mapping[str, object], signing: LoggedSignature) -> None:
    _same_hash(members(spec.get("payloadHash"), "payloadHash"), signing.payload)
    _one_signature(spec.get("signatures"), "signature", "verifier", signing, doubly=False)


def _in_toto(spec: Mapping[str, object], signing: LoggedSignature) -> None:
    content = members(spec.get("content"), "content")
    _same_hash(members(content.get("payloadHash"), "payloadHash"), signing.payload)
    envelope = members(content.get("envelope"), "envelope")
    # Rekor base64-encodes it a second time
    _one_signature(envelope.get("signatures"), "sig", "publicKey", signing, doubly=True)


def _one_signature(listed: object, name: str, signer: str, signing: LoggedSignature, *, doubly: bool) -> None:
    for item in listed if isinstance(listed, list) else []:
        logged = decode_base64(members(item, "a logged signature").get(name), "the logged signature")
        if doubly:
            logged = decode_base64(logged.decode("ascii", "replace"), "the logged signature")
        if logged == signing.signature:
            _same_signer(item.get(signer), signing)
            return
    raise SignatureRefused("the log entry is about another signature", reason="tlog")


_KINDS: Mapping[tuple[object, object], Callable[[Mapping[str, object], LoggedSignature], None]] = {
    ("hashedrekord", "0.0.1"): _hashed_rekord,
    ("dsse", "0.0.1"): _dsse,
    ("intoto", "0.0.2"): _in_toto,
}


def _same_hash(found: Mapping[str, object], data: bytes) -> None:
    """Compare by SHA-256, or by the hash that belongs to a larger curve."""
    algorithm = found.get("algorithm")
    if (
        algorithm not in ("sha256", "sha384", "sha512")
        or found.get("value") != hashlib.new(algorithm, data).hexdigest()
    ):
        raise SignatureRefused("the log entry is about another payload", reason="tlog")


def _same_signer(content: object, signing: LoggedSignature) -> None:
    pem = decode_base64(content, "the logged key")
    try:
        # Rekor stores what the client sent as its verifier: a certificate (keyless) or a bare key.
        if b"BEGIN CERTIFICATE" in pem:
            certificate = load_certificates(pem)[0]
            same = signing.certificate is not None and certificate_fingerprint(certificate) == certificate_fingerprint(
                signing.certificate
            )
        else:
            same = signing.certificate is None and key_id(load_public_key(pem)) == key_id(signing.key)
    except ValueError as error:
        raise SignatureRefused("the logged key cannot be read", reason="tlog") from error
    if not same:
        raise SignatureRefused("the log entry names another key", reason="tlog")


def _object(data: bytes, what: str) -> Mapping[str, object]:
    return members(load_untrusted_json(data, limit=_MAX_ENTRY, error=SignatureRefused, reason="malformed"), what)
