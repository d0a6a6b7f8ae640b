"""The Pod Security Standards on Kubernetes' own test pods: the same verdict for every check, level and version.

The pods come with the Go module ``k8s.io/pod-security-admission`` (``.ci/build-part pod-security``). Nothing of it is
kept here.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import pytest

from scanner import catalog
from scanner.checks.base import WorkloadCheck
from scanner.model.finding import Failed
from scanner.services.workloads import with_kubernetes_version

ROOT = Path(__file__).parents[4]
BASELINE = {
    "windowsHostProcess",
    "hostNamespaces",
    "privileged",
    "capabilities_baseline",
    "hostPathVolumes",
    "hostPorts",
    "hostProbesAndHostLifecycle",
    "appArmorProfile",
    "seLinuxOptions",
    "procMount",
    "seccompProfile_baseline",
    "sysctls",
}
VERSIONS = range(38)


@cache
def fixtures() -> Path:
    """The directory with the pods, by level, version, pass and fail."""
    done = subprocess.run([ROOT / ".ci/build-part", "pod-security"], capture_output=True, text=True, check=True)
    if not done.stdout.strip():
        pytest.skip("Go fetches Kubernetes' test pods: apt-get install golang (1.24 or newer)")
    return Path(done.stdout.strip())


def failed_checks(file: Path, version: str, level: str) -> list[str]:
    """The checks of a level that a pod fails under a version's rules."""
    pods = catalog.workload_sources()["kubernetes"].parse(file.read_text(), file.name)
    containers = [with_kubernetes_version(each, version) for each in pods]
    return [
        check.id
        for check in catalog.workload_checks().values()
        if _belongs(check, level) and any(isinstance(check.examine(each, None), Failed) for each in containers)
    ]


def _belongs(check: WorkloadCheck, level: str) -> bool:
    return bool(check.pss) and (level == "restricted" or bool(BASELINE & set(check.pss)))


@pytest.mark.parametrize("minor", VERSIONS)
@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_a_pod_is_judged_as_kubernetes_judges_it(level: str, minor: int) -> None:
    directory = fixtures() / level / f"v1.{minor}"
    passing, failing = sorted((directory / "pass").glob("*.yaml")), sorted((directory / "fail").glob("*.yaml"))
    assert passing
    assert failing
    for file in passing:
        assert failed_checks(file, f"1.{minor}", level) == [], file
    for file in failing:
        assert failed_checks(file, f"1.{minor}", level), file
