"""imagePullPolicy with a tag that moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class ImagePullPolicy(ContainerCheck):
    """May run an old copy of its image."""

    id = "image-pull-policy"
    title = "May run an old copy of its image"
    severity = Severity.LOW
    remedy = "imagePullPolicy: Always, or an image by digest"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "imagePullPolicy: Always, or an image by digest",
    }
    looks_at = "imagePullPolicy and whether the image is named by digest"
    cannot_see = "the AlwaysPullImages admission plug-in"
    nsa = ("Kubernetes Pod security",)
    article = ("Image Management: Tag Immutably",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.source != "kubernetes":
            return NotApplicable("only Kubernetes has imagePullPolicy")
        if "@sha256:" in workload.image:
            return Passed()
        last = workload.image.rpartition("/")[2]
        default = "Always" if ":" not in last or last.endswith(":latest") else "IfNotPresent"
        policy = workload.image_pull_policy or default
        if policy == "Always":
            return Passed()
        return self.failed(
            workload,
            evidence(
                workload,
                f"imagePullPolicy is {policy} and the image is a tag: nodes may run different images, and "
                "anybody on the node can use it",
                "image_pull_policy",
            ),
        )
