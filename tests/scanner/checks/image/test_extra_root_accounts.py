"""Root under other names."""

from __future__ import annotations

import pytest

from scanner.checks.image.extra_root_accounts import ExtraRootAccounts
from scanner.model.filesystem import FileType
from scanner.model.finding import Failed, Incomplete, NotApplicable, Passed
from tests.scanner.checks.factory import PASSWD, entry, layer, subject, unreadable


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b"toor:x:0:0::/root:/bin/sh\n", "uid 0"),
        (b"toor:x:00:0::/root:/bin/sh\n", "uid 0"),
        (b"toor:x:4294967296:0::/root:/bin/sh\n", "read as 0"),
        (b"toor:x:ten:0::/root:/bin/sh\n", "read as 0"),
        (b"toor\n", "read as 0"),
    ],
)
def test_another_root(line: bytes, word: str) -> None:
    """Dockle sees duplicate uids by their text: ``00``, a number that wraps and a broken line pass there."""
    outcome = ExtraRootAccounts().examine(subject(layer(contents={"etc/passwd": PASSWD + line})))
    assert isinstance(outcome, Failed)
    (evidence,) = outcome.evidence
    assert word in evidence.message
    assert (evidence.name, evidence.line, evidence.layer_index) == ("toor", 3, 0)


def test_a_name_that_is_a_command_is_quoted() -> None:
    outcome = ExtraRootAccounts().examine(subject(layer(contents={"etc/passwd": PASSWD + b"a;reboot:x:0:0\n"})))
    assert isinstance(outcome, Failed)
    assert outcome.remedy == "RUN userdel --force 'a;reboot'"


def test_root_alone() -> None:
    assert isinstance(ExtraRootAccounts().examine(subject()), Passed)


def test_an_image_without_accounts() -> None:
    assert isinstance(ExtraRootAccounts().examine(subject(layer(entry("app")))), NotApplicable)


@pytest.mark.parametrize("made", [entry("etc/passwd", kind=FileType.SYMLINK, link="/usr/p"), entry("etc/passwd")])
def test_accounts_that_could_not_be_read(made: object) -> None:
    assert isinstance(ExtraRootAccounts().examine(subject(layer(made, entry("usr/p")))), Incomplete)  # type: ignore[arg-type]


def test_more_lines_than_any_system_has_are_not_read() -> None:
    image = subject(layer(contents={"etc/passwd": b"\n" * 100_001 + b"toor:x:0:0::/:\n"}))
    assert isinstance(ExtraRootAccounts().examine(image), Incomplete)


def test_without_files_it_is_not_known() -> None:
    assert isinstance(ExtraRootAccounts().examine(unreadable()), Incomplete)
