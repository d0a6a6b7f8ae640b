"""Benchmarks: where they keep their data, and what all of them together run."""

from __future__ import annotations

import argparse

import pytest

from benchmarks import databases, run


@pytest.mark.parametrize("text", ["sqlit", "mysql://x/y", "postgresql://x:99999999/y"])
def test_a_database_that_cannot_be_used_is_an_error_of_the_option(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"use SQLite|postgresql"):
        databases.url(text)


def test_what_has_a_goal_for_both_databases_runs_on_both() -> None:
    planned = [(name, databases.POSTGRESQL in options) for _, name, options in run.runs(run.BENCHMARKS)]
    assert {name for name, on_postgresql in planned if on_postgresql} == {"webhooks", "notifications"}
    assert {name for name, on_postgresql in planned if not on_postgresql} == set(run.BENCHMARKS)
    assert len({label for label, _, _ in run.runs(run.BENCHMARKS)}) == len(planned)
