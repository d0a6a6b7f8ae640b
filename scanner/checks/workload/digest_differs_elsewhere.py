"""The same tag with another digest in another environment (article: "Image Management")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload

_MAX_NAMED = 5


class DigestDiffersElsewhere(ContainerCheck):
    """What was tested is not what runs: another environment runs another image under the same name.

    Only the inventory knows what other environments run. The service puts that into ``Workload.elsewhere`` before
    checks run; a document alone does not have it.
    """

    id = "digest-differs-elsewhere"
    title = "Another digest of the same tag in another environment"
    severity = Severity.MEDIUM
    remedy = "image: registry.example.com/app@sha256:…, the digest that was tested"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "image: registry.example.com/app:1.4@sha256:… (the digest that was tested)",
        "compose": "image: registry.example.com/app:1.4@sha256:… (the digest that was tested)",
        "docker": "docker run registry.example.com/app@sha256:… (the digest that was tested)",
        "swarm": "docker service update --image registry.example.com/app:1.4@sha256:… (the digest that was tested)",
        "ecs": '"image": "registry.example.com/app@sha256:…" (the digest that was tested)',
        "marathon": '"image": "registry.example.com/app@sha256:…" (the digest that was tested)',
    }
    looks_at = "the digests that other environments of the inventory run under the same repository and tag"
    cannot_see = (
        "environments that report no inventory; it is not applicable without one (audit, scan, gate, admission)"
    )
    article = ("Image Management: Tag Immutably", "Lessons Learned: Treat images as artifacts")
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        elsewhere = workload.elsewhere
        if elsewhere is None:
            return NotApplicable("no inventory: only a server knows what other environments run")
        if not elsewhere.others:
            return Passed()
        if not elsewhere.digest:
            return Incomplete("digest_unknown", f"{workload.name}: the digest that runs here is not known yet")
        different = [each for each in elsewhere.others if each.digest != elsewhere.digest]
        if not different:
            return Passed()
        named = ", ".join(f"{each.digest[:19]}… in {each.environment}" for each in different[:_MAX_NAMED])
        more = f", and {len(different) - _MAX_NAMED} more" if len(different) > _MAX_NAMED else ""
        text = f"runs {elsewhere.digest[:19]}…, but the same tag is {named}{more}"
        return self.failed(workload, evidence(workload, text, "image", name=workload.image))
