"""What a check's word becomes before it is stored: without a secret's value, and Incomplete where the check broke."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.checks.base import ImageCheck, ImageSubject
from scanner.checks.image.setuid_files import SetuidFiles
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed
from scanner.scanning.pipeline import outcome_of
from tests.scanner.checks.factory import entry, layer, subject

LINE = "RUN |1 NPM_TOKEN=hunter2-really /bin/sh -c npm ci"


class _Says(ImageCheck):
    """Answers what it is made with."""

    id = "says"

    def __init__(self, outcome: Outcome | None) -> None:
        self._outcome = outcome

    def examine(self, subject: ImageSubject) -> Outcome:
        if self._outcome is None:
            raise RuntimeError("a check that breaks")
        return self._outcome


def test_the_instruction_that_made_a_layer_holds_no_secret() -> None:
    outcome = outcome_of(SetuidFiles(), subject(layer(entry("bin/su", mode=0o4755)), history=[LINE]))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].instruction.startswith("RUN ")
    assert "hunter2" not in str(outcome)


@pytest.mark.parametrize(
    "outcome",
    [
        Passed((Evidence(f"seen in {LINE}"),)),
        Failed((Evidence("x", instruction=LINE),), tolerated=(Evidence("y", instruction=LINE),)),
        Failed((Evidence("x"),), remedy=LINE),
    ],
)
def test_nor_does_anything_else_that_a_check_says(outcome: Outcome) -> None:
    assert "hunter2" in str(outcome)
    assert "hunter2" not in str(outcome_of(_Says(outcome), subject()))


def test_a_check_that_breaks_has_not_examined() -> None:
    outcome = outcome_of(_Says(None), replace(subject(), rootfs=None))
    assert isinstance(outcome, Incomplete)
    assert outcome.reason == "check_failed"
