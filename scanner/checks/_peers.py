"""Rules of Trivy and kubesec about Kubernetes, with our answer to each and every difference between the two.

A test runs the installed Trivy and our checks on the same manifests: an undocumented difference fails
it, and so does a documented one that does not occur.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class PeerRule:
    """One rule of another scanner.

    ``reason``: why no check of ours answers to it. ``theirs``, ``ours``: what only the other scanner, or only
    Dockwarden, reports; empty: nothing.
    """

    title: str
    reason: str = ""
    theirs: str = ""
    ours: str = ""


_EPHEMERAL: Final = "ephemeral containers, which Trivy does not read"
_CAPABILITIES: Final = "every other dangerous capability: one check judges them all, with or without the prefix CAP_"
_REGISTRY: Final = "a policy's `match.images` and the check `trusted-base` say which registries are allowed"
_ROLES: Final = "a rule about roles of a cluster, not about a workload"
_UID: Final = (
    "a number above 10000 guards against nothing that user namespaces do not; `runs-as-root` and `run-as-root-group` "
    "judge whether it is root"
)

KSV: Final[Mapping[str, PeerRule]] = {
    "KSV-0001": PeerRule("Can elevate its own privileges", ours=_EPHEMERAL),
    "KSV-0002": PeerRule(
        "Runtime/Default AppArmor profile not set",
        ours="the field `appArmorProfile` (Kubernetes 1.30); Trivy reads the annotation only",
    ),
    "KSV-0003": PeerRule(
        "Default capabilities: some containers do not drop all",
        ours="privileged containers, which have every capability whatever they drop; `all` in lower case, which the "
        f"Pod Security Standards do not take for ALL; capabilities added again; {_EPHEMERAL}",
    ),
    "KSV-0004": PeerRule(
        "Default capabilities: some containers do not drop any",
        ours=f"containers that drop some capabilities and not ALL, and what KSV-0003 lists; {_EPHEMERAL}",
    ),
    "KSV-0005": PeerRule("SYS_ADMIN capability added", ours=_CAPABILITIES),
    "KSV-0006": PeerRule("hostPath volume mounted with docker.sock"),
    "KSV-0007": PeerRule(
        "Manages /etc/hosts",
        reason="`hostAliases` is the way that Kubernetes offers for it, and gives a container no right",
        theirs="pods with `hostAliases`",
    ),
    "KSV-0008": PeerRule("Access to host IPC namespace"),
    "KSV-0009": PeerRule("Access to host network"),
    "KSV-0010": PeerRule("Access to host PID"),
    "KSV-0011": PeerRule(
        "CPU not limited",
        theirs="containers with a CPU request and no limit: the request is a share, which CIS 5.12 accepts, and a "
        "CPU limit throttles",
        ours=_EPHEMERAL,
    ),
    "KSV-0012": PeerRule("Runs as root user"),
    "KSV-0013": PeerRule(
        'Image tag ":latest" used', ours=f"tags that look mutable, such as a major version; {_EPHEMERAL}"
    ),
    "KSV-0014": PeerRule("Root file system is not read-only", ours=_EPHEMERAL),
    "KSV-0015": PeerRule(
        "CPU requests not specified",
        theirs="containers with a CPU limit and no request: Kubernetes takes the limit for the request",
        ours=_EPHEMERAL,
    ),
    "KSV-0016": PeerRule(
        "Memory requests not specified",
        theirs="containers with a memory limit and no request: Kubernetes takes the limit for the request",
        ours=_EPHEMERAL,
    ),
    "KSV-0017": PeerRule("Privileged"),
    "KSV-0018": PeerRule("Memory not limited", ours=_EPHEMERAL),
    "KSV-0020": PeerRule("Runs with UID <= 10000", reason=_UID, theirs="user ids up to 10000, and none at all"),
    "KSV-0021": PeerRule("Runs with GID <= 10000", reason=_UID, theirs="group ids up to 10000, and none at all"),
    "KSV-0022": PeerRule(
        "Specific capabilities added",
        theirs="capabilities that are added although every runtime grants them by default (CHOWN, NET_BIND_SERVICE); "
        "`kept-capabilities` judges those",
    ),
    "KSV-0023": PeerRule("hostPath volumes mounted"),
    "KSV-0024": PeerRule("Access to host ports"),
    "KSV-0025": PeerRule("SELinux custom options set"),
    "KSV-0026": PeerRule("Unsafe sysctl options set"),
    "KSV-0027": PeerRule("Non-default /proc masks set"),
    "KSV-0028": PeerRule(
        "Non-core volume types used.", ours="hostPath volumes, which the restricted standard refuses as well"
    ),
    "KSV-0030": PeerRule("Runtime/Default Seccomp profile not set"),
    "KSV-0032": PeerRule(
        "All container images must start with the *.azurecr.io domain",
        reason=_REGISTRY,
        theirs="images of any other registry (a deprecated rule)",
    ),
    "KSV-0033": PeerRule(
        "All container images must start with a GCR domain",
        reason=_REGISTRY,
        theirs="images of any other registry (a deprecated rule)",
    ),
    "KSV-0034": PeerRule(
        "Container images from public registries used",
        reason=_REGISTRY,
        theirs="images of public registries (a deprecated rule)",
    ),
    "KSV-0035": PeerRule(
        "All container images must start with an ECR domain",
        reason=_REGISTRY,
        theirs="images of any other registry (a deprecated rule)",
    ),
    "KSV-0036": PeerRule(
        "Protecting Pod service account tokens",
        theirs="a volume at the token's path although `automountServiceAccountToken` is false",
        ours="pods that leave `automountServiceAccountToken` out, which mounts the token",
    ),
    "KSV-0037": PeerRule(
        "User resources should not be placed in kube-system namespace",
        reason='a policy\'s `when: workload.namespace == "kube-system"` says so',
        theirs="workloads in kube-system",
    ),
    "KSV-0038": PeerRule(
        "Selector usage in network policies", reason="a rule about network policies, not about a workload"
    ),
    "KSV-0041": PeerRule("Manage secrets", reason=_ROLES),
    "KSV-0042": PeerRule("Delete pod logs", reason=_ROLES),
    "KSV-0043": PeerRule("Do not allow impersonation of privileged groups", reason=_ROLES),
    "KSV-0044": PeerRule("No wildcard verb and resource roles", reason=_ROLES),
    "KSV-0045": PeerRule("No wildcard verb roles", reason=_ROLES),
    "KSV-0046": PeerRule("Manage all resources", reason=_ROLES),
    "KSV-0047": PeerRule("Do not allow privilege escalation from node proxy", reason=_ROLES),
    "KSV-0048": PeerRule("Manage Kubernetes workloads and pods", reason=_ROLES),
    "KSV-0049": PeerRule("Manage configmaps", reason=_ROLES),
    "KSV-0050": PeerRule("Do not allow privilege escalation via RBAC resources", reason=_ROLES),
    "KSV-0051": PeerRule(
        "Do not allow role binding creation and association with privileged role/clusterrole", reason=_ROLES
    ),
    "KSV-0052": PeerRule(
        "Do not allow role to create ClusterRoleBindings and association with privileged role", reason=_ROLES
    ),
    "KSV-0053": PeerRule("Exec into Pods", reason=_ROLES),
    "KSV-0054": PeerRule("Do not allow attaching to shell on pods", reason=_ROLES),
    "KSV-0055": PeerRule("Do not allow users in a rolebinding to add other users to their rolebindings", reason=_ROLES),
    "KSV-0056": PeerRule("Manage Kubernetes networking", reason=_ROLES),
    "KSV-0102": PeerRule("Tiller Is Deployed", reason="Tiller ended with Helm 2", theirs="images named tiller"),
    "KSV-0103": PeerRule("Access to host process"),
    "KSV-0104": PeerRule("Seccomp policies disabled"),
    "KSV-0105": PeerRule("Containers must not set runAsUser to 0"),
    "KSV-0106": PeerRule(
        "Container capabilities must only include NET_BIND_SERVICE",
        ours="privileged containers, and `all` in lower case, as for KSV-0003; " + _EPHEMERAL,
    ),
    "KSV-0107": PeerRule(
        "The deprecated 'apiVersion' and 'kind' should not be used",
        reason="the API server refuses versions that ended, and the pod is judged whatever the version",
    ),
    "KSV-0108": PeerRule("Service with External IP", reason="a rule about Services, not about a workload"),
    "KSV-0109": PeerRule(
        "ConfigMap with secrets", ours="secrets that stand in a container's own environment; Trivy judges ConfigMaps"
    ),
    "KSV-0110": PeerRule("Workloads in the default namespace"),
    "KSV-0111": PeerRule("User with admin access", reason=_ROLES),
    "KSV-0114": PeerRule("Manage webhookconfigurations", reason=_ROLES),
    "KSV-0115": PeerRule("Manage EKS IAM Auth ConfigMap", reason=_ROLES),
    "KSV-0116": PeerRule(
        "Runs with a root primary or supplementary GID",
        ours="`runAsGroup: 0`, and a user without a group, whose primary group is then 0",
    ),
    "KSV-0117": PeerRule(
        "Prevent binding to privileged ports",
        theirs="container ports below 1024 that are not published on the node: they are the pod's own",
    ),
    "KSV-0118": PeerRule(
        "Default security context configured",
        reason="each setting of a security context has a check of its own",
        theirs="pods without a security context of their own, even where every container has one",
    ),
    "KSV-0119": PeerRule("NET_RAW capability added", ours=_CAPABILITIES),
    "KSV-0120": PeerRule("SYS_MODULE capability added", ours=_CAPABILITIES),
    "KSV-0121": PeerRule(
        "Kubernetes resource with disallowed volumes mounted",
        ours="sockets of container engines and paths below the sensitive directories",
    ),
    "KSV-0122": PeerRule("Anonymous user access binding", reason=_ROLES),
    "KSV-0123": PeerRule("system:masters group access binding", reason=_ROLES),
    "KSV-0124": PeerRule(
        "Gatekeeper repo reference is ambiguously open-ended", reason="a rule about another product's policies"
    ),
    "KSV-0125": PeerRule(
        "Restrict container images to trusted registries",
        reason=_REGISTRY,
        theirs="every image until Trivy is given a list of registries",
    ),
    "KSV-01010": PeerRule(
        "ConfigMap with sensitive content", reason="`secrets-in-environment` judges what a container is given"
    ),
    "KSV-01011": PeerRule("system:authenticate group access binding", reason=_ROLES),
}

# kubesec's rules by their ids: https://github.com/controlplaneio/kubesec (pkg/ruler/ruleset.go)
KUBESEC: Final[Mapping[str, str]] = {
    "AllowPrivilegeEscalation": "",
    "ApparmorAny": "",
    "CapDropAll": "",
    "CapDropAny": "",
    "CapSysAdmin": "",
    "DockerSock": "",
    "HostAliases": "`hostAliases` is the way that Kubernetes offers for it, and gives a container no right",
    "HostIPC": "",
    "HostNetwork": "",
    "HostPID": "",
    "LimitsCPU": "",
    "LimitsMemory": "",
    "Privileged": "",
    "ReadOnlyRootFilesystem": "",
    "RequestsCPU": "",
    "RequestsMemory": "",
    "RunAsNonRoot": "",
    "RunAsUser": "",
    "SeccompAny": "",
    "SeccompUnconfined": "",
    "ServiceAccountName": "",
    "VolumeClaimAccessModeReadWriteOnce": "which nodes may mount a volume is no matter of security",
    "VolumeClaimRequestsStorage": "Kubernetes refuses a claim without a size",
}
