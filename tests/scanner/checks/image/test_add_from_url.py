from __future__ import annotations

import pytest

from scanner.checks.image.add_from_url import AddFromUrl
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import built_by, without_history


@pytest.mark.parametrize(
    "source",
    ["https://example.com/x.tgz", "http://example.com/x", "git@example.com:a/b.git", "a b ftp://example.com/x"],
)
def test_from_the_network(source: str) -> None:
    outcome = AddFromUrl().examine(built_by(f"ADD {source} /x # buildkit"))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].layer_index == 1


def test_no_credential_is_shown() -> None:
    outcome = AddFromUrl().examine(built_by("ADD https://me:hunter2@example.com/x?token=s3cret /x # buildkit"))
    assert isinstance(outcome, Failed)
    assert "hunter2" not in outcome.evidence[0].message and "s3cret" not in outcome.evidence[0].message


@pytest.mark.parametrize(
    "line",
    [
        "ADD app.tar.gz / # buildkit",
        "COPY https /x # buildkit",
        "ADD --checksum=sha256:00 https://example.com/x /x",
        "RUN /bin/sh -c curl https://example.com/x",
    ],
)
def test_other_lines(line: str) -> None:
    assert isinstance(AddFromUrl().examine(built_by(line)), Passed)


def test_without_history_it_is_not_known() -> None:
    assert isinstance(AddFromUrl().examine(without_history()), Incomplete)
