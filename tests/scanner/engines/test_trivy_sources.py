"""Where Trivy looks packages up, and what its silence is worth where the database holds nothing: asked of a real
Trivy.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scanner.advisories import database, trivydb
from scanner.advisories.database import Holdings
from scanner.advisories.trivydb import Advisory
from scanner.config import Settings
from scanner.engines import _trivy_sources
from scanner.engines.base import MatchJob
from scanner.engines.trivy import TrivyEngine
from scanner.model.finding import Component, Severity
from scanner.model.matching import Package

SYSTEMS = {
    "alpine 3.20.3": ("alpine 3.20", "apk/alpine"),
    "debian 12.8": ("debian 12", "deb/debian"),
    "ubuntu 22.04-ESM": ("ubuntu 22.04", "deb/ubuntu"),
    "ubuntu 20.04-ESM": ("ubuntu 20.04-ESM", "deb/ubuntu"),
    "rocky 9.4": ("rocky 9", "rpm/rocky"),
    "alma 9.4": ("alma 9", "rpm/alma"),
    "oracle 9.4": ("Oracle Linux 9", "rpm/oracle"),
    "amazon 2023.6.20241212 (Amazon Linux)": ("amazon linux 2023", "rpm/amazon"),
    "photon 5.0": ("Photon OS 5.0", "rpm/photon"),
    "sles 15.6": ("SUSE Linux Enterprise 15.6", "rpm/suse"),
    "opensuse-leap 15.6": ("openSUSE Leap 15.6", "rpm/opensuse"),
    "opensuse-tumbleweed 20241101": ("openSUSE Tumbleweed", "rpm/opensuse"),
    "cbl-mariner 2.0.20240112": ("CBL-Mariner 2.0", "rpm/cbl-mariner"),
    "azurelinux 3.0.20240824": ("Azure Linux 3.0", "rpm/azurelinux"),
    "wolfi 20230201": ("wolfi", "apk/wolfi"),
    "chainguard 20230214": ("chainguard", "apk/chainguard"),
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    base = tmp_path_factory.mktemp("sources")
    made = Settings(home=base / "home")
    listed = [
        Advisory(f"CVE-2026-{n}", s, "thing", Severity.HIGH, fixed="9") for n, (s, _) in enumerate(SYSTEMS.values())
    ]
    database.import_file(made, trivydb.build(listed, base / "advisories"))
    return made


@pytest.mark.parametrize("release", SYSTEMS)
def test_what_a_release_is_looked_up_in(settings: Settings, tmp_path: Path, release: str) -> None:
    source, purl = SYSTEMS[release]
    family = release.partition(" ")[0]
    package = Package("trivy", release, family, f"pkg:{purl}/thing@1-1", "thing", "1-1", "thing", "1-1")
    (tmp_path / "work").mkdir()
    answer = TrivyEngine().look_up(MatchJob([package], release, tmp_path / "work", tmp_path / "cache", settings, 60))
    assert [v.id for v in answer.found[package.key]] == [f"CVE-2026-{list(SYSTEMS).index(release)}"], source
    assert not answer.uncovered


@pytest.mark.parametrize(
    "release",
    [
        "debian kali-rolling",
        "debian 15.0",
        "debian trixie/sid",
        "ubuntu 22.10",
        "alpine 3.21.0",
        "fedora 41",
        "rocky 8.10",
    ],
)
def test_nothing_is_looked_up_where_there_is_nothing(settings: Settings, tmp_path: Path, release: str) -> None:
    package = Package(
        "trivy", release, release.partition(" ")[0], "pkg:deb/debian/thing@1-1", "thing", "1-1", "thing", "1-1"
    )
    (tmp_path / "work").mkdir()
    answer = TrivyEngine().look_up(MatchJob([package], release, tmp_path / "work", tmp_path / "cache", settings, 60))
    assert (answer.found, answer.uncovered) == ({}, (package.type,))


@pytest.mark.parametrize("kind", ["npm", "node-pkg", "python-pkg", "gobinary", "conda-pkg", "a-type-of-tomorrow", ""])
def test_a_language_without_advisories_is_not_clean(kind: str) -> None:
    listed = [Component("pkg:generic/x@1", "x", "1", kind)]
    holdings = Holdings(frozenset(("npm::GitHub Security Advisory Npm",)))
    gaps = [gap.reason for _, gap in _trivy_sources.gaps("", "", False, listed, holdings)]
    assert gaps == ([] if kind in ("npm", "node-pkg") else ["no_advisories"])


def test_red_hat_has_releases_by_its_content_sets() -> None:
    holdings = Holdings(frozenset(("Red Hat",)), frozenset(("8", "9")))
    answers = {
        release: _trivy_sources.has_system(release, holdings) for release in ("redhat 9.4", "centos 8", "redhat 10.0")
    }
    assert answers == {"redhat 9.4": True, "centos 8": True, "redhat 10.0": False}


def test_a_source_without_an_advisory_counts_as_none(tmp_path: Path) -> None:
    from scanner.advisories import bolt

    tree = {b"debian 12": {b"curl": {b"CVE-1": b"{}"}}, b"debian 13": {b"curl": {}}, b"debian 14": {}}
    for directory in ("db",):
        (tmp_path / directory).mkdir()
    bolt.write(tree, tmp_path / "db" / "trivy.db")  # type: ignore[arg-type]
    assert database.Generation(tmp_path).holdings() == Holdings(frozenset(("debian 12",)))
