"""Volumes over the system's own directories."""

from __future__ import annotations

import pytest

from scanner.checks.image.sensitive_volumes import SensitiveVolumes
from scanner.model.finding import Failed, Passed
from tests.scanner.checks.factory import subject


@pytest.mark.parametrize(
    "volume",
    [
        "/",
        "/proc",
        "/proc/sys",
        "//proc/../sys/",
        "/dev/shm",
        "/etc",
        "/etc/nginx",
        "/var/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/usr/bin",
        "proc",
        "/root",
    ],
)
def test_a_sensitive_volume(volume: str) -> None:
    """Dockle (DKL-DI-0002) compares with /dev, /proc and /sys, letter by letter: all but the second of these pass
    there.
    """
    outcome = SensitiveVolumes().examine(subject(volumes=(volume,), history=["COPY a /", f"VOLUME [{volume}]"]))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].history_index == 1


@pytest.mark.parametrize(
    "volume", ["/var/lib/postgresql/data", "/data", "/processes", "/usr/share/app", "/var/log/nginx"]
)
def test_a_volume_for_data(volume: str) -> None:
    assert isinstance(SensitiveVolumes().examine(subject(volumes=(volume,))), Passed)
