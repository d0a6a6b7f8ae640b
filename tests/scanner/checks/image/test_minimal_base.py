from __future__ import annotations

from dataclasses import replace

from scanner.checks.image.minimal_base import MinimalBase
from scanner.model.finding import Failed, Incomplete, NotApplicable, Passed
from tests.scanner.checks.factory import entry, layer, subject, unreadable


def debian(packages: int) -> bytes:
    return b"".join(b"Package: p%d\nStatus: install ok installed\n\n" % n for n in range(packages))


def test_many_packages() -> None:
    files = {"var/lib/dpkg/status": debian(400), "etc/os-release": b"ID=debian\nVERSION_ID=12\n"}
    outcome = MinimalBase().examine(subject(layer(contents=files)))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].message == "400 packages of debian 12 are installed"


def test_few_packages() -> None:
    image = subject(layer(contents={"lib/apk/db/installed": b"P:musl\nV:1\n\n" * 15}))
    assert isinstance(MinimalBase().examine(image), Passed)
    assert isinstance(MinimalBase().examine(replace(image, parameters={"max_packages": 10})), Failed)


def test_packages_of_rpm_are_counted() -> None:
    files = replace(layer(entry("var/lib/rpm/Packages")), rpm_packages={"var/lib/rpm/Packages": 180})
    outcome = MinimalBase().examine(subject(files))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].amount == 180


def test_what_cannot_be_counted_is_not_known() -> None:
    assert isinstance(MinimalBase().examine(subject(layer(entry("var/lib/rpm/rpmdb.sqlite")))), Incomplete)
    assert isinstance(MinimalBase().examine(unreadable()), Incomplete)
    assert isinstance(MinimalBase().examine(subject(layer(entry("app")))), NotApplicable)
