"""Root by any spelling; what cannot be resolved counts as root; what could not be read is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.checks.base import ImageSubject
from scanner.checks.image.root_user import RootUser
from scanner.model.filesystem import FileType
from scanner.model.finding import Failed, Incomplete, Passed
from scanner.model.reference import Platform
from tests.scanner.checks.factory import PASSWD, entry, layer, subject, unreadable


@pytest.mark.parametrize(
    "user",
    [
        "",
        "root",
        "0",
        "0:0",
        "00",
        "root:root",
        "0:10001",
        "4294967296",
        "4294967296:4294967296",
        " 0 ",
        "+0",
        "-0",
        ":1000",
        "  ",
    ],
)
def test_root_by_any_spelling(user: str) -> None:
    """Dockle (CIS-DI-0001) and docker-bench 4.1 compare with a few literals: all of these but the first three pass
    there.
    """
    outcome = RootUser().examine(subject(user=user))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].pointer == "/config/User"


def test_a_name_that_the_image_itself_maps_to_root() -> None:
    passwd = PASSWD + b"toor:x:0:0::/root:/bin/sh\n"
    assert isinstance(RootUser().examine(subject(layer(contents={"etc/passwd": passwd}), user="toor")), Failed)


@pytest.mark.parametrize(
    ("user", "line"),
    [
        ("10002", b"10002:x:0:0::/root:/bin/sh"),
        ("10002:10002", b"10002:x::0::/root:/bin/sh"),
        ("+10002", b"+10002:x:0:0:::"),  # an entry of NIS for the C library, a user for Docker
        ("10002", b"10002"),
    ],
)
def test_a_number_that_is_the_name_of_root(user: str, line: bytes) -> None:
    """CVE-2016-3697: Docker looked for a user with this name before it took the number as it is."""
    outcome = RootUser().examine(subject(layer(contents={"etc/passwd": PASSWD + line + b"\n"}), user=user))
    assert isinstance(outcome, Failed)
    assert "starts that user" in outcome.evidence[0].message


@pytest.mark.parametrize(
    "line", [b"x:x:10002:0::/:/bin/sh\n10002:x:0:0::/:/bin/sh", b"10002:x:5:5::/:/bin/sh", b"x:x:0:0"]
)
def test_the_first_line_of_a_number_counts(line: bytes) -> None:
    made = subject(layer(contents={"etc/passwd": PASSWD + line + b"\n"}), user="10002")
    assert isinstance(RootUser().examine(made), Passed)


@pytest.mark.parametrize("user", ["app", "10001", "10001:0", "app:app", "+10001", "65534"])
def test_another_user_passes(user: str) -> None:
    assert isinstance(RootUser().examine(subject(user=user)), Passed)


@pytest.mark.parametrize("user", ["ghost", "-1", "٠", "0x0", "99999999999999999999", "4294967295", "1000 "])
def test_a_user_that_cannot_be_resolved_counts_as_root(user: str) -> None:
    assert isinstance(RootUser().examine(subject(user=user)), Failed)


@pytest.mark.parametrize(
    "line",
    [
        b"app:x:none:1::/:/bin/sh\n",  # a uid that is no number is 0 to runtimes
        b"app:x\n",  # so is one that is not there
        b"app:x:4294967296:1::/:/bin/sh\n",
    ],
)
def test_the_first_line_of_a_name_counts_however_it_is_broken(line: bytes) -> None:
    """A strict reader would skip the line and find the good one below it; Docker and containerd start uid 0."""
    assert isinstance(RootUser().examine(subject(layer(contents={"etc/passwd": line + PASSWD}), user="app")), Failed)


def test_only_a_newline_ends_a_line() -> None:
    """Python's splitlines sees a line of ``app`` here that no runtime sees."""
    passwd = b"x:x:5:5:\x0bapp:x:10001:10001::/:/bin/sh\x0b:/:/bin/sh\napp:x:0:0::/:/bin/sh\n"
    assert isinstance(RootUser().examine(subject(layer(contents={"etc/passwd": passwd}), user="app")), Failed)


def test_a_link_to_what_nobody_kept_is_not_known() -> None:
    link = entry("etc/passwd", kind=FileType.SYMLINK, link="../usr/users")
    assert isinstance(RootUser().examine(subject(layer(link, entry("usr/users")), user="app")), Incomplete)


def test_without_files_a_name_is_not_known() -> None:
    assert isinstance(RootUser().examine(unreadable(user="app")), Incomplete)


def test_the_remedy_names_the_user_that_the_image_has() -> None:
    passwd = b"root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
    outcome = RootUser().examine(subject(layer(contents={"etc/passwd": passwd})))
    assert isinstance(outcome, Failed)
    assert outcome.remedy == "USER 1000:1000"


WINDOWS = layer(entry("Files/Windows/System32/cmd.exe"), entry("Hives/Sam_Base"))


def for_windows(made: ImageSubject) -> ImageSubject:
    config = replace(made.image.config, platform=Platform("windows", "amd64"))
    return replace(made, image=replace(made.image, config=config))


@pytest.mark.parametrize(
    ("user", "kind"), [("", Failed), ("ContainerAdministrator", Failed), ("ContainerUser", Passed), ("me", Incomplete)]
)
def test_windows(user: str, kind: type) -> None:
    assert isinstance(RootUser().examine(for_windows(subject(WINDOWS, user=user))), kind)


@pytest.mark.parametrize("user", ["ContainerUser", "containeruser", "root", "0", "", "ghost"])
def test_an_image_for_linux_that_calls_itself_one_for_windows(user: str) -> None:
    """containerd does not compare the config of an image with its own system: ContainerUser is whom passwd says."""
    passwd = layer(contents={"etc/passwd": b"ContainerUser:x:0:0::/:/bin/sh\ncontaineruser:x:0:0::/:/bin/sh\n"})
    for layers in ((passwd,), (WINDOWS, passwd), (layer(entry("bin/sh")),)):
        assert isinstance(RootUser().examine(for_windows(subject(*layers, user=user))), Failed)
    assert isinstance(RootUser().examine(for_windows(unreadable(user="ContainerUser"))), Incomplete)
