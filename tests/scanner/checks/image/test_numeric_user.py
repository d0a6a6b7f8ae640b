"""A user by name, which Kubernetes cannot judge."""

from __future__ import annotations

import pytest

from scanner.checks.image.numeric_user import NumericUser
from scanner.model.finding import Failed, Incomplete, NotApplicable, Passed
from tests.scanner.checks.factory import subject, unreadable


def test_a_name_and_what_to_write_for_it() -> None:
    outcome = NumericUser().examine(subject(user="app"))
    assert isinstance(outcome, Failed)
    assert outcome.remedy == "USER 10001:10001"


def test_a_name_that_nobody_knows() -> None:
    outcome = NumericUser().examine(subject(user="ghost"))
    assert isinstance(outcome, Failed)
    assert outcome.remedy == ""


def test_a_number_passes() -> None:
    assert isinstance(NumericUser().examine(subject(user="10001")), Passed)


@pytest.mark.parametrize("user", ["", "root", "0", "00:1"])
def test_root_is_another_check(user: str) -> None:
    assert isinstance(NumericUser().examine(subject(user=user)), NotApplicable)


def test_without_files_it_is_not_known() -> None:
    assert isinstance(NumericUser().examine(unreadable(user="app")), Incomplete)
