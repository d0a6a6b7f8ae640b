from __future__ import annotations

from scanner.checks.image.maintainer import Maintainer
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import built_by, without_history


def test_maintainer() -> None:
    outcome = Maintainer().examine(built_by("/bin/sh -c #(nop) MAINTAINER somebody@example.com"))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].history_index == 1
    assert isinstance(Maintainer().examine(built_by("LABEL maintainer=somebody")), Passed)
    assert isinstance(Maintainer().examine(without_history()), Incomplete)
