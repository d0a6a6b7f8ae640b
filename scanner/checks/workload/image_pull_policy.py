"""imagePullPolicy with an image named by tag."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class ImagePullPolicy(ContainerCheck):
    """A cached image may be outdated, and it starts without the pull secret that its registry requires."""

    id = "image-pull-policy"
    title = "imagePullPolicy allows a cached image"
    severity = Severity.LOW
    remedy = "imagePullPolicy: Always, or an image by digest"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "imagePullPolicy: Always, or an image by digest",
    }
    looks_at = "imagePullPolicy, and whether the image is given by digest"
    cannot_see = "the AlwaysPullImages admission plugin"
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
                f"imagePullPolicy is {policy} and the image is given by tag: nodes may run different images, "
                "and pods without the pull secret can use the cached one",
                "image_pull_policy",
            ),
        )
