"""Added capabilities (CIS Docker 5.4, Pod Security Standards: baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import Outcome, Passed, Severity
from scanner.model.workload import Workload

# The list of the Pod Security Standards. Docker's defaults, which CIS Docker 5.4 allows, also contain NET_RAW.
_KUBERNETES = frozenset(
    (
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    )
)
_DOCKER = _KUBERNETES | {"NET_RAW"}


_MOST_PLACED = 200  # each has its place looked up by name


class AddedCapabilities(ContainerCheck):
    """Additional capabilities give the container access to kernel functions. SYS_ADMIN is equivalent to root."""

    id = "added-capabilities"
    title = "Adds dangerous capabilities"
    severity = Severity.HIGH
    remedy = "securityContext: {capabilities: {drop: [ALL], add: []}}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "securityContext: {capabilities: {drop: [ALL], add: []}}",
        "compose": "cap_drop: [ALL]; remove the entry from cap_add",
        "docker": "docker run --cap-drop ALL",
        "swarm": "docker service update --cap-drop ALL",
        "ecs": '"linuxParameters": {"capabilities": {"drop": ["ALL"], "add": []}}',
        "marathon": '{"key": "cap-drop", "value": "ALL"}',
    }
    looks_at = "added capabilities"
    cannot_see = "file capabilities in the image (see the check file-capabilities)"
    cis = ("5.4",)
    pss = ("capabilities_baseline",)
    trivy = ("KSV-0005", "KSV-0022", "KSV-0119", "KSV-0120")
    kubesec = ("CapSysAdmin",)
    nsa = ("Kubernetes Pod security",)
    tags = ("workload", "workload-danger")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        allowed = _KUBERNETES if workload.source == "kubernetes" else _DOCKER
        added = [name for name in workload.cap_add if name not in allowed]
        if not added:
            return Passed()
        return self.failed(
            workload,
            *(
                evidence(
                    workload,
                    f"adds the capability {name}",
                    *((f"cap_add/{name}",) if number < _MOST_PLACED else ()),
                    "cap_add",
                    name=name,
                )
                for number, name in enumerate(added)
            ),
        )
