"""Files that give privileges to whoever runs them."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace

import pytest

from scanner.checks.image.setuid_files import SetuidFiles
from scanner.model.filesystem import FileType, LayerFacts, PackagedFile
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
    assert [e.message for e in outcome.evidence] == ["and 500 more, not listed"]


def test_without_files_it_is_not_known() -> None:
    assert isinstance(SetuidFiles().examine(unreadable()), Incomplete)


PROGRAM = b"ELF of su"
STATUS = b"Package: apt\nStatus: install ok installed\n\nPackage: login\nStatus: install ok installed\nVersion: 1\n\n"


def base(path: str = "usr/bin/su", *, status: bytes = STATUS, listed: str = "bin/su", **more: int) -> LayerFacts:
    """A layer as debootstrap makes it: dpkg's status, the package's list of digests, the program."""
    sums = f"{hashlib.md5(PROGRAM, usedforsecurity=False).hexdigest()}  {listed}\n".encode()
    info = {"var/lib/dpkg/status": status, "var/lib/dpkg/info/login.md5sums": sums}
    made = layer(entry(path, **{"mode": 0o4755, **more}), contents=info)
    return replace(made, contents={**made.contents, path: PROGRAM})


def test_a_package_that_is_held_is_the_distributions_own() -> None:
    """``apt-mark hold login``."""
    made = base(status=STATUS.replace(b"login\nStatus: install", b"login\nStatus: hold"))
    assert isinstance(SetuidFiles().examine(subject(made)), Passed)


@pytest.mark.parametrize("listed", ["bin/su", "usr/bin/su"])
def test_a_distributions_own_program_is_tolerated_and_listed(listed: str) -> None:
    made = subject(base(listed=listed))
    outcome = SetuidFiles().examine(made)
    assert isinstance(outcome, Passed)
    (seen,) = outcome.tolerated
    assert (seen.path, "package login" in seen.message) == ("usr/bin/su", True)
    assert isinstance(SetuidFiles().judge(outcome, made.image, {"distribution": False}), Failed)


@pytest.mark.parametrize(
    "facts",
    [
        base("srv/su"),
        base("usr/bin/backdoor", listed="usr/bin/backdoor"),
        base("usr/bin/wall", listed="usr/bin/wall"),
        base(mode=0o4777),
        base(mode=0o6755),
        base(mode=0o2755),
        base(uid=1000),
        base(
            status=STATUS.replace(
                b"Package: login\nStatus: install ok installed", b"Package: login\nStatus: deinstall ok config-files"
            )
        ),
        base(status=b""),
        base(listed="bin/other"),
    ],
)
def test_one_that_is_elsewhere_or_not_as_shipped_is_not(facts: LayerFacts) -> None:
    """``wall`` is shipped setgid and ``su`` setuid: the other bit was added by somebody."""
    assert isinstance(SetuidFiles().examine(subject(facts)), Failed)


def test_one_that_a_later_layer_replaces_is_not() -> None:
    later = layer(entry("usr/bin/su", mode=0o4755))
    for data in (b"another su", None):
        replaced = replace(later, contents={"usr/bin/su": data} if data else {})
        assert isinstance(SetuidFiles().examine(subject(base(), replaced)), Failed)


def alpine(
    path: str = "bin/bbsuid", *, mode: int = 0o4111, package: str = "busybox-suid", said: str = "0:0:4111"
) -> LayerFacts:
    """A layer of Alpine: apk's list of packages, and the program."""
    digest = base64.b64encode(hashlib.sha1(PROGRAM, usedforsecurity=False).digest()).decode()
    directory, _, name = "bin/bbsuid".rpartition("/")
    installed = f"C:Q1x=\nP:{package}\nV:1\nF:{directory}\nM:0:0:755\nR:{name}\na:{said}\nZ:Q1{digest}\n\nP:musl\n"
    made = layer(entry(path, mode=mode), contents={"lib/apk/db/installed": installed.encode()})
    return replace(made, contents={**made.contents, path: PROGRAM})


def enterprise(
    path: str = "usr/bin/su", *, mode: int = 0o4755, package: str = "util-linux", **said: object
) -> LayerFacts:
    """A layer of Enterprise Linux or Fedora: what rpm's database says, and the program."""
    shipped = PackagedFile(package, "usr/bin/su", 0o4755, "root", "sha256", hashlib.sha256(PROGRAM).hexdigest())
    made = layer(entry(path, mode=mode), contents={"var/lib/rpm/rpmdb.sqlite": b"SQLite"})
    packaged = {"var/lib/rpm/rpmdb.sqlite": (replace(shipped, **said),)}  # type: ignore[arg-type]
    return replace(made, contents={**made.contents, path: PROGRAM}, packaged=packaged)


@pytest.mark.parametrize(("facts", "package"), [(alpine(), "busybox-suid"), (enterprise(), "util-linux")])
def test_apk_and_rpm_tell_what_is_their_own(facts: LayerFacts, package: str) -> None:
    outcome = SetuidFiles().examine(subject(facts))
    assert isinstance(outcome, Passed)
    assert f"package {package}" in outcome.tolerated[0].message
    assert isinstance(SetuidFiles().judge(outcome, None, {"distribution": False}), Failed)


@pytest.mark.parametrize(
    "facts",
    [
        alpine("usr/local/bin/bbsuid"),
        alpine(mode=0o4755),
        alpine(package="helper"),
        alpine(said="0:0:755"),
        alpine(said="1000:0:4111"),
        replace(alpine(), contents={**alpine().contents, "bin/bbsuid": b"another"}),
        enterprise("usr/bin/backdoor"),
        enterprise(mode=0o6755),
        enterprise(package="su-helper"),
        enterprise(digest="00" * 32),
        enterprise(owner="nobody"),
        enterprise(path="usr/bin/mount"),
        replace(enterprise(), packaged={}),
    ],
)
def test_what_apk_and_rpm_do_not_say_is_not(facts: LayerFacts) -> None:
    assert isinstance(SetuidFiles().examine(subject(facts)), Failed)


def test_a_database_that_a_later_layer_replaces_counts_no_more() -> None:
    later = layer(contents={"var/lib/rpm/rpmdb.sqlite": b"SQLite, another"})
    assert isinstance(SetuidFiles().examine(subject(enterprise(), later)), Failed)
