from __future__ import annotations

from dataclasses import replace

import pytest

from scanner.checks.base import ImageSubject
from scanner.checks.image.add_instead_of_copy import AddInsteadOfCopy
from scanner.model.filesystem import LayerFacts
from scanner.model.finding import Failed, Incomplete, Outcome, Passed
from tests.scanner.checks.factory import PASSWD, entry, layer, subject, without_history

ROOT = layer(contents={"etc/passwd": PASSWD, "etc/os-release": b"ID=debian\n"})
ONE = layer(entry("app/app.jar"))
MANY = layer(entry("opt/tool/a"), entry("opt/tool/b"))


def image(*steps: tuple[str, LayerFacts]) -> ImageSubject:
    return subject(*(facts for _, facts in steps), history=[line for line, _ in steps])


def examine(*steps: tuple[str, LayerFacts]) -> Outcome:
    return AddInsteadOfCopy().examine(image(*steps))


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("ADD app.jar /app/app.jar # buildkit", ONE),
        ("ADD . /app # buildkit", MANY),
        ("/bin/sh -c #(nop) ADD file:0123456789abcdef in /app ", ONE),
        ("/bin/sh -c #(nop) ADD dir:0123456789abcdef in /app ", MANY),
        ("/bin/sh -c #(nop) ADD file:0123456789abcdef in / ", ONE),
    ],
)
def test_copy_would_do(line: str, facts: LayerFacts) -> None:
    outcome = examine(("# debian.sh", ROOT), (line, facts))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].layer_index == 1


def test_the_first_add_is_not_excused() -> None:
    """Where the base came by COPY or import, a rule that excuses the first ADD excuses the wrong one."""
    assert isinstance(examine(("COPY / / # buildkit", ROOT), ("ADD app.jar /app/ # buildkit", ONE)), Failed)


@pytest.mark.parametrize(
    "line",
    [
        "/bin/sh -c #(nop) ADD file:0123 in / ",
        "ADD alpine-minirootfs-3.20-x86_64.tar.gz / # buildkit",
        "ADD rootfs / # buildkit",
    ],
)
def test_a_root_file_system_is_the_bases_own(line: str) -> None:
    assert isinstance(examine((line, ROOT)), Passed)


def test_and_so_is_a_second_one() -> None:
    """A rule of the lowest index blames this one."""
    steps = (
        ("/bin/sh -c #(nop) ADD file:01 in / ", ROOT),
        ("/bin/sh -c #(nop) ADD file:02 in / ", layer(contents={"etc/os-release": b"x"})),
    )
    assert isinstance(examine(*steps), Passed)


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("ADD tool.tar.xz /opt # buildkit", MANY),
        ("/bin/sh -c #(nop) ADD file:0123 in /opt ", MANY),
        ("ADD https://example.com/x /x # buildkit", ONE),
    ],
)
def test_what_only_add_can_do(line: str, facts: LayerFacts) -> None:
    assert isinstance(examine(("# debian.sh", ROOT), (line, facts)), Passed)


def test_what_cannot_be_told_is_not_known() -> None:
    assert isinstance(AddInsteadOfCopy().examine(without_history()), Incomplete)
    unread = replace(image(("/bin/sh -c #(nop) ADD file:01 in /app ", ONE)), rootfs=None, rootfs_reason="truncated")
    assert isinstance(AddInsteadOfCopy().examine(unread), Incomplete)
    unread = replace(image(("# debian.sh", ROOT), ("ADD app.jar /app/ # buildkit", ONE)), rootfs=None)
    assert isinstance(AddInsteadOfCopy().examine(unread), Failed)
