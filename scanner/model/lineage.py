"""The base of an image, as far as it is known, and the origin of a finding: the base, or the image's own layers.

An image has no reliable statement about its base. ``layers``: a scanned image whose layers are the first layers of this
one; this is proven. ``history``: buildah records where a build started. ``annotations`` and ``labels`` (OCI image-spec,
annotations.md) are claims of the builder, which an attacker can write as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from enum import StrEnum

from scanner.errors import ImageError, UsageError
from scanner.lazy_dataclasses import dataclass
from scanner.model.finding import Evidence, Vulnerability
from scanner.model.image import Image
from scanner.model.reference import Digest, Reference

BASE_NAME, BASE_DIGEST = "org.opencontainers.image.base.name", "org.opencontainers.image.base.digest"
_FROM = "FROM "


class Origin(StrEnum):
    """The origin of a finding. ``unknown`` if the layers of the base are unknown."""

    BASE = "base"
    OWN = "own"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class BaseImage:
    """The base of an image.

    ``reference``: its name, by its builder or the store. ``digest``: what the name meant then. ``newest``: what it
    means now; None if unknown. ``layers``, ``history``: how many of the first layers and history lines belong to the
    base; None if unknown. ``newest_at``: when a push or scan reported ``newest``; None: a registry was asked in this
    scan. ``note``: a contradiction, for users.
    """

    source: str  # layers, history, annotations, labels, dockerfile
    reference: str = ""
    digest: Digest | None = None
    layers: int | None = None
    history: int | None = None
    created: datetime | None = None
    newest: Digest | None = None
    newest_at: datetime | None = None
    note: str = ""

    @property
    def proven(self) -> bool:
        return self.source == "layers"

    @property
    def outdated(self) -> bool | None:
        """True if the name means another image now; None if unknown."""
        return None if self.newest is None or self.digest is None else self.newest != self.digest


def chains(diff_ids: Iterable[Digest]) -> tuple[Digest, ...]:
    """ChainIDs (OCI image-spec, config.md): each identifies a layer with all layers below it."""
    found: list[Digest] = []
    for diff_id in diff_ids:
        below = found[-1] if found else None
        found.append(
            Digest("sha256:" + hashlib.sha256(f"{below} {diff_id}".encode()).hexdigest()) if below else diff_id
        )
    return tuple(found)


def declared_base(image: Image) -> BaseImage | None:
    """The base that the image declares in annotations, labels or buildah's history.

    None if there is no valid declaration.
    """
    claimed = _claimed_base(image)
    recorded = _recorded_by_buildah(image)
    if recorded is None:
        return claimed
    if claimed is None:
        return recorded
    return replace(claimed, layers=recorded.layers, history=recorded.history)


def _claimed_base(image: Image) -> BaseImage | None:
    for source, pairs in (("annotations", image.annotations), ("labels", image.config.labels)):
        values = dict(pairs)
        name, digest = values.get(BASE_NAME, ""), values.get(BASE_DIGEST, "")
        reference = _reference(name)
        if reference is not None:
            return BaseImage(source, reference, _digest(digest))
    return None


def _recorded_by_buildah(image: Image) -> BaseImage | None:
    """buildah records ``FROM name`` at the first line of its own build.

    With several builds, the last one is the nearest.
    """
    found = None
    for index, entry in enumerate(image.config.history):
        if entry.comment.startswith(_FROM) and (
            reference := _reference(entry.comment.removeprefix(_FROM).split(" ")[0])
        ):
            before = [e.layer for e in image.config.history[:index] if e.layer is not None]
            found = BaseImage("history", reference, layers=len(before), history=index)
    return found


def _reference(text: str) -> str | None:
    try:
        return str(Reference.parse(text.strip())) if text.strip() else None
    except UsageError:
        return None


def _digest(text: str) -> Digest | None:
    try:
        return Digest(text)
    except ImageError:
        return None


def origin(layer: int | None, history: int | None, base: BaseImage | None) -> Origin:
    """The origin of something in this layer or history line. Without both, the image's own config sets it."""
    if layer is not None:
        return (
            Origin.UNKNOWN
            if base is None or base.layers is None
            else Origin.BASE
            if layer < base.layers
            else Origin.OWN
        )
    if history is not None:
        return (
            Origin.UNKNOWN
            if base is None or base.history is None
            else Origin.BASE
            if history < base.history
            else Origin.OWN
        )
    return Origin.OWN


def evidence_origin(evidence: Evidence, base: BaseImage | None) -> Origin:
    return origin(evidence.layer_index, evidence.history_index, base)


def vulnerability_origin(item: Vulnerability, image: Image, base: BaseImage | None) -> Origin:
    """The origin of a vulnerability, by its package's layer. Unknown if the engine reports no layer."""
    layer = image.layer_of(item.layer)
    return Origin.UNKNOWN if layer is None else origin(layer.index, None, base)


def count(origins: Iterable[Origin]) -> dict[Origin, int]:
    """Number of each, in the order of ``Origin``."""
    found = list(origins)
    return {one: found.count(one) for one in Origin}


def describe(base: BaseImage, layers: int) -> str:
    """One line for users: ``host/debian:12 (1 of 4 layers, proven by its layers)``."""
    how = {
        "layers": "proven by its layers",
        "history": "by the build history",
        "annotations": "declared in annotations",
        "labels": "declared in labels",
    }
    parts = [
        f"{base.layers} of {layers} layers" if base.layers is not None else "its layers are unknown",
        how[base.source],
    ]
    return f"{base.reference or 'an unnamed image'} ({', '.join(parts)})"
