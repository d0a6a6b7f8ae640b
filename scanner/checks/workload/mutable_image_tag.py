"""An image that is not pinned (CIS Docker 5.28)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.errors import UsageError
from scanner.model.finding import Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.reference import Reference
from scanner.model.workload import Workload


def _looks_immutable(tag: str) -> bool:
    """Whether a tag probably names a single build: a version with a dot, a date or a commit.

    Branch names, major versions and ``latest`` move.
    """
    return re.search(r"\d+\.\d+|\d{8}|[0-9a-f]{7,64}$", tag) is not None


class MutableImageTag(ContainerCheck):
    """Everyone with push access to the repository can change what runs, and nodes may run different images."""

    id = "mutable-image-tag"
    title = "Mutable image tag"
    severity = Severity.MEDIUM
    remedy = "image: registry.example.com/app@sha256:…"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "image: registry.example.com/app@sha256:…",
        "compose": "image: registry.example.com/app@sha256:…",
        "docker": "docker run registry.example.com/app@sha256:…",
        "swarm": "docker service update --image registry.example.com/app@sha256:…",
        "ecs": '"image": "registry.example.com/app@sha256:…"',
        "marathon": '"image": "registry.example.com/app@sha256:…"',
    }
    looks_at = (
        "whether the image is given by digest, or by a tag that names a single build (a version with "
        "a dot, a date, a commit)"
    )
    cannot_see = "whether the registry makes tags immutable"
    cis = ("5.28",)
    trivy = ("KSV-0013",)
    article = ("Image Management: Tag Immutably", "Lessons Learned: Treat images as artifacts")
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if not workload.image:
            return NotApplicable("the image is built locally")
        try:
            reference = Reference.parse(workload.image)
        except UsageError:
            return Incomplete("bad_reference", f"{workload.name}: {workload.image!r} is not an image reference")
        if reference.digest is not None:
            return Passed()
        if reference.tag is not None and _looks_immutable(reference.tag):
            return Passed()
        tag = "latest (the default)" if reference.tag is None else reference.tag
        return self.failed(
            workload,
            evidence(workload, f"the image is given by the mutable tag {tag}", "image", name=workload.image),
        )
