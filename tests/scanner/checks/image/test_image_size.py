"""A budget for what a pull transfers."""

from __future__ import annotations

from dataclasses import replace

from scanner.checks.image.image_size import ImageSize
from scanner.model.finding import Failed, Passed
from tests.scanner.checks.factory import subject


def test_within_and_beyond_the_budget() -> None:
    assert isinstance(ImageSize().examine(subject(size=499_000_000)), Passed)
    outcome = ImageSize().examine(subject(size=600_000_000))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].layer_index == 0


def test_the_budget_is_a_parameter() -> None:
    assert isinstance(ImageSize().examine(replace(subject(size=20_000_000), parameters={"max_megabytes": 10})), Failed)
