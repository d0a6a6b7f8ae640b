"""Signatures stored beside an image in its registry, fetched one by one, so that a broken one never hides the
others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from scanner.errors import ImageError, LimitExceeded, NotFoundError, ScannerError
from scanner.model.finding import Signer, TrustStatus, Verification
from scanner.model.reference import Descriptor
from scanner.registry.manifest import Manifest, parse_manifest
from scanner.trust.base import SignatureRefused, TrustJob, TrustRoot

Item = TypeVar("Item")
_MAX_FAILURES = 3  # then the registry is not asked again for this image: each failure costs all retries


@dataclass
class FoundSignatures(Generic[Item]):
    """What the registry has; nothing in it is verified yet.

    ``refused``: entries that are malformed. ``unreachable``: errors that may hide further signatures. ``skipped``:
    number of signatures beyond the limit. ``budget``: how many more may be examined.
    """

    budget: int
    items: list[Item] = field(default_factory=list)
    refused: list[SignatureRefused] = field(default_factory=list)
    unreachable: list[ScannerError] = field(default_factory=list)
    skipped: int = 0

    @property
    def why_unknown(self) -> tuple[str, str]:
        """Reason and detail of an unknown answer. Empty if everything could be examined."""
        if not self.unreachable:
            text = f"{self.skipped} signatures were not examined: there are more than the limit"
            return ("too_many_signatures", text) if self.skipped else ("", "")
        first = self.unreachable[0]
        if isinstance(first, LimitExceeded):
            return "too_large", str(first)
        return "tls" if first.reason.startswith("tls_") else "unavailable", str(first)

    @property
    def nothing(self) -> bool:
        """True if the registry answered that there is no signature at all."""
        return not (self.items or self.refused or self.unreachable or self.skipped)

    def gather(self, listing: Callable[[], Sequence[Descriptor]], read: Callable[[Descriptor], Sequence[Item]]) -> None:
        """Read what ``listing`` returns, as far as the budget allows. Errors are recorded, not raised."""
        if len(self.unreachable) >= _MAX_FAILURES:
            return
        try:
            candidates = listing()
        except LimitExceeded as error:
            self.unreachable.append(error)  # more signatures exist than are examined: the rest is unknown
        except ImageError as error:
            self.refused.append(_as_refusal(error))
        except ScannerError as error:
            self.unreachable.append(error)
        else:
            # Counted, because a valid signature may be among the rest: the answer is then unknown, never "not
            # signed".
            self.skipped += max(0, len(candidates) - self.budget)
            for candidate in candidates[: self.budget]:
                if len(self.unreachable) < _MAX_FAILURES:
                    self._take(candidate, read)
            self.budget = max(0, self.budget - len(candidates))

    def _take(self, candidate: Descriptor, read: Callable[[Descriptor], Sequence[Item]]) -> None:
        try:
            self.items.extend(read(candidate))
        # The registry listed it but does not have it: a broken push, or a signature that was deleted.
        except NotFoundError as error:
            self.refused.append(SignatureRefused(str(error), reason="missing"))
        except ImageError as error:
            self.refused.append(_as_refusal(error))
        except ScannerError as error:
            self.unreachable.append(error)


def _as_refusal(error: ImageError) -> SignatureRefused:
    if isinstance(error, SignatureRefused):
        return error
    reasons = {"digest_mismatch": "checksum", "limit_exceeded": "too_large"}
    return SignatureRefused(str(error), reason=reasons.get(error.reason, "malformed"))


def referrers(job: TrustJob, *artifact_types: str) -> list[Descriptor]:
    """The image's referrers whose type begins with one of ``artifact_types``, then those without a type, which an
    index may omit.

    Filtered before the budget is applied: thousands of other artifacts, such as SBOMs, cannot crowd out a signature.
    """
    listed = job.fetch.referrers(job.reference, job.descriptor.digest)
    named = [item for item in listed if item.artifact_type and item.artifact_type.startswith(artifact_types)]
    return [*named, *(item for item in listed if not item.artifact_type)]


def only_layer(candidate: Descriptor, job: TrustJob, artifact_type: str) -> Descriptor | None:
    """Return the single layer of a referring manifest, or None if it is another kind of artifact.

    Raises SignatureRefused as `referring_manifest`, or if it does not have exactly one layer.
    """
    manifest = referring_manifest(candidate, job, artifact_type)
    return None if manifest is None else single_layer(manifest)


def referring_manifest(candidate: Descriptor, job: TrustJob, *artifact_types: str) -> Manifest | None:
    """Return a referring manifest, or None if its type begins with none of ``artifact_types``.

    The list of referrers is a hint; the manifest decides. Raises SignatureRefused if its subject is another image.
    """
    _, data = job.fetch.manifest(job.reference.at(candidate.digest))
    manifest = parse_manifest(data, candidate, job.settings.limits)
    if not isinstance(manifest, Manifest) or not type_of(manifest).startswith(artifact_types):
        return None
    # A registry's list of referrers is not signed. Only the manifest says which image it belongs to.
    if manifest.subject is None or manifest.subject.digest != job.descriptor.digest:
        raise SignatureRefused("a signature's manifest has a subject that is another image", reason="payload")
    return manifest


def type_of(manifest: Manifest) -> str:
    """The artifact's type. Before image-spec 1.1 it was the media type of the config."""
    return manifest.artifact_type or manifest.config.media_type


def single_layer(manifest: Manifest) -> Descriptor:
    """Raises SignatureRefused if there is not exactly one."""
    if len(manifest.layers) != 1:
        raise SignatureRefused("a signature's manifest must have one layer", reason="malformed")
    return manifest.layers[0]


def fetch_blob(layer: Descriptor, job: TrustJob, limit: int) -> bytes:
    """Fetch a layer.

    Raises SignatureRefused(reason="too_large") before fetching one that is larger than ``limit`` bytes.
    """
    if layer.size > limit:
        raise SignatureRefused(f"a signature of {layer.size} bytes, more than {limit}", reason="too_large")
    return job.fetch.blob(job.reference, layer.digest, limit)


def furthest(refused: Sequence[SignatureRefused], progress: Sequence[str]) -> SignatureRefused:
    """Choose the most informative refusal: the one of the signature that passed the most steps."""
    return max(refused, key=lambda error: progress.index(error.reason) if error.reason in progress else len(progress))


def answer(
    scheme: str,
    job: TrustJob,
    status: TrustStatus,
    reason: str = "",
    detail: str = "",
    *,
    root: TrustRoot | None = None,
    signers: tuple[Signer, ...] = (),
    notes: tuple[str, ...] = (),
) -> Verification:
    """Build the scheme's answer about the job's image, with the trust root that decided."""
    return Verification(
        scheme,
        status,
        job.descriptor.digest,
        reason,
        detail,
        signers,
        trust=root.name if root else "",
        checked_at=job.now,
        notes=notes,
    )


def without_root(scheme: str, job: TrustJob, found: FoundSignatures[Item]) -> Verification:
    """The answer without a trust root: not signed if there is no signature, otherwise unknown."""
    reason, text = found.why_unknown
    if reason:
        return answer(scheme, job, TrustStatus.UNKNOWN, reason, text)
    if found.nothing:
        return answer(scheme, job, TrustStatus.NOT_SIGNED, "not_signed", f"no {scheme} signature")
    text = (
        f"signatures or attestations found: {len(found.items) + len(found.refused)}; no trust root says "
        "which signers to trust"
    )
    return answer(scheme, job, TrustStatus.UNKNOWN, "no_trust_root", text)
