"""Signals that nothing can act on."""

from __future__ import annotations

import pytest

from scanner.checks.image.stop_signal import StopSignal
from scanner.model.finding import Failed, Passed
from tests.scanner.checks.factory import subject


@pytest.mark.parametrize("signal", ["SIGKILL", "9", "kill", "SIGSTOP"])
def test_one_that_cannot_be_handled(signal: str) -> None:
    outcome = StopSignal().examine(subject(stop_signal=signal, history=["COPY a /", f"STOPSIGNAL {signal}"]))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].history_index == 1


@pytest.mark.parametrize("signal", ["", "SIGTERM", "SIGQUIT", "SIGRTMIN+3", "15"])
def test_one_that_can(signal: str) -> None:
    assert isinstance(StopSignal().examine(subject(stop_signal=signal)), Passed)
