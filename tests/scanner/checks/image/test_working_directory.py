"""Where the program starts."""

from __future__ import annotations

import pytest

from scanner.checks.image.working_directory import WorkingDirectory
from scanner.model.finding import Failed, Passed
from tests.scanner.checks.factory import subject


@pytest.mark.parametrize("directory", ["app", "/etc/app", "/usr/bin", "/proc/self", "/sys/../etc"])
def test_relative_or_the_systems(directory: str) -> None:
    """Trivy (DS-0009, DS-0030) reads Dockerfiles only; of an image without one it says nothing."""
    outcome = WorkingDirectory().examine(subject(working_dir=directory))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].pointer == "/config/WorkingDir"


def test_a_relative_line_of_the_history() -> None:
    outcome = WorkingDirectory().examine(subject(working_dir="/app/src", history=["COPY a /", "WORKDIR src"]))
    assert isinstance(outcome, Failed)
    assert (outcome.evidence[0].history_index, outcome.evidence[0].pointer) == (1, "/history/1")


@pytest.mark.parametrize(
    ("directory", "line"),
    [
        ("/app", "WORKDIR /app"),
        ("", "RUN x"),
        ("/", "RUN x"),
        ("/srv", "WORKDIR ${APP}"),
        ("/x", "/bin/sh -c #(nop) WORKDIR /x"),
    ],
)
def test_a_directory_of_its_own(directory: str, line: str) -> None:
    assert isinstance(WorkingDirectory().examine(subject(working_dir=directory, history=["COPY a /", line])), Passed)
