"""What everybody may change."""

from __future__ import annotations

import pytest

from scanner.checks.image.world_writable_files import WorldWritableFiles
from scanner.model.filesystem import FileEntry, FileType
from scanner.model.finding import Failed, Incomplete, Passed, Severity
from tests.scanner.checks.factory import entry, layer, subject, unreadable

DIRECTORY = FileType.DIRECTORY


@pytest.mark.parametrize(
    ("made", "severity"),
    [
        (entry("etc/cron.d/job", mode=0o666), Severity.HIGH),
        (entry("srv/app/data", mode=0o777, kind=DIRECTORY), None),
        (entry("srv/app/pipe", mode=0o666, kind=FileType.FIFO), None),
    ],
)
def test_what_is_writable(made: FileEntry, severity: Severity | None) -> None:
    outcome = WorldWritableFiles().examine(subject(layer(made)))
    assert isinstance(outcome, Failed)
    assert (outcome.evidence[0].path, outcome.severity) == (made.path, severity)
    assert outcome.remedy == f"RUN chmod -R o-w /{made.path}"


@pytest.mark.parametrize(
    "made",
    [
        entry("tmp", mode=0o1777, kind=DIRECTORY),
        entry("etc/alternatives/vi", mode=0o777, kind=FileType.SYMLINK, link="/usr/bin/vi"),
        entry("dev/null", mode=0o666, kind=FileType.CHAR_DEVICE, link="1:3"),
        entry("var/mail", mode=0o2775, kind=DIRECTORY),
    ],
)
def test_what_is_as_it_should_be(made: FileEntry) -> None:
    assert isinstance(WorldWritableFiles().examine(subject(layer(made))), Passed)


def test_a_tree_is_told_once() -> None:
    tree = [entry("srv", mode=0o777, kind=DIRECTORY), *(entry(f"srv/a/{n}", mode=0o666) for n in range(50))]
    outcome = WorldWritableFiles().examine(subject(layer(*tree, entry("srv-b", mode=0o666))))
    assert isinstance(outcome, Failed)
    assert [e.path for e in outcome.evidence] == ["srv", "srv-b"]
    assert "with 50 more entries below it" in outcome.evidence[0].message


def test_without_files_it_is_not_known() -> None:
    assert isinstance(WorldWritableFiles().examine(unreadable()), Incomplete)
