"""One Notation signature, step by step (trust-store-trust-policy.md, signature evaluation)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from scanner.model.reference import Descriptor
from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.trust._notation.chain import check_authenticity, check_chain, check_identity
from scanner.trust._notation.envelope import AUTHORITY, Envelope, check_integrity, parse_envelope
from scanner.trust._notation.policy import Action, NotationTrust, Policy, Validation
from scanner.trust._pki import extension, valid_at
from scanner.trust._timestamp import verify_timestamp
from scanner.trust.base import SignatureRefused

_MAX_PAYLOAD = 64 << 10


@dataclass(frozen=True)
class Accepted:
    """A signature that counts.

    ``expires``: when it stops to, by what the policy enforces; None: never by time alone. ``notes``: what the policy
    only logs, and what was not checked.
    """

    leaf: x509.Certificate
    expires: datetime | None
    notes: tuple[str, ...]


def verify_one(
    data: bytes, media_type: str, artifact: Descriptor, trust: NotationTrust, policy: Policy, now: datetime
) -> Accepted:
    """Whoever signed ``artifact`` by the envelope ``data``.

    Raises SignatureRefused with the first enforced step that failed.
    """
    envelope = parse_envelope(data, media_type)  # 1
    check_integrity(envelope)  # 2
    check_payload(envelope.payload, artifact)  # 3
    check_chain(envelope.chain)  # 4
    leaf, notes = envelope.chain[0], _Log(policy)
    kind = "signingAuthority" if envelope.scheme == AUTHORITY else "ca"
    with_store = trust.certificates(policy, kind)
    notes.step(Validation.AUTHENTICITY, lambda: check_authenticity(envelope.chain, with_store))  # 5
    notes.step(Validation.AUTHENTICITY, lambda: check_identity(leaf, policy.identities))  # 6
    notes.step(Validation.EXPIRY, lambda: check_expiry(envelope, now))  # 7
    notes.step(Validation.TIMESTAMP, lambda: check_time(envelope, trust, policy, now))  # 8
    notes.add(revocation_note(envelope, policy))
    return Accepted(leaf, min(_ends(envelope, policy, now), default=None), tuple(notes))


def _ends(envelope: Envelope, policy: Policy, now: datetime) -> Iterator[datetime]:
    if envelope.expiry is not None and policy.actions[Validation.EXPIRY] is Action.ENFORCE:
        yield envelope.expiry
    by_clock = envelope.authentic_time is None and not _by_timestamp(envelope, policy, now)
    later = _has_tsa(policy) and envelope.timestamp  # once a certificate has expired, the timestamp will count
    if by_clock and not later and policy.actions[Validation.TIMESTAMP] is Action.ENFORCE:
        yield from (certificate.not_valid_after_utc for certificate in envelope.chain)


class _Log:
    """Runs a step as the policy says: enforced, or its refusal kept as a note."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._notes: list[str] = []

    def step(self, validation: Validation, check: Callable[[], None]) -> None:
        try:
            check()
        except SignatureRefused as error:
            if self._policy.actions[validation] is Action.ENFORCE:
                raise
            self._notes.append(f"{validation} failed and is only logged: {error}")

    def add(self, note: str) -> None:
        self._notes.append(note)

    def __iter__(self) -> Iterator[str]:
        return iter(self._notes)


def check_payload(payload: bytes, artifact: Descriptor) -> None:
    """Step 3: digest, size and media type are those of the manifest. Raises SignatureRefused: malformed, payload."""
    document = load_untrusted_json(payload, limit=_MAX_PAYLOAD, error=SignatureRefused, reason="malformed")
    target = document.get("targetArtifact") if isinstance(document, dict) else None
    if not isinstance(target, dict):
        raise SignatureRefused("the payload names no targetArtifact", reason="malformed")
    for member, wanted in (
        ("digest", str(artifact.digest)),
        ("size", artifact.size),
        ("mediaType", artifact.media_type),
    ):
        found = target.get(member)
        if found != wanted or isinstance(found, bool | float):
            shown = clean_text(str(found), 100)
            raise SignatureRefused(f"the signature is of another artifact: its {member} is {shown}", reason="payload")


def check_expiry(envelope: Envelope, now: datetime) -> None:
    """Step 7: the signer's own end of the signature. Raises SignatureRefused(reason="expired")."""
    if envelope.expiry is not None and now >= envelope.expiry:
        raise SignatureRefused(f"the signature expired at {envelope.expiry:%Y-%m-%dT%H:%M:%SZ}", reason="expired")


def check_time(envelope: Envelope, trust: NotationTrust, policy: Policy, now: datetime) -> None:
    """Step 8: every certificate of the chain was valid when the signature was made, as far as somebody trusted tells
    when that was.

    By a signing authority: at the time it vouches for. With a ``tsa`` store in the policy: over the range of the
    timestamp, which must then be there, or need be only once a certificate has expired. Otherwise nobody knows, so
    all must be valid now. Raises SignatureRefused: expired, certificate, timestamp.
    """
    if envelope.authentic_time is not None:
        return _all_valid(envelope.chain, envelope.authentic_time, "at the authentic signing time")
    if _by_timestamp(envelope, policy, now):
        if not envelope.timestamp:
            raise SignatureRefused("the signature has no timestamp, which the policy asks for", reason="timestamp")
        stamp = verify_timestamp(envelope.timestamp, envelope.signature, trust.certificates(policy, "tsa"))
        _all_valid(envelope.chain, stamp.earliest, "when it was timestamped")
        return _all_valid(envelope.chain, stamp.latest, "when it was timestamped")
    return _all_valid(envelope.chain, now, "now")


def _has_tsa(policy: Policy) -> bool:
    return any(name.startswith("tsa:") for name in policy.stores)


def _by_timestamp(envelope: Envelope, policy: Policy, now: datetime) -> bool:
    return _has_tsa(policy) and (policy.timestamp_always or not all(valid_at(c, now) for c in envelope.chain))


def _all_valid(chain: tuple[x509.Certificate, ...], at: datetime, when: str) -> None:
    for certificate in chain:
        name = clean_text(certificate.subject.rfc4514_string(), 200)
        if at > certificate.not_valid_after_utc:
            ended = f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
            raise SignatureRefused(f"the certificate {name} expired at {ended}: not valid {when}", reason="expired")
        if at < certificate.not_valid_before_utc:
            raise SignatureRefused(f"the certificate {name} was not yet valid {when}", reason="certificate")


def revocation_note(envelope: Envelope, policy: Policy) -> str:
    """Whether a certificate was revoked needs its authority's servers, which we do not ask: that is said, always."""
    if policy.actions[Validation.REVOCATION] is Action.SKIP:
        return "revocation: skipped, as the trust policy says"
    sources = any(
        extension(c, x509.CRLDistributionPoints) or extension(c, x509.AuthorityInformationAccess)
        for c in envelope.chain
    )
    return "revocation: not checked" + ("" if sources else "; the certificates name no server that would know")
