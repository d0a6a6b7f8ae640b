"""Accounts that need no password."""

from __future__ import annotations

import pytest

from scanner.checks.image.empty_passwords import EmptyPasswords
from scanner.model.filesystem import FileType
from scanner.model.finding import Failed, Incomplete, NotApplicable, Passed
from tests.scanner.checks.factory import PASSWD, entry, layer, subject, unreadable


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("etc/shadow", b"bin:*::0:::::\nroot:::0:::::\n"),  # CVE-2019-5021
        ("etc/master.passwd", b"bin:*:1:1::0:0::/:/bin/sh\nroot::0:0::0:0::/:/bin/sh\n"),
        ("etc/passwd", b"bin:x:1:1::/:/bin/sh\nroot::0:0::/:/bin/sh\n"),
    ],
)
def test_an_empty_field(path: str, data: bytes) -> None:
    """Dockle (DKL-LI-0001) does not look at etc/passwd, whose empty field needs no shadow at all."""
    outcome = EmptyPasswords().examine(subject(layer(contents={"etc/passwd": PASSWD, path: data})))
    assert isinstance(outcome, Failed)
    (evidence,) = outcome.evidence
    assert (evidence.path, evidence.line, evidence.name, evidence.layer_index) == (path, 2, "root", 0)
    assert outcome.remedy == "RUN passwd -l root"


def test_locked_and_given_ones() -> None:
    shadow = b"root:*:19000:0:::::\nbin:!:19000::::::\napp:$6$salt$hash:19000::::::\n"
    assert isinstance(
        EmptyPasswords().examine(subject(layer(contents={"etc/passwd": PASSWD, "etc/shadow": shadow}))), Passed
    )


def test_an_image_without_accounts() -> None:
    assert isinstance(EmptyPasswords().examine(subject(layer(entry("app")))), NotApplicable)


def test_a_shadow_that_could_not_be_read() -> None:
    link = entry("etc/shadow", kind=FileType.SYMLINK, link="/usr/shadow")
    image = subject(layer(link, entry("usr/shadow"), contents={"etc/passwd": PASSWD}))
    assert isinstance(EmptyPasswords().examine(image), Incomplete)


def test_without_files_it_is_not_known() -> None:
    assert isinstance(EmptyPasswords().examine(unreadable()), Incomplete)
