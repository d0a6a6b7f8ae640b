"""Verify one signature step by step.

Bytes, trust and digest in; the signer out, or a refusal naming the failed step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from cryptography import x509

from scanner.model.reference import Digest
from scanner.trust._cosign.document import CosignTrust
from scanner.trust._cosign.keyless import KeylessSigner, check_certificate, check_identity, check_sct
from scanner.trust._cosign.payload import (
    SIGNATURE_PREDICATE,
    check_annotations,
    check_simple_signing,
    check_statement,
)
from scanner.trust._cosign.transparency import LogEntry, LoggedSignature, check_entry, check_promise, is_in_toto
from scanner.trust._pki import PublicKey, certificate_key, key_id, verify_signature
from scanner.trust._timestamp import Timestamp, verify_timestamp
from scanner.trust.base import SignatureRefused

# Each costs the verification of a chain.
_MAX_TIMESTAMPS = 4


class Material(Protocol):
    """The verification material that comes with a signature. None of it is signed.

    Each member is parsed on access and may raise SignatureRefused, so that malformed material that a trust root does
    not need cannot break the verification.
    """

    @property
    def certificate(self) -> x509.Certificate | None: ...

    @property
    def chain(self) -> tuple[x509.Certificate, ...]: ...

    @property
    def entries(self) -> tuple[LogEntry, ...]: ...

    @property
    def timestamps(self) -> tuple[bytes, ...]: ...


@dataclass(frozen=True)
class FoundSignature:
    """A signature as it was found; nothing in it is verified yet.

    ``statement``: the payload is an in-toto statement, otherwise simple signing. ``bundle``: the whole sigstore bundle,
    if the signature is one.
    """

    payload: bytes
    signed_bytes: bytes  # what the signature covers; for DSSE not the payload alone
    signatures: tuple[bytes, ...]
    statement: bool
    material: Material
    bundle: bytes = b""


@dataclass(frozen=True)
class AcceptedSignature:
    """A verified signature. ``signer`` is equal for two signatures by the same signer: a key id, or an identity."""

    signer: str
    name: str
    keyid: str  # of the key; for a keyless signature, that of its certificate
    issuer: str  # the identity provider; empty: a key
    predicate_type: str = ""  # empty: a signature, else an attestation
    fields: tuple[tuple[str, str], ...] = ()  # scalars of the statement's predicate, by dotted path
    truncated: bool = False  # there were more scalars than ``fields`` holds
    logged: datetime | None = None  # when the log recorded it; None: no entry was needed
    notes: tuple[str, ...] = ()


def verify_one(signed: FoundSignature, trust: CosignTrust, digest: Digest) -> tuple[AcceptedSignature, ...]:
    """Verify what was found about ``digest`` and return its signers, each once: an envelope can have several.

    A signer whose log entry or certificate is refused does not count, and does not hide the others. Raises
    SignatureRefused if none counts; its reason is the first step that failed for the first of them.
    """
    accepted, refused = dict[str, AcceptedSignature](), list[SignatureRefused]()
    for key, signature, name in find_signers(signed, trust):  # 1
        try:
            item = _verify_signer(signed, key, signature, name, trust, digest)
        except SignatureRefused as error:
            refused.append(error)
        else:
            accepted.setdefault(item.signer, item)
    if not accepted:
        raise refused[0]
    return tuple(accepted.values())


def _verify_signer(
    signed: FoundSignature, key: PublicKey, signature: bytes, name: str | None, trust: CosignTrust, digest: Digest
) -> AcceptedSignature:
    if name is None:
        who, logged = _keyless(signed, signature, key, trust)
    else:
        signing = LoggedSignature(signed.payload, signed.signed_bytes, signature, key, None)
        # Logged or not, the payload is checked last: a refusal then names a problem of the key or log first, if there
        # is one.
        who, logged = None, check_log(signed, signing, trust, keyless=False)  # 2
    kind, claims, fields, truncated = check_payload(signed, digest)  # 4
    if not kind:
        check_annotations(claims, trust.annotations)  # 5
    if who is not None:
        signer = f"{who.subject} {who.issuer}"
        return AcceptedSignature(signer, who.subject, key_id(key), who.issuer, kind, fields, truncated, logged)
    notes = () if logged else ("the trust root does not require the transparency log",)
    return AcceptedSignature(key_id(key), name or "", key_id(key), "", kind, fields, truncated, logged, notes)


def _keyless(
    signed: FoundSignature, signature: bytes, key: PublicKey, trust: CosignTrust
) -> tuple[KeylessSigner, datetime | None]:
    """Verify a bundle with sigstore's own library, and everything else by our steps.

    Also by our steps: a bundle with a log entry of the older kind ``intoto``. The library accepts no time from such an
    entry, so attestations by older versions of cosign could not be verified.
    """
    if signed.bundle and trust.root is not None and not any(map(is_in_toto, signed.material.entries)):
        from scanner.trust._cosign.instance import verify_bundle

        return verify_bundle(signed.bundle, trust.root, trust.identities), None
    signing = LoggedSignature(signed.payload, signed.signed_bytes, signature, key, signed.material.certificate)
    logged = check_log(signed, signing, trust, keyless=True)  # 2
    return check_keyless(signed, signature, trust, logged), logged  # 3


def find_signers(signed: FoundSignature, trust: CosignTrust) -> list[tuple[PublicKey, bytes, str | None]]:
    """Step 1: find the keys that verify a signature: trusted keys (each with its name), and the certificate's key
    (keyless, name None). At least one; raises SignatureRefused if there is none.

    A signature does not say which key made it, and a hint would prove nothing, so every trusted key is tried.
    """
    found: dict[str, tuple[PublicKey, bytes, str | None]] = {}
    for name, key in trust.keys:
        # One key under two names is one signer.
        made = None if key_id(key) in found else _signature_by(key, signed)
        if made is not None:
            found[key_id(key)] = (key, made, name)
    try:
        keyless = _find_keyless(signed) if trust.identities else None
    except SignatureRefused:
        # Material that is broken does not matter to a signature by a trusted key.
        if not found:
            raise
        keyless = None
    if keyless is not None:
        found.setdefault(key_id(keyless[0]), (*keyless, None))
    if not found:
        raise SignatureRefused("the signature was not made by a trusted key")
    return list(found.values())


def _find_keyless(signed: FoundSignature) -> tuple[PublicKey, bytes] | None:
    """The certificate's key, and the signature that it verifies. None if there is no certificate."""
    certificate = signed.material.certificate
    if certificate is None:
        return None
    key = certificate_key(certificate)
    made = _signature_by(key, signed)
    if made is None:
        raise SignatureRefused("the signature does not verify with the key of its certificate")
    return key, made


def _signature_by(key: PublicKey, signed: FoundSignature) -> bytes | None:
    return next((one for one in signed.signatures if verify_signature(key, one, signed.signed_bytes)), None)


def check_log(
    signed: FoundSignature, signing: LoggedSignature, trust: CosignTrust, *, keyless: bool
) -> datetime | None:
    """Step 2: return when the log recorded this signature, or None if no entry is required.

    A keyless signature requires an entry, unless the trust root has a timestamp authority and no log.
    """
    wanted = trust.log_required or (keyless and (trust.keyless_log_required or not trust.authorities.tsa))
    if not wanted and not (keyless and trust.authorities.rekor):
        return None
    refused = SignatureRefused("the signature has no entry of the transparency log", reason="tlog")
    entries = signed.material.entries
    for entry in entries:
        try:
            check_promise(entry, trust.authorities.rekor)
            check_entry(entry, signing)
        except SignatureRefused as error:
            refused = error
        else:
            return entry.time
    # An entry that is present but wrong is refused even if none is required: something was tampered with.
    if wanted or entries:
        raise refused
    return None


def check_keyless(
    signed: FoundSignature, signature: bytes, trust: CosignTrust, logged: datetime | None
) -> KeylessSigner:
    """Step 3: the certificate comes from the authority, was valid when the signature was made, was recorded by a CT
    log, and matches an identity.
    """
    assert signed.material.certificate is not None
    times = [logged] if logged else []
    if signed.material.timestamps and trust.authorities.tsa:
        stamp = check_timestamps(signed, signature, trust)
        # Both ends of the timestamp's accuracy must lie in the certificate's ten minutes.
        times.extend((stamp.earliest, stamp.latest))
    path = check_certificate(signed.material.certificate, signed.material.chain, trust.authorities.fulcio, times)
    check_sct(path, trust.authorities.ctfe)
    return check_identity(signed.material.certificate, trust.identities)


def check_timestamps(signed: FoundSignature, signature: bytes, trust: CosignTrust) -> Timestamp:
    """Return the first timestamp over the signature by a trusted authority.

    Raises SignatureRefused(reason="timestamp").
    """
    refused = SignatureRefused("the signature has no acceptable timestamp", reason="timestamp")
    for token in signed.material.timestamps[:_MAX_TIMESTAMPS]:
        for authority in trust.authorities.tsa:
            try:
                stamp = verify_timestamp(token, signature, authority.certificates)
                for time in (stamp.earliest, stamp.latest):
                    authority.period.require(time, "the timestamp authority", "timestamp")
            except SignatureRefused as error:
                refused = error
            else:
                return stamp
    raise refused


def check_payload(
    signed: FoundSignature, digest: Digest
) -> tuple[str, Mapping[str, Any], tuple[tuple[str, str], ...], bool]:
    """Step 4: check that the signed payload is about this image.

    Returns the predicate type (empty for a signature), the claims, the predicate's fields, and whether fields were left
    out. The predicate type decides what a statement is: otherwise any attestation by the same key would count as a
    signature.
    """
    if not signed.statement:
        return "", check_simple_signing(signed.payload, digest), (), False
    statement = check_statement(signed.payload, digest)
    if statement.predicate_type == SIGNATURE_PREDICATE:
        return "", statement.annotations, (), False
    return statement.predicate_type, {}, statement.fields, statement.truncated
