"""Who may pull."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.checks.registry.registry_anonymous_pull import AnonymousPull
from scanner.model.finding import Incomplete, Passed
from scanner.model.posture import Access
from tests.scanner.checks.registries import GOOD, examine, messages


@pytest.mark.parametrize("answer", [Access.REFUSED, Access.ALLOWED, Incomplete("unclear_answer", "it answered 500")])
def test_the_answer_that_strangers_get(answer: Access | Incomplete) -> None:
    outcome = examine(AnonymousPull(), access=replace(GOOD.access, pull=answer))
    if answer is Access.REFUSED:
        assert isinstance(outcome, Passed)
    elif answer is Access.ALLOWED:
        assert messages(outcome) == ["anyone can pull images without credentials (tested with team/app)"]
    else:
        assert outcome == answer
