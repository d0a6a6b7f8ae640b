"""The service account token is mounted (NSA/CISA hardening)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class ServiceAccountToken(ContainerCheck):
    """An attacker inside the pod can use the token against the Kubernetes API."""

    id = "service-account-token"
    title = "Service account token is mounted by default"
    severity = Severity.LOW
    remedy = "automountServiceAccountToken: false"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "automountServiceAccountToken: false",
    }
    looks_at = "automountServiceAccountToken, serviceAccountName and projected volumes of the pod"
    cannot_see = "the setting of the ServiceAccount itself"
    trivy = ("KSV-0036",)
    kubesec = ("ServiceAccountName",)
    nsa = ("Protecting Pod service account tokens",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        pod = workload.pod
        if pod is None:
            return NotApplicable("only Kubernetes has service accounts")
        account = pod.service_account or "default"
        if pod.automount_token is False:
            # A projected volume brings the token in all the same. For a named account that is intended.
            number = next((n for n, each in enumerate(pod.volumes) if each.token), None)
            if number is None or pod.service_account:
                return Passed()
            message = f"the volume {pod.volumes[number].name} has the token of the service account {account}"
            return self.failed(workload, evidence(workload, message, f"volumes/{number}", "volumes"))
        if pod.service_account and pod.automount_token:
            return Passed()  # set explicitly for a named account, so it is intended
        return self.failed(
            workload,
            evidence(
                workload,
                f"the token of the service account {account} is mounted by default",
                "automount_token",
                "pod",
            ),
        )
