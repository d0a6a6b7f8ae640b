"""Files that give privileges to whoever runs them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.checks.image.setuid_files import SetuidFiles
from scanner.model.filesystem import FileType
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import entry, layer, subject, unreadable


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (entry("usr/bin/su", mode=0o4755), "setuid"),
        (entry("usr/bin/wall", mode=0o2755), "setgid"),
        (entry("usr/bin/ping", mode=0o755, capability=b"\x01\x00\x00\x02"), "capabilities"),
    ],
)
def test_what_gives_privileges(made: object, word: str) -> None:
    outcome = SetuidFiles().examine(subject(layer(made)))  # type: ignore[arg-type]
    assert isinstance(outcome, Failed)
    assert word in outcome.evidence[0].message
    assert outcome.evidence[0].layer_index == 0
    assert outcome.evidence[0].instruction == "COPY layer0 /"


def test_a_directory_with_setgid_is_another_thing() -> None:
    assert isinstance(
        SetuidFiles().examine(subject(layer(entry("var/mail", mode=0o2775, kind=FileType.DIRECTORY)))), Passed
    )


def test_one_that_a_later_layer_deletes_gives_nothing() -> None:
    image = subject(layer(entry("usr/bin/su", mode=0o4755)), layer(whiteouts=["usr/bin/su"]))
    assert isinstance(SetuidFiles().examine(image), Passed)


def test_the_allow_list() -> None:
    image = replace(subject(layer(entry("usr/bin/su", mode=0o4755))), parameters={"allow": ["/usr/bin/su"]})
    assert isinstance(SetuidFiles().examine(image), Passed)


def test_without_files_it_is_not_known() -> None:
    assert isinstance(SetuidFiles().examine(unreadable()), Incomplete)
