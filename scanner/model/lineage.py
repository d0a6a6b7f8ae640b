"""What an image was built on, as far as that is known, and whose a finding is: the base's or its own.

Nothing in an image says so reliably. ``layers``: an image that was scanned before and whose layers are the first of
this one; that is proven. ``history``: buildah writes where a build began. ``annotations`` and ``labels`` (OCI
image-spec, annotations.md) are the builder's word, which an attacker gives as easily.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from scanner.errors import ImageError, UsageError
from scanner.model.finding import Evidence, Vulnerability
from scanner.model.image import Image
from scanner.model.reference import Digest, Reference

BASE_NAME, BASE_DIGEST = "org.opencontainers.image.base.name", "org.opencontainers.image.base.digest"
_FROM = "FROM "


class Origin(StrEnum):
    """Whose a finding is. ``unknown`` where the base's layers are not known."""

    BASE = "base"
    OWN = "own"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class BaseImage:
    """``reference`` as its builder or the store names it, ``digest`` what that named then, ``newest`` what it names
    now (None: not known).

    The first ``layers`` layers and ``history`` history lines are the base's; None where they are not known.
    ``newest_at``: when a push or scan told so; None: a registry was asked in this scan. ``note`` says what is odd.
    """

    source: str  # layers, history, annotations, labels
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
        """Whether the name means another image now; None: not known."""
        return None if self.newest is None or self.digest is None else self.newest != self.digest


def chains(diff_ids: Iterable[Digest]) -> tuple[Digest, ...]:
    """ChainIDs (OCI image-spec, config.md): each identifies a layer together with all layers below it."""
    found: list[Digest] = []
    for diff_id in diff_ids:
        below = found[-1] if found else None
        found.append(
            Digest("sha256:" + hashlib.sha256(f"{below} {diff_id}".encode()).hexdigest()) if below else diff_id
        )
    return tuple(found)


def declared(image: Image) -> BaseImage | None:
    """What the image says of its base itself: annotations, labels, buildah's history.

    None where it says nothing that could be read.
    """
    said = _said(image)
    begun = _begun(image)
    if begun is None:
        return said
    if said is None:
        return begun
    return replace(said, layers=begun.layers, history=begun.history)


def _said(image: Image) -> BaseImage | None:
    for source, pairs in (("annotations", image.annotations), ("labels", image.config.labels)):
        values = dict(pairs)
        name, digest = values.get(BASE_NAME, ""), values.get(BASE_DIGEST, "")
        reference = _reference(name)
        if reference is not None:
            return BaseImage(source, reference, _digest(digest))
    return None


def _begun(image: Image) -> BaseImage | None:
    """buildah notes ``FROM name`` beside the first line of its own build; of several builds on each other the last
    is nearest.
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
    """Whose something is that was seen in this layer or at this history line; what was seen in neither is set by the
    image's own config.
    """
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
    """Whose a vulnerability is: its package's layer tells. An engine that names no layer leaves it unknown."""
    layer = image.layer_of(item.layer)
    return Origin.UNKNOWN if layer is None else origin(layer.index, None, base)


def count(origins: Iterable[Origin]) -> dict[Origin, int]:
    """How many of each, in the order of ``Origin``."""
    found = list(origins)
    return {one: found.count(one) for one in Origin}


def describe(base: BaseImage, layers: int) -> str:
    """One line for people: ``host/debian:12 (1 of 4 layers, by its layers)``."""
    how = {
        "layers": "proven by its layers",
        "history": "by the build history",
        "annotations": "so the annotations say",
        "labels": "so the labels say",
    }
    parts = [
        f"{base.layers} of {layers} layers" if base.layers is not None else "which layers are its is not known",
        how[base.source],
    ]
    return f"{base.reference or 'an image without a name'} ({', '.join(parts)})"
