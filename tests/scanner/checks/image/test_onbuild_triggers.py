"""Instructions for other people's builds."""

from __future__ import annotations

from scanner.checks.image.onbuild_triggers import OnbuildTriggers
from scanner.model.finding import Failed, Passed
from tests.scanner.checks.factory import subject


def test_a_trigger() -> None:
    outcome = OnbuildTriggers().examine(subject(onbuild=("RUN npm ci",), history=["COPY a /", "ONBUILD RUN npm ci"]))
    assert isinstance(outcome, Failed)
    assert (outcome.evidence[0].pointer, outcome.evidence[0].history_index) == ("/config/OnBuild/0", 1)


def test_none() -> None:
    assert isinstance(OnbuildTriggers().examine(subject()), Passed)
