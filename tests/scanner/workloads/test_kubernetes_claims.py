"""Claims: a directory of the host that a pod mounts by way of one is a directory of the host."""

from __future__ import annotations

import pytest

from scanner import catalog
from scanner.services.workloads import check

CLAIMED = """\
apiVersion: v1
kind: PersistentVolume
metadata: {name: root}
spec: {hostPath: {path: /etc}, storageClassName: manual%s}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c, namespace: default}
spec: {%s}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers: [{name: a, image: b, volumeMounts: [{name: v, mountPath: /h}]}]
  volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]
"""


@pytest.mark.parametrize(
    ("volume", "claim", "bound"),
    [
        ("", "volumeName: root", True),
        (", claimRef: {name: c, namespace: default}", "", True),
        ("", "storageClassName: manual", True),
        (", claimRef: {name: other}", "storageClassName: manual", False),
        ("", "storageClassName: other", False),
        ("", "storageClassName: ''", False),
        ("", "", False),
    ],
)
def test_a_directory_of_the_host_behind_a_claim_is_one(volume: str, claim: str, bound: bool) -> None:
    (found,) = catalog.workload_sources()["kubernetes"].parse(CLAIMED % (volume, claim), "f")
    outcomes = {each.check: each.outcome.kind for each in check(found, None)}
    assert outcomes["sensitive-host-mounts"] == ("failed" if bound else "passed")


TEMPLATED = """\
apiVersion: v1
kind: PersistentVolume
metadata: {name: root}
spec: {hostPath: {path: /etc}, storageClassName: manual%s}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  template:
    spec: {containers: [{name: a, image: b, volumeMounts: [{name: v, mountPath: /h}]}]}
  volumeClaimTemplates: [{metadata: {name: v}, spec: {%s}}]
"""


@pytest.mark.parametrize(
    ("volume", "claim", "bound"),
    [
        ("", "volumeName: root", True),
        ("", "storageClassName: manual", True),
        (", claimRef: {name: v-db-0, namespace: shop}", "", True),
        (", claimRef: {name: v-db-0, namespace: other}", "storageClassName: manual", False),
        ("", "", False),
    ],
)
def test_templates_of_claims_are_claims(volume: str, claim: str, bound: bool) -> None:
    (found,) = catalog.workload_sources()["kubernetes"].parse(TEMPLATED % (volume, claim), "f")
    assert [(each.kind, each.source) for each in found.mounts] == [("bind", "/etc") if bound else ("volume", "v")]
