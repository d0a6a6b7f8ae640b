"""The effective user of the container, from image, runtime options and pod (CIS Docker 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Failed, Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload
from scanner.patterns import lazy

_NUMBER = lazy(r"[+-]?[0-9]+")  # ASCII only: int() takes digits of every script
_ROOT = ("root", "toor")


class RunsAsRoot(ContainerCheck):
    """Root in the container is root on the host after any escape."""

    id = "runs-as-root"
    title = "Runs as root"
    severity = Severity.HIGH
    remedy = "securityContext: {runAsNonRoot: true, runAsUser: 10001}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {runAsNonRoot: true, runAsUser: 10001}",
        "compose": 'user: "10001:10001"',
        "docker": "docker run --user 10001:10001",
        "swarm": "docker service update --user 10001:10001",
        "ecs": '"user": "10001:10001"',
        "marathon": '{"key": "user", "value": "10001:10001"}',
    }
    looks_at = "the user of workload and hooks, runAsNonRoot, and the user of the image if it was examined"
    cannot_see = "an entrypoint that switches to another user"
    cis = ("4.1",)
    trivy = ("KSV-0012", "KSV-0105")
    kubesec = ("RunAsNonRoot", "RunAsUser")
    nsa = ("Non-root containers and rootless container engines",)
    article = ("Security: Run as Non-Root",)
    tags = ("workload", "workload-danger")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.os == "windows":
            return NotApplicable("a Windows container has no root")
        if workload.pod is not None and "windows" in (workload.pod.os, workload.pod.node_os):
            return NotApplicable("a Windows container has no root")
        hooks = (self._of_hook(workload, number, image) for number, each in enumerate(workload.probes) if each.user)
        # The worst counts; of equal ones the container's own, which comes first.
        return max((self._of_container(workload, image), *hooks), key=_rank)

    def _of_hook(self, workload: Workload, number: int, image: ImageSubject | None) -> Outcome:
        """Judge a lifecycle hook that has a user of its own (Compose)."""
        hook = workload.probes[number]
        index = sum(1 for each in workload.probes[:number] if each.kind == hook.kind)
        user = hook.user.partition(":")[0].strip()
        return self._outcome_of_user(workload, user, image, f"the hook {hook.kind} ", f"{hook.kind}/{index}/user")

    def _of_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        user = workload.user.partition(":")[0].strip() if workload.user is not None else ""
        if user:
            return self._outcome_of_user(workload, user, image)
        if workload.run_as_non_root:
            return Passed()  # the kubelet refuses to start the image as root
        if image is None:
            return Incomplete(
                "image_unknown", f"{workload.name}: runs as the user of its image, which was not examined"
            )
        return self._of_image(workload, image)

    def _outcome_of_user(
        self, workload: Workload, user: str, image: ImageSubject | None, who: str = "", field: str = "user"
    ) -> Outcome:
        if _NUMBER.fullmatch(user):
            uid = int(user[:20]) & 0xFFFFFFFF  # runtimes wrap around at 32 bits: a huge uid becomes 0 (CVE-2024-40635)
            if uid == 0:
                return self.failed(workload, evidence(workload, f"{who}runs as user {user}, which is root", field))
            if workload.pod is None and _is_root_account(user, image):
                # Docker before 1.11.2 looks for the name first (CVE-2016-3697). Kubernetes passes on a number.
                message = f"{who}runs as {user}, which is also the name of a user of its image with uid 0"
                return self.failed(workload, evidence(workload, message, field))
            return Passed()
        if user in _ROOT:
            return self.failed(workload, evidence(workload, f"{who}runs as {user}", field))
        accounts = _root_accounts(image)
        if accounts is None or isinstance(accounts, Incomplete):
            # Any name may have uid 0 in the image's passwd.
            return Incomplete(
                "image_unknown", f"{workload.name}: {who}runs as {user}; its uid in the image is unknown, use a number"
            )
        if _is_root_account(user, image):
            return self.failed(workload, evidence(workload, f"{who}runs as {user}, which is root in its image", field))
        return Passed()

    def _of_image(self, workload: Workload, image: ImageSubject) -> Outcome:
        found = image.results.get("root-user")
        if isinstance(found, Passed):
            return Passed()
        if isinstance(found, Failed):
            why = found.evidence[0].message if found.evidence else "the image runs as root"
            return self.failed(workload, evidence(workload, f"no user is set, and {why}", "user"))
        return Incomplete("image_unknown", f"{workload.name}: the user of its image is unknown")


def _rank(outcome: Outcome) -> int:
    return 2 if isinstance(outcome, Failed) else 1 if isinstance(outcome, Incomplete) else 0


def _root_accounts(image: ImageSubject | None) -> Outcome | None:
    return image.results.get("extra-root-accounts") if image is not None else None


def _is_root_account(user: str, image: ImageSubject | None) -> bool:
    accounts = _root_accounts(image)
    return isinstance(accounts, Failed) and any(user == each.name for each in accounts.evidence)
