"""cosign: ``.sig`` tags, and sigstore bundles found as referrers; with keys, or keyless with identity and issuer.

Attestations (``.att`` tags, bundles with another predicate type) are verified the same way and answered beside the signature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from scanner.config import Limits
from scanner.errors import ImageError, LimitExceeded, NotFoundError, ScannerError, UsageError
from scanner.model.finding import Signer, TrustStatus, Verification
from scanner.model.reference import Descriptor, Reference
from scanner.model.untrusted import clean_text
from scanner.registry.manifest import Manifest, parse_manifest
from scanner.trust._cosign.document import CosignTrust, parse_document, parse_trust
from scanner.trust._cosign.forms import BUNDLES, DSSE, SIMPLE_SIGNING, parse_bundle, parse_classic
from scanner.trust._cosign.payload import MAX_ENVELOPE, MAX_PAYLOAD
from scanner.trust._cosign.verification import Accepted, Signed, verify_one
from scanner.trust.base import SignatureRefused, TrustJob, TrustRoot, TrustScheme

_BUNDLE = "application/vnd.dev.sigstore.bundle"
# How far a refused signature came: the furthest tells most about why the image has no good one.
_PROGRESS = (
    "signature",
    "checksum",
    "too_large",
    "malformed",
    "tlog",
    "timestamp",
    "certificate",
    "identity",
    "payload",
    "annotations",
)


@dataclass
class Found:
    """What the registry has. ``unreachable``: it may have more, but could not be asked; ``skipped``: it has more than we examine."""

    signatures: list[Signed] = field(default_factory=list)
    refused: list[SignatureRefused] = field(default_factory=list)
    unreachable: list[ScannerError] = field(default_factory=list)
    skipped: int = 0


class Cosign(TrustScheme):
    """Signatures and attestations as cosign (sigstore) makes them."""

    id: ClassVar[str] = "cosign"
    title: ClassVar[str] = "cosign (sigstore)"

    def parse_trust(self, data: bytes, where: str) -> Mapping[str, Any]:
        """See ``TrustScheme.parse_trust``."""
        return parse_document(data, where)

    def verify(self, job: TrustJob) -> tuple[Verification, ...]:
        """See ``TrustScheme.verify``. One answer for each trust root, then one for each attestation that it verifies."""
        found = find(job)
        if not job.roots:
            return (_without_root(found, job),)
        return tuple(answer for root in job.roots for answer in _judge(found, root, job))


def _without_root(found: Found, job: TrustJob) -> Verification:
    if found.unreachable:
        return _unreachable(job, found)
    if not found.signatures and not found.refused:
        return _answer(job, TrustStatus.NOT_SIGNED, "not_signed", "no cosign signature")
    count = len(found.signatures) + len(found.refused)
    return _answer(
        job,
        TrustStatus.UNKNOWN,
        "no_trust_root",
        f"{count} signatures or attestations, and no trust root says whose count",
    )


def _judge(found: Found, root: TrustRoot, job: TrustJob) -> Iterator[Verification]:
    try:
        trust = parse_trust(root.document)
    except UsageError as error:
        yield _answer(
            job, TrustStatus.UNKNOWN, "trust_root_invalid", f"trust root {root.name}: {error}", trust=root.name
        )
        return
    accepted: list[Accepted] = []
    refused = list(found.refused)
    for signed in found.signatures:
        try:
            accepted.append(verify_one(signed, trust, job.descriptor.digest))
        except SignatureRefused as error:
            refused.append(error)
    yield _signature([a for a in accepted if not a.predicate_type], refused, found, trust, root, job)
    for item in accepted:
        if item.predicate_type:
            yield _attestation(item, root, job)


def _signature(
    accepted: Sequence[Accepted],
    refused: Sequence[SignatureRefused],
    found: Found,
    trust: CosignTrust,
    root: TrustRoot,
    job: TrustJob,
) -> Verification:
    """Enough distinct signers, or the best account of why not: a registry that could not be asked may have held the missing one."""
    signers = {item.signer: item for item in accepted}
    people = tuple(_signer(item) for item in signers.values())
    missing = [n for n in job.options.require_signers if not any(n in (i.name, i.keyid) for i in accepted)]
    if len(signers) >= trust.threshold and not missing:
        notes = tuple(dict.fromkeys(note for item in accepted for note in item.notes))
        return _answer(job, TrustStatus.VERIFIED, "", "", signers=people, trust=root.name, notes=notes)
    if found.unreachable:
        return _unreachable(job, found, root.name)
    if found.skipped:
        text = f"{found.skipped} more signatures than are examined"
        return _answer(job, TrustStatus.UNKNOWN, "too_many_signatures", text, trust=root.name)
    if signers and missing:
        text = f"not signed by {clean_text(', '.join(missing), 200)}"
        return _answer(job, TrustStatus.REFUSED, "signer_missing", text, signers=people, trust=root.name)
    if signers:
        text = f"signed by {len(signers)} of the {trust.threshold} distinct signers that are needed"
        return _answer(job, TrustStatus.REFUSED, "threshold", text, signers=people, trust=root.name)
    if refused:
        worst = max(refused, key=_progress)
        return _answer(job, TrustStatus.REFUSED, worst.reason, str(worst), trust=root.name)
    return _answer(job, TrustStatus.NOT_SIGNED, "not_signed", "no cosign signature", trust=root.name)


def _progress(error: SignatureRefused) -> int:
    return _PROGRESS.index(error.reason) if error.reason in _PROGRESS else 0


def _attestation(item: Accepted, root: TrustRoot, job: TrustJob) -> Verification:
    answer = _answer(job, TrustStatus.VERIFIED, "", "", signers=(_signer(item),), trust=root.name, notes=item.notes)
    return replace(answer, predicate_type=item.predicate_type, predicate=item.fields, predicate_cut=item.truncated)


def _signer(item: Accepted) -> Signer:
    return Signer(name=clean_text(item.name, 300), keyid=item.keyid, issuer=clean_text(item.issuer, 300))


def _unreachable(job: TrustJob, found: Found, trust: str = "") -> Verification:
    return _answer(job, TrustStatus.UNKNOWN, "unavailable", f"{found.unreachable[0]}", trust=trust)


def _answer(
    job: TrustJob,
    status: TrustStatus,
    reason: str,
    detail: str,
    *,
    signers: tuple[Signer, ...] = (),
    trust: str = "",
    notes: tuple[str, ...] = (),
) -> Verification:
    return Verification(
        Cosign.id, status, job.descriptor.digest, reason, detail, signers, trust=trust, checked_at=job.now, notes=notes
    )


def find(job: TrustJob) -> Found:
    """Everything that may be a signature of the image, read but not believed. Raises nothing."""
    found, limits = Found(), job.settings.limits
    budget: int = limits.signatures
    for listing in (_tagged, _referring):
        try:
            candidates = listing(job, limits)
        except LimitExceeded as error:
            found.unreachable.append(error)  # there is more than we look at: what it holds is not known
            continue
        except ImageError as error:
            found.refused.append(_as_refusal(error))
            continue
        except ScannerError as error:
            found.unreachable.append(error)
            continue
        found.skipped += max(0, len(candidates) - budget)
        for candidate in candidates[:budget]:
            _take(candidate, job, limits, found)
        budget = max(0, budget - len(candidates))
    return found


def _take(candidate: Descriptor, job: TrustJob, limits: Limits, found: Found) -> None:
    """One candidate more, or why not. A broken one never hides those beside it."""
    try:
        found.signatures.extend(_read(candidate, job, limits))
    except NotFoundError as error:
        found.refused.append(SignatureRefused(str(error), reason="missing"))
    except ImageError as error:
        found.refused.append(_as_refusal(error))
    except ScannerError as error:
        found.unreachable.append(error)


def _as_refusal(error: ImageError) -> SignatureRefused:
    if isinstance(error, SignatureRefused):
        return error
    reasons = {"digest_mismatch": "checksum", "limit_exceeded": "too_large"}
    return SignatureRefused(str(error), reason=reasons.get(error.reason, "malformed"))


def _tagged(job: TrustJob, limits: Limits) -> list[Descriptor]:
    """Classic: each layer of the manifests tagged ``sha256-<hex>.sig`` and ``.att`` is one signature or attestation."""
    digest = job.descriptor.digest
    found: list[Descriptor] = []
    for suffix, media_type in (("sig", SIMPLE_SIGNING), ("att", DSSE)):
        tag = f"{digest.algorithm}-{digest.hex[:64]}.{suffix}"
        try:
            descriptor, data = job.fetch.manifest(Reference(job.reference.host, job.reference.repository, tag))
        except NotFoundError:
            continue
        manifest = parse_manifest(data, descriptor, limits)
        if isinstance(manifest, Manifest):
            found.extend(layer for layer in manifest.layers if layer.media_type == media_type)
    return found


def _referring(job: TrustJob, limits: Limits) -> list[Descriptor]:
    """OCI 1.1: manifests whose subject is the image, each with one bundle. The list is a hint; what the manifest says counts."""
    listed = job.fetch.referrers(job.reference, job.descriptor.digest)
    return [item for item in listed if not item.artifact_type or item.artifact_type.startswith(_BUNDLE)]


def _read(candidate: Descriptor, job: TrustJob, limits: Limits) -> tuple[Signed, ...]:
    if candidate.media_type == SIMPLE_SIGNING:
        data = _blob(candidate, job, MAX_PAYLOAD)
        return (parse_classic(data, dict(candidate.annotations), attestation=False),)
    if candidate.media_type == DSSE:
        return (parse_classic(_blob(candidate, job, MAX_ENVELOPE), dict(candidate.annotations), attestation=True),)
    _, data = job.fetch.manifest(job.reference.at(candidate.digest))
    manifest = parse_manifest(data, candidate, limits)
    kind = (manifest.artifact_type or manifest.config.media_type) if isinstance(manifest, Manifest) else ""
    if not isinstance(manifest, Manifest) or not kind.startswith(_BUNDLE):
        return ()
    if manifest.subject is None or manifest.subject.digest != job.descriptor.digest:
        raise SignatureRefused("a bundle's manifest has another image as its subject", reason="payload")
    if len(manifest.layers) != 1 or manifest.layers[0].media_type not in BUNDLES:
        raise SignatureRefused("a bundle's manifest must have one layer, the bundle", reason="malformed")
    return (parse_bundle(_blob(manifest.layers[0], job, MAX_ENVELOPE)),)


def _blob(layer: Descriptor, job: TrustJob, limit: int) -> bytes:
    if layer.size > limit:
        raise SignatureRefused(f"a signature of {layer.size} bytes, more than {limit}", reason="too_large")
    return job.fetch.blob(job.reference, layer.digest, limit)
