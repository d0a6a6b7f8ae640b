"""Size of the image (article: keep images small)."""

from __future__ import annotations

from typing import Any, ClassVar

from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Failed, Outcome, Passed, Severity


class ImageSize(ConfigCheck):
    """Large images slow down every pull and deployment. Compares the compressed size with a limit."""

    id = "image-size"
    title = "Image is large"
    severity = Severity.LOW
    remedy = "use a multi-stage build: COPY --from=build only what runs, on a minimal base"
    looks_at = "the compressed sizes in the manifest"
    cannot_see = "layers that hosts have pulled before"
    cis = ("4.3",)
    article = ("Image Management: Keep Images Small",)
    tags = ("size",)
    parameters: ClassVar[dict[str, Any]] = {"max_megabytes": 500}

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        budget = subject.parameters.get("max_megabytes", 500)
        size = subject.image.size / 1e6
        if size <= budget:
            return Passed()
        largest = max(subject.image.layers, key=lambda layer: layer.size)
        message = f"{size:.0f} MB compressed, more than {budget} MB; the largest layer has {largest.size / 1e6:.0f} MB"
        return Failed((subject.evidence(message, layer_index=largest.index),))
