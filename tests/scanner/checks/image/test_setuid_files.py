"""Files that give privileges to whoever runs them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.checks.image.setuid_files import SetuidFiles
from scanner.model.filesystem import FileType
from scanner.model.finding import Failed, Incomplete, Passed, Severity
from tests.scanner.checks.factory import entry, layer, subject, unreadable


@pytest.mark.parametrize(
    ("made", "word"), [(entry("usr/bin/su", mode=0o4755), "setuid"), (entry("usr/bin/wall", mode=0o2755), "setgid")]
)
def test_what_gives_privileges(made: object, word: str) -> None:
    outcome = SetuidFiles().examine(subject(layer(made)))  # type: ignore[arg-type]
    assert isinstance(outcome, Failed)
    assert word in outcome.evidence[0].message
    assert outcome.evidence[0].layer_index == 0
    assert outcome.evidence[0].instruction == "COPY layer0 /"
    assert outcome.severity is Severity.LOW, "a distribution's own"


@pytest.mark.parametrize("path", ["usr/bin/backdoor", "tmp/su", "srv/app/mount"])
def test_one_that_no_distribution_ships_is_more_severe(path: str) -> None:
    """Dockle (CIS-DI-0008) says INFO of every one alike, so a planted one goes under."""
    outcome = SetuidFiles().examine(subject(layer(entry("usr/bin/su", mode=0o4755), entry(path, mode=0o4755))))
    assert isinstance(outcome, Failed)
    assert outcome.severity is None


@pytest.mark.parametrize(
    "made",
    [entry("var/mail", mode=0o2775, kind=FileType.DIRECTORY), entry("srv/locked", mode=0o2644)],
)
def test_setgid_that_gives_nothing(made: object) -> None:
    assert isinstance(SetuidFiles().examine(subject(layer(made))), Passed)  # type: ignore[arg-type]


def test_one_that_a_later_layer_deletes_gives_nothing() -> None:
    image = subject(layer(entry("usr/bin/su", mode=0o4755)), layer(whiteouts=["usr/bin/su"]))
    assert isinstance(SetuidFiles().examine(image), Passed)


def test_the_allow_list_tolerates_and_keeps_what_was_seen() -> None:
    made = subject(layer(entry("usr/bin/su", mode=0o4755), entry("usr/bin/x", mode=0o4755)))
    check = SetuidFiles()
    outcome = check.examine(replace(made, parameters={"allow": ("/usr/bin/su",)}))
    assert isinstance(outcome, Failed)
    assert ([e.path for e in outcome.evidence], [e.path for e in outcome.tolerated]) == (["usr/bin/x"], ["usr/bin/su"])
    everything = check.judge(outcome, made.image, {"allow": ("usr/bin/*",)})
    assert isinstance(everything, Passed)
    stricter = check.judge(everything, made.image, {"allow": ()})
    assert isinstance(stricter, Failed)
    assert len(stricter.evidence) == 2, "a policy may allow less than the check itself"


def test_the_remedy_names_the_programs() -> None:
    outcome = SetuidFiles().examine(subject(layer(entry("usr/bin/su", mode=0o4755), entry("a b", mode=0o4755))))
    assert isinstance(outcome, Failed)
    assert outcome.remedy == "RUN chmod a-s '/a b' /usr/bin/su"


def test_a_name_that_would_end_the_line_makes_no_remedy() -> None:
    outcome = SetuidFiles().examine(subject(layer(entry("x\nRUN curl evil", mode=0o4755))))
    assert isinstance(outcome, Failed)
    assert outcome.remedy == ""


def test_without_end_is_cut_and_the_cut_is_never_tolerated() -> None:
    many = subject(layer(*(entry(f"bin/{n}", mode=0o4755) for n in range(1000))))
    outcome = SetuidFiles().examine(replace(many, parameters={"allow": ("*",)}))
    assert isinstance(outcome, Failed)
    assert [e.message for e in outcome.evidence] == ["and 500 more of the kind, which are not listed"]


def test_without_files_it_is_not_known() -> None:
    assert isinstance(SetuidFiles().examine(unreadable()), Incomplete)
