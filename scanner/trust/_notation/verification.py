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
class AcceptedSignature:
    """An accepted signature.

    ``authentic``: it was made by a signer that the policy trusts. False only if the policy logs that failure: then
    a stranger can have made it, under any name. ``expires``: when the policy stops to accept it; None if time alone
    never ends it. ``notes``: failures that the policy only logs, and what was not checked.
    """

    leaf: x509.Certificate
    authentic: bool
    expires: datetime | None
    notes: tuple[str, ...]


def verify_one(
    data: bytes, media_type: str, artifact: Descriptor, trust: NotationTrust, policy: Policy, now: datetime
) -> AcceptedSignature:
    """Verify the signature of ``artifact`` in the envelope ``data``.

    Raises SignatureRefused for the first enforced step that failed.
    """
    envelope = parse_envelope(data, media_type)  # 1
    check_integrity(envelope)  # 2
    check_payload(envelope.payload, artifact)  # 3
    check_chain(envelope.chain)  # 4
    leaf, notes = envelope.chain[0], _Notes(policy)
    kind = "signingAuthority" if envelope.scheme == AUTHORITY else "ca"
    trusted = trust.certificates(policy, kind)
    authentic = [
        notes.step(Validation.AUTHENTICITY, lambda: check_authenticity(envelope.chain, trusted)),  # 5
        notes.step(Validation.AUTHENTICITY, lambda: check_identity(leaf, policy.identities)),  # 6
    ]
    notes.step(Validation.EXPIRY, lambda: check_expiry(envelope, now))  # 7
    notes.step(Validation.TIMESTAMP, lambda: check_time(envelope, trust, policy, now))  # 8
    notes.add(revocation_note(envelope, policy))
    ends = min(_ends(envelope, policy, now), default=None)
    return AcceptedSignature(leaf, all(authentic), ends, tuple(notes))


def _ends(envelope: Envelope, policy: Policy, now: datetime) -> Iterator[datetime]:
    if envelope.expiry is not None and policy.actions[Validation.EXPIRY] is Action.ENFORCE:
        yield envelope.expiry
    by_clock = envelope.authentic_time is None and not _by_timestamp(envelope, policy, now)
    later = _has_tsa(policy) and envelope.timestamp  # after expiry of a certificate the timestamp decides
    # Then the decision ends with the first certificate of the chain: nothing proves that it signed before that.
    if by_clock and not later and policy.actions[Validation.TIMESTAMP] is Action.ENFORCE:
        yield from (certificate.not_valid_after_utc for certificate in envelope.chain)


class _Notes:
    """Runs each step as the policy requires: a failure is raised, or kept as a note."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._notes: list[str] = []

    def step(self, validation: Validation, check: Callable[[], None]) -> bool:
        """Return whether the check passed."""
        try:
            check()
        except SignatureRefused as error:
            if self._policy.actions[validation] is Action.ENFORCE:
                raise
            self._notes.append(f"{validation} failed and is only logged: {error}")
            return False
        return True

    def add(self, note: str) -> None:
        self._notes.append(note)

    def __iter__(self) -> Iterator[str]:
        return iter(self._notes)


def check_payload(payload: bytes, artifact: Descriptor) -> None:
    """Step 3: compare digest, size and media type with the manifest's. Raises SignatureRefused: malformed, payload."""
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
        # ``True == 1`` and ``1.0 == 1`` in Python: a size must be an integer.
        if found != wanted or isinstance(found, bool | float):
            shown = clean_text(str(found), 100)
            raise SignatureRefused(f"the signature is for another artifact: its {member} is {shown}", reason="payload")


def check_expiry(envelope: Envelope, now: datetime) -> None:
    """Step 7: the expiry that the signer set. Raises SignatureRefused(reason="expired")."""
    if envelope.expiry is not None and now >= envelope.expiry:
        raise SignatureRefused(f"the signature expired at {envelope.expiry:%Y-%m-%dT%H:%M:%SZ}", reason="expired")


def check_time(envelope: Envelope, trust: NotationTrust, policy: Policy, now: datetime) -> None:
    """Step 8: check that every certificate of the chain was valid when the signature was made, by a trusted time.

    A signing authority attests the time. With a ``tsa`` store in the policy the timestamp proves it; the policy
    requires one always, or only after a certificate has expired. Otherwise no time is proven, so all certificates must
    be valid now. Raises SignatureRefused: expired, certificate, timestamp.
    """
    if envelope.authentic_time is not None:
        return _all_valid(envelope.chain, envelope.authentic_time, "at the authentic signing time")
    if _by_timestamp(envelope, policy, now):
        if not envelope.timestamp:
            raise SignatureRefused("the signature has no timestamp, which the policy requires", reason="timestamp")
        stamp = verify_timestamp(envelope.timestamp, envelope.signature, trust.certificates(policy, "tsa"))
        # Both ends of the timestamp's accuracy: the signature was made somewhere between them.
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
    """Revocation would need the authorities' servers, which a verifier must not depend on. The note always says so."""
    if policy.actions[Validation.REVOCATION] is Action.SKIP:
        return "revocation: skipped, as the trust policy requires"
    sources = any(
        extension(c, x509.CRLDistributionPoints) or extension(c, x509.AuthorityInformationAccess)
        for c in envelope.chain
    )
    return "revocation: not checked" + ("" if sources else "; the certificates name no revocation server")
