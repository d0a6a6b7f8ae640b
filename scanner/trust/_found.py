"""Signatures kept beside an image in its registry: fetched one by one, so that a broken one never hides those next
to it.
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
_PATIENCE = 3  # a registry that failed so often for one image is not asked for the rest: each failure takes its retries


@dataclass
class Found(Generic[Item]):
    """What the registry has, read but not believed.

    ``unreachable``: it may have more, but could not be asked; ``skipped``: it has more than we examine. ``budget``:
    how many more are examined.
    """

    budget: int
    items: list[Item] = field(default_factory=list)
    refused: list[SignatureRefused] = field(default_factory=list)
    unreachable: list[ScannerError] = field(default_factory=list)
    skipped: int = 0

    @property
    def why_unknown(self) -> tuple[str, str]:
        """Reason and detail of an answer that cannot be given; empty where everything could be looked at."""
        if not self.unreachable:
            text = f"{self.skipped} more signatures than are examined"
            return ("too_many_signatures", text) if self.skipped else ("", "")
        first = self.unreachable[0]
        if isinstance(first, LimitExceeded):
            return "too_large", str(first)
        return "tls" if first.reason.startswith("tls_") else "unavailable", str(first)

    @property
    def nothing(self) -> bool:
        """Whether the registry said that there is no signature at all."""
        return not (self.items or self.refused or self.unreachable or self.skipped)

    def gather(self, listing: Callable[[], Sequence[Descriptor]], read: Callable[[Descriptor], Sequence[Item]]) -> None:
        """Take what is listed, as far as the budget goes. Raises nothing."""
        if len(self.unreachable) >= _PATIENCE:
            return
        try:
            candidates = listing()
        except LimitExceeded as error:
            self.unreachable.append(error)  # there is more than we look at: what it holds is not known
        except ImageError as error:
            self.refused.append(_as_refusal(error))
        except ScannerError as error:
            self.unreachable.append(error)
        else:
            self.skipped += max(0, len(candidates) - self.budget)
            for candidate in candidates[: self.budget]:
                if len(self.unreachable) < _PATIENCE:
                    self._take(candidate, read)
            self.budget = max(0, self.budget - len(candidates))

    def _take(self, candidate: Descriptor, read: Callable[[Descriptor], Sequence[Item]]) -> None:
        try:
            self.items.extend(read(candidate))
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


def referrers(job: TrustJob, artifact_type: str) -> list[Descriptor]:
    """What the registry lists as referring to the image, of types that begin so; then those without a type, which an
    index may leave out. Thousands of other artifacts, such as SBOMs, neither hide a signature nor use up what is
    examined.
    """
    listed = job.fetch.referrers(job.reference, job.descriptor.digest)
    named = [item for item in listed if item.artifact_type and item.artifact_type.startswith(artifact_type)]
    return [*named, *(item for item in listed if not item.artifact_type)]


def only_layer(candidate: Descriptor, job: TrustJob, artifact_type: str) -> Descriptor | None:
    """The one layer of a referring manifest, None where it is of something else.

    The list was a hint; what the manifest says counts.

    Raises SignatureRefused where its subject is another image, or it has other than one layer.
    """
    _, data = job.fetch.manifest(job.reference.at(candidate.digest))
    manifest = parse_manifest(data, candidate, job.settings.limits)
    # Before image-spec 1.1 the artifact's type was its config's media type.
    kind = (manifest.artifact_type or manifest.config.media_type) if isinstance(manifest, Manifest) else ""
    if not isinstance(manifest, Manifest) or not kind.startswith(artifact_type):
        return None
    if manifest.subject is None or manifest.subject.digest != job.descriptor.digest:
        raise SignatureRefused("a signature's manifest has another image as its subject", reason="payload")
    if len(manifest.layers) != 1:
        raise SignatureRefused("a signature's manifest must have one layer", reason="malformed")
    return manifest.layers[0]


def fetch_blob(layer: Descriptor, job: TrustJob, limit: int) -> bytes:
    """The layer's bytes. Raises SignatureRefused(reason="too_large") before anything is fetched."""
    if layer.size > limit:
        raise SignatureRefused(f"a signature of {layer.size} bytes, more than {limit}", reason="too_large")
    return job.fetch.blob(job.reference, layer.digest, limit)


def furthest(refused: Sequence[SignatureRefused], progress: Sequence[str]) -> SignatureRefused:
    """The refusal that tells most about why there is no good signature: of the one that came furthest."""
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
    """The scheme's answer about the job's image, by a trust root."""
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


def without_root(scheme: str, job: TrustJob, found: Found[Item]) -> Verification:
    """What can be said where nobody says whom to trust: that there is nothing, or that it is not known."""
    reason, text = found.why_unknown
    if reason:
        return answer(scheme, job, TrustStatus.UNKNOWN, reason, text)
    if found.nothing:
        return answer(scheme, job, TrustStatus.NOT_SIGNED, "not_signed", f"no {scheme} signature")
    text = f"signatures or attestations found: {len(found.items) + len(found.refused)}; no trust root says whose count"
    return answer(scheme, job, TrustStatus.UNKNOWN, "no_trust_root", text)
