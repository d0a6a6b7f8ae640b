"""Root by any spelling; what cannot be resolved is not known."""

from __future__ import annotations

import pytest

from scanner.checks.image.root_user import RootUser
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import PASSWD, layer, subject, unreadable


@pytest.mark.parametrize("user", ["", "root", "0", "0:0", "00", "root:root", "0:10001", "4294967296", " 0 "])
def test_root_by_any_spelling(user: str) -> None:
    outcome = RootUser().examine(subject(user=user))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].pointer == "/config/User"


def test_a_name_that_the_image_itself_maps_to_root() -> None:
    passwd = PASSWD + b"toor:x:0:0::/root:/bin/sh\n"
    assert isinstance(RootUser().examine(subject(layer(contents={"etc/passwd": passwd}), user="toor")), Failed)


@pytest.mark.parametrize("user", ["app", "10001", "10001:0", "app:app"])
def test_another_user_passes(user: str) -> None:
    assert isinstance(RootUser().examine(subject(user=user)), Passed)


@pytest.mark.parametrize("user", ["ghost", "-1", "٠"])
def test_a_user_that_nobody_knows_is_not_known(user: str) -> None:
    assert isinstance(RootUser().examine(subject(user=user)), Incomplete)


def test_without_files_a_name_is_not_known() -> None:
    assert isinstance(RootUser().examine(unreadable(user="app")), Incomplete)


def test_without_passwd_a_name_is_not_known() -> None:
    assert isinstance(RootUser().examine(subject(layer(contents={"app": b"x"}), user="app")), Incomplete)
