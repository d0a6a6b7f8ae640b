"""Files of nobody the image knows."""

from __future__ import annotations

import pytest

from scanner.checks.image.unowned_files import UnownedFiles
from scanner.model.filesystem import FileType
from scanner.model.finding import Failed, Incomplete, NotApplicable, Passed
from tests.scanner.checks.factory import PASSWD, entry, layer, subject, unreadable

BASE = layer(contents={"etc/passwd": PASSWD, "etc/group": b"root:x:0:\nstaff:x:50:\n"})


def test_the_builders_own_id() -> None:
    image = subject(BASE, layer(*(entry(f"srv/app/{n}", uid=501, gid=20) for n in range(3))))
    outcome = UnownedFiles().examine(image)
    assert isinstance(outcome, Failed)
    (evidence,) = outcome.evidence
    assert (evidence.path, evidence.name, evidence.layer_index) == ("srv/app", "501", 1)
    assert "3 files below /srv/app belong to uid 501" in evidence.message


def test_a_group_that_there_is_not() -> None:
    outcome = UnownedFiles().examine(subject(BASE, layer(entry("srv/x", uid=10001, gid=777))))
    assert isinstance(outcome, Failed)
    assert "gid 777" in outcome.evidence[0].message


@pytest.mark.parametrize(
    ("uid", "gid", "user"),
    [(0, 0, ""), (10001, 10001, ""), (4000, 4000, "4000"), (4000, 5000, "4000:5000"), (65534, 50, "")],
)
def test_owners_that_are_known(uid: int, gid: int, user: str) -> None:
    assert isinstance(UnownedFiles().examine(subject(BASE, layer(entry("srv/x", uid=uid, gid=gid)), user=user)), Passed)


def test_an_image_without_accounts_has_no_names() -> None:
    assert isinstance(UnownedFiles().examine(subject(layer(entry("app", uid=7)))), NotApplicable)


def test_accounts_that_could_not_be_read() -> None:
    link = entry("etc/passwd", kind=FileType.SYMLINK, link="/usr/users")
    assert isinstance(UnownedFiles().examine(subject(layer(link, entry("usr/users")))), Incomplete)


def test_without_files_it_is_not_known() -> None:
    assert isinstance(UnownedFiles().examine(unreadable()), Incomplete)
