"""Size of layers (article: keep images small)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Evidence, Outcome, Severity


class LayerSize(ConfigCheck):
    """Layers are pulled in parallel, so every deployment waits for the largest one."""

    id = "layer-size"
    title = "Layer is large"
    severity = Severity.LOW
    remedy = (
        "separate frequently changed files into their own layers, and exclude unneeded files "
        "(.dockerignore, multi-stage build)"
    )
    looks_at = "the compressed sizes of layers in the manifest, compared with max_megabytes"
    cannot_see = "layers that hosts have pulled before"
    cis = ("4.3",)
    article = ("Image Management: Keep Images Small", "Image Management: Layer Caching Matters")
    tags = ("size",)
    parameters: ClassVar[Mapping[str, Any]] = MappingProxyType({"max_megabytes": 250.0})

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        seen = (
            subject.evidence(
                f"layer {layer.index} has {layer.size / 1e6:.1f} MB compressed",
                layer_index=layer.index,
                amount=float(layer.size),
            )
            for layer in subject.image.layers
        )
        return self.judged(seen, subject.parameters)

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """See ``Check.tolerates``."""
        return evidence.amount is not None and evidence.amount <= parameters["max_megabytes"] * 1e6
