"""The default namespace (NSA/CISA hardening)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from scanner.checks._workloads import evidence
from scanner.checks.base import ContainerCheck, ImageSubject
from scanner.model.finding import NotApplicable, Outcome, Passed, Severity
from scanner.model.workload import Workload


class DefaultNamespace(ContainerCheck):
    """RBAC, quotas and network policies are set per namespace: in ``default`` they apply to unrelated workloads."""

    id = "default-namespace"
    title = "Runs in the default namespace"
    severity = Severity.LOW
    remedy = "metadata: {namespace: shop}"
    remedies: ClassVar[Mapping[str, str]] = {
        "kubernetes": "metadata: {namespace: shop}",
    }
    looks_at = "the namespace in the document"
    cannot_see = "a namespace given with kubectl -n or helm --namespace"
    trivy = ("KSV-0110",)
    nsa = ("Namespaces",)
    tags = ("workload", "workload-hardening")

    def examine_container(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """See ``ContainerCheck.examine_container``."""
        if workload.source != "kubernetes":
            return NotApplicable("only Kubernetes has namespaces")
        if workload.namespace not in ("", "default"):
            return Passed()
        text = (
            "runs in the namespace default"
            if workload.namespace
            else "sets no namespace, so that it runs in default unless kubectl is given one"
        )
        return self.failed(workload, evidence(workload, text, "namespace"))
