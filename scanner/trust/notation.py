"""Notation (Notary Project): JWS and COSE signatures among the referrers, verified by a trust policy in its standard
format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from cryptography.x509.oid import NameOID

from scanner.errors import UsageError
from scanner.model.finding import Signer, TrustStatus, Verification
from scanner.model.reference import Descriptor
from scanner.model.untrusted import clean_text
from scanner.trust._found import FoundSignatures, answer, fetch_blob, furthest, only_layer, referrers, without_root
from scanner.trust._notation.envelope import MAX_ENVELOPE
from scanner.trust._notation.policy import NotationTrust, Policy, parse_document, parse_trust
from scanner.trust._notation.verification import AcceptedSignature, verify_one
from scanner.trust._pki import certificate_key, key_id
from scanner.trust.base import SignatureRefused, TrustJob, TrustRoot, TrustScheme

_ARTIFACT = "application/vnd.cncf.notary.signature"
# Steps in order. Of several refused signatures, the one that passed most steps explains best why none is valid.
_PROGRESS = (
    "missing",
    "checksum",
    "too_large",
    "malformed",
    "signature",
    "payload",
    "certificate",
    "identity",
    "timestamp",
    "expired",
)


class Notation(TrustScheme):
    """JWS and COSE signatures as Notation makes them, by certificates and a trust policy."""

    id: ClassVar[str] = "notation"
    title: ClassVar[str] = "Notation (Notary Project)"

    def parse_trust(self, data: bytes, where: str) -> Mapping[str, Any]:
        """See ``TrustScheme.parse_trust``."""
        return parse_document(data, where)

    def verify(self, job: TrustJob) -> tuple[Verification, ...]:
        """See ``TrustScheme.verify``."""
        found = find(job)
        if not job.roots:
            return (without_root(self.id, job, found),)
        return tuple(_judge(found, root, job) for root in job.roots)


def _judge(found: FoundSignatures[tuple[bytes, str]], root: TrustRoot, job: TrustJob) -> Verification:
    try:
        trust = parse_trust(root.document)
        policy = trust.policy_for(job.name)
    except UsageError as error:
        return answer(
            Notation.id, job, TrustStatus.UNKNOWN, "trust_root_invalid", f"trust root {root.name}: {error}", root=root
        )
    except SignatureRefused as error:
        return answer(Notation.id, job, TrustStatus.REFUSED, error.reason, str(error), root=root)
    # Level `skip` of the trust policy says "accept without verification". It is verified by nobody, so it has no
    # signer and satisfies no rule that names one (see `scanner.policy.signatures`).
    if policy.skip:
        note = f"accepted unchecked: the level of the trust policy {policy.name} is skip"
        return answer(Notation.id, job, TrustStatus.VERIFIED, "", note, root=root, notes=(note,))
    return _verdict(found, trust, policy, root, job)


def _verdict(
    found: FoundSignatures[tuple[bytes, str]], trust: NotationTrust, policy: Policy, root: TrustRoot, job: TrustJob
) -> Verification:
    """One valid signature is enough; failures of others do not matter then. All signers are named."""
    refused = list(found.refused)
    accepted: list[AcceptedSignature] = []
    for data, media_type in found.items:
        try:
            accepted.append(verify_one(data, media_type, job.descriptor, trust, policy, job.now))
        except SignatureRefused as error:
            refused.append(error)
    # The level `audit` accepts a signature by a stranger. Its certificate can have any name, so it has no signer:
    # like one that the level `skip` accepts, it satisfies no rule that names or counts signers.
    authentic = [item for item in accepted if item.authentic]
    missing = _missing_signers(authentic, job.options.require_signers)
    if accepted and not missing:
        signers = tuple({item.leaf: _signer(item, policy) for item in authentic}.values())
        notes = tuple(dict.fromkeys(note for item in accepted for note in item.notes))
        return answer(Notation.id, job, TrustStatus.VERIFIED, root=root, signers=signers, notes=notes)
    reason, text = found.why_unknown
    # A valid signature may be among those that could not be fetched, so "refused" would claim too much.
    if reason:
        return answer(Notation.id, job, TrustStatus.UNKNOWN, reason, text, root=root)
    if accepted:
        text = f"not signed by {clean_text(', '.join(missing), 200)}"
        return answer(Notation.id, job, TrustStatus.REFUSED, "signer_missing", text, root=root)
    if not refused:
        return answer(Notation.id, job, TrustStatus.NOT_SIGNED, "not_signed", "no Notation signature", root=root)
    refusal = furthest(refused, _PROGRESS)
    return answer(Notation.id, job, TrustStatus.REFUSED, refusal.reason, str(refusal), root=root)


def _missing_signers(accepted: Sequence[AcceptedSignature], required: Sequence[str]) -> list[str]:
    """The required signers (by subject, common name or key id) that did not sign."""
    signed: set[str] = set()
    for item in accepted:
        subject = item.leaf.subject
        # Of the attributes only the common name: an authority may let its customers choose their department, and a
        # department may be named like another signer.
        common = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        signed |= {subject.rfc4514_string(), key_id(certificate_key(item.leaf)), *(str(part.value) for part in common)}
    return [name for name in required if name not in signed]


def _signer(accepted: AcceptedSignature, policy: Policy) -> Signer:
    return Signer(
        name=clean_text(accepted.leaf.subject.rfc4514_string(), 300),
        keyid=key_id(certificate_key(accepted.leaf)),
        role=clean_text(policy.name, 100),
        issuer=clean_text(accepted.leaf.issuer.rfc4514_string(), 300),
        expires=accepted.expires,
    )


def find(job: TrustJob) -> FoundSignatures[tuple[bytes, str]]:
    """Fetch every Notation envelope of the image, with its media type. Never raises."""
    found: FoundSignatures[tuple[bytes, str]] = FoundSignatures(job.settings.limits.signatures)
    found.gather(lambda: referrers(job, _ARTIFACT), lambda candidate: _read_envelopes(candidate, job))
    return found


def _read_envelopes(candidate: Descriptor, job: TrustJob) -> Sequence[tuple[bytes, str]]:
    layer = only_layer(candidate, job, _ARTIFACT)
    return [] if layer is None else [(fetch_blob(layer, job, MAX_ENVELOPE), layer.media_type)]
