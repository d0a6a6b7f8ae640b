"""Labels with the origin of an image (OCI image-spec, annotations.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Evidence, Outcome, Severity

_OCI = "org.opencontainers.image."


class RequiredLabels(ConfigCheck):
    """Labels with source and commit allow to trace a vulnerable image in production to its repository."""

    id = "required-labels"
    title = "Labels with its origin are missing"
    severity = Severity.LOW
    remedy = "LABEL org.opencontainers.image.source=https://… org.opencontainers.image.revision=$COMMIT"
    looks_at = "config.Labels and the manifest's annotations, compared with the parameter labels"
    cannot_see = "whether the labels are true: use a signed attestation"
    article = ("Image Management: Tag Immutably", "Lessons Learned: Treat images as artifacts")
    tags = ("config",)
    parameters: Mapping[str, Any] = MappingProxyType({"labels": (f"{_OCI}source", f"{_OCI}revision")})  # type: ignore[misc]

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        return self.judged(self._missing_labels(subject), subject.parameters)

    def _missing_labels(self, subject: ImageSubject) -> Iterator[Evidence]:
        given = {**dict(subject.image.annotations), **dict(subject.image.config.labels)}
        for name in dict.fromkeys(subject.parameters.get("labels", self.parameters["labels"])):
            if not given.get(name, "").strip():
                said = "is empty" if name in given else "is missing"
                yield subject.evidence(f"label {name} {said}", pointer="/config/Labels", name=name)

    def remedy_for(self, evidence: Sequence[Evidence]) -> str:
        """See ``Check.remedy_for``."""
        return "LABEL " + " ".join(f'{item.name}="…"' for item in evidence)
