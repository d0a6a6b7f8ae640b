"""Who may list repositories."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.checks.registry.registry_anonymous_catalog import AnonymousCatalog
from scanner.model.finding import Incomplete, Passed
from scanner.model.posture import Access
from tests.scanner.checks.registries import GOOD, examine, messages


@pytest.mark.parametrize("answer", [Access.REFUSED, Access.ALLOWED, Incomplete("unclear_answer", "it answered 500")])
def test_the_answer_that_strangers_get(answer: Access | Incomplete) -> None:
    outcome = examine(AnonymousCatalog(), access=replace(GOOD.access, catalog=answer))
    if answer is Access.REFUSED:
        assert isinstance(outcome, Passed)
    elif answer is Access.ALLOWED:
        assert messages(outcome) == ["anyone can list the repositories without credentials"]
    else:
        assert outcome == answer
