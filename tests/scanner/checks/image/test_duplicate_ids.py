"""Accounts that are one to the kernel."""

from __future__ import annotations

import pytest

from scanner.checks.image.duplicate_ids import DuplicateIds
from scanner.model.filesystem import FileType
from scanner.model.finding import Failed, Incomplete, NotApplicable, Passed
from tests.scanner.checks.factory import PASSWD, entry, layer, subject, unreadable


@pytest.mark.parametrize(
    ("path", "data", "message"),
    [
        ("etc/passwd", b"a:x:7:7::/:\nb:x:007:7::/:\n", "a and b have the same uid 7"),
        ("etc/group", b"a:x:7:\nb:x:7:\n", "a and b have the same gid 7"),
        ("etc/group", b"a:x:7:\na:x:8:\n", "a is 2 times in /etc/group"),
    ],
)
def test_two_with_one_id(path: str, data: bytes, message: str) -> None:
    outcome = DuplicateIds().examine(subject(layer(contents={"etc/passwd": PASSWD, path: data})))
    assert isinstance(outcome, Failed)
    assert message in outcome.evidence[0].message
    assert (outcome.evidence[0].path, outcome.evidence[0].line) == (path, 2)


@pytest.mark.parametrize("more", [b"", b"toor:x:0:0::/root:/bin/sh\n"])
def test_what_is_no_duplicate_here(more: bytes) -> None:
    assert isinstance(DuplicateIds().examine(subject(layer(contents={"etc/passwd": PASSWD + more}))), Passed)


def test_an_image_without_accounts() -> None:
    assert isinstance(DuplicateIds().examine(subject(layer(entry("app")))), NotApplicable)


def test_a_group_file_that_could_not_be_read() -> None:
    link = entry("etc/group", kind=FileType.SYMLINK, link="/usr/group")
    assert isinstance(DuplicateIds().examine(subject(layer(link, entry("usr/group")))), Incomplete)


def test_without_files_it_is_not_known() -> None:
    assert isinstance(DuplicateIds().examine(unreadable()), Incomplete)
