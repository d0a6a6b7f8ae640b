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
        ("CMD",),
        ("",),
    ],
)
def test_one_that_cannot_fail(test: tuple[str, ...]) -> None:
    assert isinstance(HealthcheckPresent().examine(subject(healthcheck=Healthcheck(test))), Failed)


def test_one_that_can_fail_passes() -> None:
    check = Healthcheck(("CMD-SHELL", "curl -f http://localhost/health || exit 1"))
    assert isinstance(HealthcheckPresent().examine(subject(healthcheck=check)), Passed)
