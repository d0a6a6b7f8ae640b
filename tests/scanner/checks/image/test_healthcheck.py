"""A healthcheck that is missing, switched off or cannot fail."""

from __future__ import annotations

import pytest

from scanner.checks.image.healthcheck import HealthcheckPresent
from scanner.model.finding import Failed, Passed
from scanner.model.image import Healthcheck
from tests.scanner.checks.factory import subject


def test_missing() -> None:
    assert isinstance(HealthcheckPresent().examine(subject()), Failed)


@pytest.mark.parametrize(
    "test",
    [
        ("NONE",),
        ("CMD", "true"),
        ("CMD-SHELL", "exit 0"),
        ("CMD-SHELL", ":"),
        ("CMD-SHELL", "curl -f http://localhost/ || true"),
        ("CMD-SHELL", "echo ok; exit 0"),
        ("CMD-SHELL", "curl -f http://localhost/ || echo broken"),
        ("CMD", "sh", "-c", "exit 0"),
        ("CMD", "sleep", "5"),
        ("CMD",),
        ("",),
    ],
)
def test_one_that_cannot_fail(test: tuple[str, ...]) -> None:
    """Dockle (CIS-DI-0006) and docker-bench 4.6 ask whether there is one: all but the first of these pass there."""
    assert isinstance(HealthcheckPresent().examine(subject(healthcheck=Healthcheck(test))), Failed)


def test_one_that_can_fail_passes() -> None:
    check = Healthcheck(("CMD-SHELL", "curl -f http://localhost/health || exit 1"))
    assert isinstance(HealthcheckPresent().examine(subject(healthcheck=check)), Passed)


@pytest.mark.parametrize(
    ("config", "remedy"),
    [
        ({"entrypoint": ("docker-entrypoint.sh",), "cmd": ("redis-server",)}, "redis-cli ping | grep -q PONG"),
        ({"exposed_ports": ("8080/tcp",)}, "curl --fail --silent --max-time 2 http://localhost:8080/ || exit 1"),
        ({"exposed_ports": ("8080/tcp", "8081/tcp")}, ""),
        ({"exposed_ports": ("53/udp",)}, ""),
    ],
)
def test_the_remedy_is_for_what_the_image_starts(config: dict[str, tuple[str, ...]], remedy: str) -> None:
    outcome = HealthcheckPresent().examine(subject(**config))
    assert isinstance(outcome, Failed)
    assert outcome.remedy == (f"HEALTHCHECK --interval=30s --timeout=3s CMD {remedy}" if remedy else "")
