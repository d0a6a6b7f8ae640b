"""Where Trivy looks packages up, and what its silence is worth where the database holds nothing: asked of a real
Trivy.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest

from scanner.advisories import bolt, database, trivydb
from scanner.advisories.database import Holdings
from scanner.advisories.trivydb import Advisory
from scanner.config import Settings
from scanner.demo import samples
from scanner.engines import _trivy_sources
from scanner.engines.base import MatchJob
from scanner.engines.trivy import TrivyEngine
from scanner.model.finding import Component, EngineReport, Severity
from scanner.model.matching import Package
from scanner.model.scan import ScanRequest
from scanner.scanning import pipeline

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


# A database that rpm 4.18 wrote: openssl-libs, bind-libs (epoch 32) and nodejs (of the module nodejs:18) of Rocky's
# vendor, bash of another one, and docker-ce-cli of Docker.
RPM_DATABASE = gzip.decompress((Path(__file__).parents[2] / "data" / "rpm" / "rpmdb.sqlite.gz").read_bytes())
ROCKY = {
    "etc/os-release": b'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.1"\n',
    "etc/rocky-release": b"Rocky Linux release 9.1 (Blue Onyx)\n",
}
RED_HAT = {
    "etc/os-release": b'ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.1"\n',
    "etc/redhat-release": b"Red Hat Enterprise Linux release 9.1 (Plow)\n",
}
FIXED = {
    "CVE-2026-1": ("openssl-libs", "1:3.0.7-24.el9"),
    "CVE-2026-2": ("openssl-libs", "3.9.9-1.el9"),  # of a lower epoch
    "CVE-2026-3": ("bind-libs", "32:9.16.23-11.el9"),
    "CVE-2026-4": ("bind-libs", "31:9.99-1.el9"),
    "CVE-2026-5": ("nodejs:18::nodejs", "1:18.18.2-2.module_el9"),
    "CVE-2026-6": ("nodejs:20::nodejs", "1:20.1-2.module_el9"),  # of another stream
    "CVE-2026-7": ("bash", "5.1.8-9.el9"),
}
FOUND = ["CVE-2026-1", "CVE-2026-3", "CVE-2026-5"]


def _scan(base: Path, files: dict[str, bytes], advisories: Path) -> EngineReport:
    made = Settings(home=base / "home")
    database.import_file(made, advisories)
    step = samples.Step("COPY . /", {**files, "var/lib/rpm/rpmdb.sqlite": RPM_DATABASE})
    samples.build_layout(samples.Sample("test/image:1", "", (step,), samples.SAMPLES[1].config), base / "image")
    with pipeline.local_services(made) as services:
        found = pipeline.run(ScanRequest(f"oci:{base / 'image'}"), services, lambda progress: None)
    return found.images[0].engines[0]


def _of_rocky(destination: Path) -> Path:
    listed = [Advisory(name, "rocky 9", of, Severity.HIGH, fixed=fixed) for name, (of, fixed) in FIXED.items()]
    return trivydb.build(listed, destination)


def _of_red_hat(destination: Path) -> Path:
    """Red Hat's advisories belong to products (CPEs), which the image's content sets select."""
    trivydb.build([], destination)
    tree: dict[bytes, Any] = {b"vulnerability": {}, b"data-source": {}, b"Red Hat": {}}
    for name, (of, fixed) in FIXED.items():
        entry = {"FixedVersion": fixed, "Cves": [{"ID": name, "Severity": 3}], "Affected": [1]}
        tree[b"Red Hat"].setdefault(of.encode(), {})[f"RHSA-{name}".encode()] = orjson.dumps({"Entries": [entry]})
        tree[b"vulnerability"][name.encode()] = orjson.dumps({"Title": "x", "Severity": "HIGH"})
    tree[b"debian 12"] = {b"x": {b"CVE-2026-1": b'{"FixedVersion":"1"}'}}  # an import looks up one advisory by its CVE
    sets = {b"rhel-9-for-x86_64-baseos-rpms": b"[1]", b"rhocp-4.10-for-rhel-8-x86_64-rpms": b"[2]"}
    tree[b"Red Hat CPE"] = {
        b"cpe": {b"1": b'"cpe:/o:redhat:enterprise_linux:9::baseos"', b"2": b'"cpe:/a:redhat:openshift:4.10::el8"'},
        b"repository": sets,
        b"nvr": {},
    }
    bolt.write(tree, destination / "db" / "trivy.db")
    return destination


@pytest.mark.parametrize("system", ["rocky", "red hat"])
def test_a_database_that_rpm_wrote(tmp_path: Path, system: str) -> None:
    """Epochs and modules count. A package of another vendor is not looked up, which is a gap if the distribution has
    advisories for it: an entry that only names another vendor would hide what is found in it.
    """
    files, build = {"rocky": (ROCKY, _of_rocky), "red hat": (RED_HAT, _of_red_hat)}[system]
    found = _scan(tmp_path, files, build(tmp_path / "advisories"))
    assert sorted(v.id for v in found.vulnerabilities) == FOUND
    assert len(found.components) == 5
    (gap,) = found.incomplete
    assert gap.reason == "package_unread"
    assert gap.detail.endswith("that have advisories: bash")  # and not docker-ce-cli


def test_content_sets_of_another_product_are_told(tmp_path: Path) -> None:
    """They make every package of the system look clean."""
    manifest = {"metadata": {}, "content_sets": ["rhocp-4.10-for-rhel-8-x86_64-rpms"]}
    build = {
        "root/buildinfo/content_manifests/ubi9-container-9.1.json": orjson.dumps(manifest),
        "root/buildinfo/Dockerfile-ubi9-9.1": b'LABEL com.redhat.component="ubi9-container" architecture="x86_64"\n',
    }
    found = _scan(tmp_path, RED_HAT | build, _of_red_hat(tmp_path / "advisories"))
    assert found.vulnerabilities == ()
    assert "release_disagrees" in {gap.reason for gap in found.incomplete}
