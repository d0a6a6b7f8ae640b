"""An engine that took an image for another release than it is has compared it with the wrong advisories: real scans
by Trivy.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from scanner import catalog
from scanner.advisories import database, trivydb
from scanner.advisories.trivydb import Advisory
from scanner.config import Settings
from scanner.demo import samples
from scanner.demo.samples import File, Sample, Step, debian
from scanner.model.decision import Verdict
from scanner.model.filesystem import FileType
from scanner.model.finding import NO_SYSTEM, PROGRAM_UNREAD, Component, Coverage, EngineReport, Severity
from scanner.model.scan import ImageReport, ScanReport, ScanRequest
from scanner.policy.rules import default_policy
from scanner.registry.packages import installed_packages
from scanner.registry.rootfs import merge
from scanner.scanning import pipeline
from scanner.scanning.system import compare_system, listed_packages, without_system
from tests.reports_factory import engine
from tests.scanner.checks.factory import entry, layer

VULNERABLE = {"base-files": "12.4+deb12u8", "libssl3": "3.0.9-1", "libc6": "2.36-9+deb12u9"}
SOURCES = (
    *samples.ADVISORIES,
    Advisory("CVE-2026-11", "debian 11", "curl", Severity.LOW, fixed="1"),
    Advisory("CVE-2026-12", "ubuntu 22.04", "curl", Severity.LOW, fixed="1"),
    Advisory("CVE-2026-13", "alpine 3.20", "curl", Severity.LOW, fixed="1"),
    Advisory("CVE-2026-14", "alpine edge", "curl", Severity.LOW, fixed="1"),
    Advisory("CVE-2026-15", "wolfi", "curl", Severity.LOW, fixed="1"),
    Advisory("CVE-2026-17", "cargo::GitHub Security Advisory Rust", "serde_json", Severity.LOW, "x", "99", ("<99",)),
    Advisory("CVE-2026-16", "go::GitHub Security Advisory Go", "x", Severity.LOW, "x", "1", ("<1",)),
)
Files = Mapping[str, File | bytes]


@pytest.fixture(scope="module")
def advisories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trivydb.build(SOURCES, tmp_path_factory.mktemp("advisories"))


def scan(home: Path, advisories: Path, *layers: Files) -> ScanReport:
    made = Settings(home=home / "home")
    database.import_file(made, advisories)
    steps = [Step("COPY . /", files) for files in layers]
    samples.build_layout(Sample("test/image:1", "", steps, samples.SAMPLES[0].config), home / "image")
    with pipeline.local_services(made) as services:
        return pipeline.run(ScanRequest(f"oci:{home / 'image'}"), services, lambda progress: None)


def reasons(image: ImageReport) -> set[str]:
    return {gap.reason for gap in (*image.incomplete, *image.engines[0].incomplete)}


DEBIAN = debian(VULNERABLE).files
FORGED_11 = {"etc/os-release": b"ID=debian\nVERSION_ID=11\n", "etc/debian_version": b"11.9\n"}
FORGED = {
    "a name in debian_version": ({"etc/debian_version": b"kali-rolling\n"}, {"no_advisories", "release_disagrees"}),
    "a release that is not there": ({"etc/debian_version": b"15.0\n"}, {"no_advisories", "release_disagrees"}),
    "another release that is there": ({"etc/debian_version": b"11.9\n"}, {"release_disagrees"}),
    "both files": (FORGED_11, {"release_disagrees"}),
    "a distribution on top": (
        {
            "etc/os-release": b"ID=ubuntu\nVERSION_ID=22.04\n",
            "etc/lsb-release": b"DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=22.04\n",
        },
        {"release_disagrees"},
    ),
    "os-release deleted": ({"etc/.wh.os-release": b"", "etc/debian_version": b"11.9\n"}, {"release_disagrees"}),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_layer_that_says_another_release_decides_nothing(tmp_path: Path, advisories: Path, name: str) -> None:
    files, expected = FORGED[name]
    report = scan(tmp_path, advisories, DEBIAN, files)
    assert expected <= reasons(report.images[0]), report.images[0].engines[0].incomplete
    assert pipeline.decide(report, default_policy(catalog.known_names())).verdict is Verdict.DENY


def apk(*packages: str) -> bytes:
    return "".join(f"P:{name}\nV:1.0-r0\nA:x86_64\no:{name}\n\n" for name in packages).encode()


HONEST: dict[str, tuple[Files, set[str]]] = {
    "debian 12": (DEBIAN, set()),
    "os-release behind the usual link": (
        {**{k: v for k, v in DEBIAN.items() if k != "etc/os-release"}, "usr/lib/os-release": DEBIAN["etc/os-release"]},
        set(),
    ),
    "kali": (
        {
            **DEBIAN,
            "etc/debian_version": b"kali-rolling\n",
            "etc/os-release": b"ID=kali\nVERSION_ID=2024.3\nID_LIKE=debian\n",
        },
        {"no_advisories", "release_disagrees"},
    ),
    "mint": (
        {
            **DEBIAN,
            "etc/debian_version": b"bookworm/sid\n",
            "etc/os-release": b'ID=linuxmint\nVERSION_ID="21.3"\nID_LIKE="ubuntu debian"\n',
            "etc/lsb-release": b"DISTRIB_ID=LinuxMint\nDISTRIB_RELEASE=21.3\n",
        },
        {"no_advisories", "release_disagrees"},
    ),
    "testing": (
        {**DEBIAN, "etc/debian_version": b"trixie/sid\n", "etc/os-release": b"ID=debian\nVERSION_CODENAME=trixie\n"},
        {"no_advisories", "release_disagrees"},
    ),
    "ubuntu that only os-release tells": (
        {
            **DEBIAN,
            "etc/debian_version": b"trixie/sid\n",
            "etc/os-release": b"ID=ubuntu\nVERSION_ID=24.04\nID_LIKE=debian\n",
        },
        {"no_advisories", "release_disagrees"},
    ),
    "ubuntu": (
        {
            **debian({"base-files": "12ubuntu4.7", "libc6": "2.35"}).files,
            "etc/debian_version": b"bookworm/sid\n",
            "etc/os-release": b'ID=ubuntu\nVERSION_ID="22.04"\nID_LIKE=debian\n',
            "etc/lsb-release": b"DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=22.04\nDISTRIB_CODENAME=jammy\n",
        },
        set(),
    ),
    "alpine": (
        {
            "etc/alpine-release": b"3.20.3\n",
            "etc/os-release": b"ID=alpine\nVERSION_ID=3.20.3\n",
            "lib/apk/db/installed": apk("musl"),
            "etc/apk/repositories": b"https://dl-cdn.alpinelinux.org/alpine/v3.20/main\n",
        },
        set(),
    ),
    "alpine with packages of edge": (
        {
            "etc/alpine-release": b"3.20.3\n",
            "etc/os-release": b"ID=alpine\nVERSION_ID=3.20.3\n",
            "lib/apk/db/installed": apk("musl"),
            "etc/apk/repositories": b"https://x.example/alpine/v3.20/main\nhttps://x.example/alpine/edge/testing\n",
        },
        {"release_disagrees"},
    ),
    "alpine whose branch is none": (
        {
            "etc/alpine-release": b"3.20.3\n",
            "etc/os-release": b"ID=alpine\nVERSION_ID=3.20.3\n",
            "lib/apk/db/installed": apk("musl"),
            "etc/apk/repositories": b"# http://x/alpine/v3.99/main\n",
        },
        {"release_disagrees"},
    ),
    "alpine edge": (
        {
            "etc/alpine-release": b"3.23.0_alpha20250108\n",
            "etc/os-release": b"ID=alpine\nVERSION_ID=3.23.0_alpha20250108\n",
            "lib/apk/db/installed": apk("musl"),
            "etc/apk/repositories": b"https://x.example/alpine/edge/main\n",
        },
        set(),
    ),
    "newer than the database": (
        {
            "etc/alpine-release": b"3.24.0\n",
            "etc/os-release": b"ID=alpine\nVERSION_ID=3.24.0\n",
            "lib/apk/db/installed": apk("musl"),
        },
        {"no_advisories"},
    ),
    "wolfi": ({"etc/os-release": b"ID=wolfi\nVERSION_ID=20230201\n", "lib/apk/db/installed": apk("musl")}, set()),
    "chainguard, of which there is nothing": (
        {"etc/os-release": b"ID=chainguard\nVERSION_ID=20230214\n", "lib/apk/db/installed": apk("musl")},
        {"no_advisories"},
    ),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_image_is_compared_or_told_why_not(tmp_path: Path, advisories: Path, name: str) -> None:
    files, expected = HONEST[name]
    image = scan(tmp_path, advisories, files).images[0]
    assert image.engines[0].coverage.os_family
    # Some of these releases are past their end of life by now, which is another matter.
    assert reasons(image) - {"unsupported_os"} == expected, image.engines[0].incomplete


def test_a_link_to_os_release_is_followed() -> None:
    link = entry("etc/os-release", kind=FileType.SYMLINK, link="../usr/lib/os-release")
    rootfs = merge([layer(link, contents={"usr/lib/os-release": b"ID=debian\nVERSION_ID=12\n"})])
    curl = Component("pkg:deb/debian/curl@1", "curl", "1", "debian")
    assert compare_system(answer("debian", "12.8", curl), rootfs).incomplete == ()
    assert compare_system(answer("debian", "11.9", curl), rootfs).incomplete


def answer(family: str, version: str, *packages: Component) -> EngineReport:
    return replace(engine([]), components=packages, coverage=Coverage(family, version, True, len(packages)))


def test_an_upgrade_of_the_distribution_is_no_forgery() -> None:
    """Both layers change the release; only one of them changes the packages with it."""
    old, new = (
        {"etc/os-release": b"ID=alpine\nVERSION_ID=3.13.1\n"},
        {"etc/os-release": b"ID=alpine\nVERSION_ID=3.14.2\n"},
    )
    base = layer(contents={**old, "lib/apk/db/installed": b"P:musl\n"})
    musl = Component("pkg:apk/alpine/musl@1", "musl", "1", "alpine")
    for above, expected in ((new, ["release_disagrees"]), ({**new, "lib/apk/db/installed": b"P:musl\n"}, [])):
        found = compare_system(answer("alpine", "3.14.2", musl), merge([base, layer(contents=above)]))
        assert [gap.reason for gap in found.incomplete] == expected


@pytest.mark.parametrize("branch", ["latest-stable", "9" * 5000, "3.x", "3.21", "v", "3.20.1"])
def test_a_branch_that_is_not_the_images_own_is_told(branch: str) -> None:
    contents = {
        "etc/os-release": b"ID=alpine\nVERSION_ID=3.20.3\n",
        "etc/apk/repositories": f"http://x/alpine/{branch}/main".encode(),
    }
    musl = Component("pkg:apk/alpine/musl@1", "musl", "1", "alpine")
    found = compare_system(answer("alpine", "3.20.3", musl), merge([layer(contents=contents)]))
    assert [gap.reason for gap in found.incomplete] == ["release_disagrees"]


texts = st.binary(max_size=60) | st.text(
    st.sampled_from(list("ID=VERSION_\n\"'ubuntdeia1230.:/alpinehttps pkgP")), max_size=60
).map(str.encode)


@examples(max_examples=200, deadline=None)
@given(
    contents=st.dictionaries(
        st.sampled_from(
            [
                "etc/os-release",
                "usr/lib/os-release",
                "etc/apk/repositories",
                "lib/apk/db/installed",
                "var/lib/dpkg/status",
            ]
        ),
        texts,
    ),
    family=st.sampled_from(["debian", "ubuntu", "alpine", "rocky", "amazon", "wolfi", "sles", "x", ""])
    | st.text(max_size=6),
    version=st.text(max_size=8) | st.sampled_from(["12.8", "22.04-ESM", "edge", "kali-rolling", "2 (Karoo)"]),
    package=st.sampled_from(["base-files", "alpine-release", "rocky-release", "curl"]),
    number=st.text(max_size=8),
)
def test_whatever_the_files_hold_an_answer_is_judged(
    contents: dict[str, bytes], family: str, version: str, package: str, number: str
) -> None:
    rootfs = merge([layer(contents=contents), layer(contents=dict(list(contents.items())[:1]), seed="2")])
    item = Component(f"pkg:generic/{package}", package, number, family)
    found = without_system(compare_system(answer(family, version, item), rootfs), rootfs)
    assert listed_packages(rootfs) >= 0
    told = {"release_disagrees", "unsupported_os", "program_unread", "package_unread"}
    assert {gap.reason for gap in found.incomplete} <= told


def program(path: str = "server", mode: int = 0o755, name: str = "gobinary") -> Component:
    return Component("pkg:golang/stdlib@1.22.0", "stdlib", "1.22.0", name, path=path)


def bare(*packages: Component) -> EngineReport:
    return replace(engine([]), components=packages, coverage=Coverage(packages=len(packages)), incomplete=(NO_SYSTEM,))


@pytest.mark.parametrize(
    ("files", "unread"),
    [
        ([entry("server", mode=0o755)], ""),
        ([entry("server", mode=0o755), entry("etc/ssl/certs/ca.crt")], ""),
        ([entry("server", mode=0o755), entry("packed", mode=0o755)], "packed"),
        ([entry("server", mode=0o755), entry("run.sh", mode=0o555)], "run.sh"),
        ([entry("server", mode=0o755), entry("lib/libc.so.6")], "lib/libc.so.6"),
        ([entry("server", mode=0o755), entry("bin/sh")], "bin/sh"),
    ],
)
def test_a_program_that_nobody_could_read_keeps_a_static_image_undecided(files: list[object], unread: str) -> None:
    found = without_system(bare(program()), merge([layer(*files)]))  # type: ignore[arg-type]
    if unread:
        assert NO_SYSTEM in found.incomplete
        assert unread in found.incomplete[-1].detail
    else:
        assert (found.incomplete, found.coverage.os_family) == ((), "none")


SYSTEM = {"etc/os-release": b"ID=debian\nVERSION_ID=12\n"}


def test_a_distribution_without_its_packages_is_undecided(tmp_path: Path, advisories: Path) -> None:
    """``COPY --from=debian / /`` without the package database: the packages of a language do not stand for them."""
    files: Files = {
        **SYSTEM,
        "etc/debian_version": b"12.8\n",
        "usr/lib/x86_64-linux-gnu/libssl.so.3": b"\x7fELF vulnerable",
        "app/target/debug/Cargo.lock": b'[[package]]\nname = "serde_json"\nversion = "100.0.0"\n',
    }
    report = scan(tmp_path, advisories, files)
    (engine,) = report.images[0].engines
    assert (engine.coverage.os_family, engine.coverage.packages) == ("debian", 1)
    assert reasons(report.images[0]) == {"program_unread"}
    assert "libssl.so.3" in engine.incomplete[-1].detail
    assert pipeline.decide(report, default_policy(catalog.known_names())).verdict is Verdict.DENY


def test_a_distribution_whose_programs_were_all_read_needs_no_packages() -> None:
    rootfs = merge([layer(entry("server", mode=0o755), contents=SYSTEM)])
    assert compare_system(answer("debian", "12.8", program()), rootfs).incomplete == ()


@pytest.mark.parametrize("there", ["etc/os-release", "lib/apk/db/installed", "var/lib/dpkg/status.d/base"])
def test_what_is_left_of_a_distribution_is_no_static_image(there: str) -> None:
    rootfs = merge([layer(entry("server", mode=0o755), contents={there: b"ID=alpine\n"})])
    assert NO_SYSTEM in without_system(bare(program()), rootfs).incomplete


GO_PROGRAM = shutil.which("docker-registry") or shutil.which("registry") or ""


@pytest.mark.skipif(not GO_PROGRAM, reason="no program of Go to put into an image: apt-get install docker-registry")
def test_a_static_image_is_decided_by_its_languages(tmp_path: Path, advisories: Path) -> None:
    server = File(Path(GO_PROGRAM).read_bytes(), 0o755)
    alone = scan(tmp_path / "1", advisories, {"server": server}).images[0]
    assert (reasons(alone), alone.engines[0].coverage.os_family) == (set(), "none")
    beside = scan(tmp_path / "2", advisories, {"server": server, "helper": File(Path("/bin/true").read_bytes(), 0o755)})
    assert reasons(beside.images[0]) == {"unsupported_os", "program_unread"}
    assert "helper" in str(beside.images[0].engines[0].incomplete)


def test_too_many_packages_are_refused_before_an_engine_runs(tmp_path: Path, advisories: Path) -> None:
    made = Settings(home=tmp_path / "home")
    made = replace(made, limits=replace(made.limits, packages=20))
    database.import_file(made, advisories)
    many = debian({f"package{n}": "1" for n in range(21)}).files
    samples.build_layout(Sample("test/image:1", "", [Step("COPY . /", many)], {}), tmp_path / "image")
    with pipeline.local_services(made) as services:
        found = pipeline.run(ScanRequest(f"oci:{tmp_path / 'image'}"), services, lambda progress: None)
    (said,) = found.images[0].engines
    assert [gap.reason for gap in said.incomplete][:1] == ["limit_exceeded"]
    assert "limit_packages" in said.incomplete[0].detail
    assert pipeline.decide(found, default_policy(catalog.known_names())).verdict is Verdict.DENY


@pytest.mark.parametrize(
    "contents",
    [
        {"var/lib/dpkg/status": b"".join(b"package: p%d\nVersion: 1\n\n" % n for n in range(100))},
        {f"var/lib/dpkg/status.d/p{n}": b"Package: p\n" for n in range(100)},
        {"usr/lib/apk/db/installed": b"P:x\nV:1\n\n" * 100},
        {f"app/node_modules/p{n}/package.json": b"{}" for n in range(100)},
    ],
)
def test_packages_are_counted_however_they_are_listed(contents: dict[str, bytes]) -> None:
    assert listed_packages(merge([layer(contents=contents)])) == 100


def test_a_database_too_large_to_be_kept_is_counted_by_its_size() -> None:
    assert listed_packages(merge([layer(entry("var/lib/dpkg/status", size=50_000_000))])) > 100_000


PROGRAMS = Path(__file__).parents[2] / "data/programs"  # of cargo-auditable and UPX: see `build` there


def real_program(name: str) -> dict[str, File | bytes]:
    return {name: File((PROGRAMS / name).read_bytes(), 0o755)}


def test_a_rust_program_that_names_its_packages_is_decided_without_a_system(tmp_path: Path, advisories: Path) -> None:
    (image,) = scan(tmp_path, advisories, real_program("audited")).images
    assert (image.engines[0].coverage.os_family, reasons(image)) == ("none", set())
    assert [found.id for found in image.engines[0].vulnerabilities] == ["CVE-2026-17"]


@pytest.mark.parametrize("beside", [{}, real_program("audited")], ids=["alone", "beside one that is read"])
def test_a_packed_program_is_never_clean(tmp_path: Path, advisories: Path, beside: Files) -> None:
    """The same program, packed with UPX: no engine reads the packages in it."""
    found = scan(tmp_path, advisories, {**beside, **real_program("audited-packed")})
    assert reasons(found.images[0]) & {"nothing_to_scan", "program_unread"}
    assert pipeline.decide(found, default_policy(catalog.known_names())).undecided


SBOM = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "version": 1,
    "components": [
        {
            "bom-ref": "a",
            "type": "application",
            "name": "audited-packed",
            "properties": [{"name": "aquasecurity:trivy:Type", "value": "rustbinary"}],
        },
        {
            "bom-ref": "b",
            "type": "library",
            "name": "serde_json",
            "version": "100.0.0",
            "purl": "pkg:cargo/serde_json@100.0.0",
            "properties": [{"name": "aquasecurity:trivy:FilePath", "value": "audited-packed"}],
        },
    ],
    "dependencies": [{"ref": "a", "dependsOn": ["b"]}],
}


def test_an_sbom_in_the_image_reads_no_program(tmp_path: Path, advisories: Path) -> None:
    """Trivy lists its packages with the path that the SBOM names, as if it had read them there."""
    found = scan(tmp_path, advisories, {**real_program("audited-packed"), "x.cdx.json": json.dumps(SBOM).encode()})
    (engine,) = found.images[0].engines
    assert [(c.path, c.stated) for c in engine.components] == [("audited-packed", True)]
    assert PROGRAM_UNREAD in reasons(found.images[0])
    assert pipeline.decide(found, default_policy(catalog.known_names())).undecided


def test_a_program_that_replaces_one_that_was_read_is_unread(tmp_path: Path, advisories: Path) -> None:
    """Trivy keeps the packages of the file below."""
    replaced = {"audited": real_program("audited-packed")["audited-packed"]}
    found = scan(tmp_path, advisories, real_program("audited"), replaced)
    assert PROGRAM_UNREAD in reasons(found.images[0])
    assert pipeline.decide(found, default_policy(catalog.known_names())).undecided


def test_a_hard_link_has_the_content_of_its_layer() -> None:
    """The name that it links to is a program that was read, but only since the next layer."""
    link = entry("packed", mode=0o755, kind=FileType.HARDLINK, link="server")
    below, above = layer(entry("server", mode=0o755), link), layer(entry("server", mode=0o755), seed="2")
    both = merge([below, above])
    assert NO_SYSTEM not in without_system(bare(replace(program(), layer=below.diff_id)), merge([below])).incomplete
    found = without_system(bare(replace(program(), layer=above.diff_id)), both)
    assert [gap.reason for gap in found.incomplete] == ["unsupported_os", PROGRAM_UNREAD]


@pytest.mark.parametrize("kind", ["jar", "npm", "python-pkg"])
def test_a_program_that_is_an_archive_as_well_is_unread(kind: str) -> None:
    rootfs = merge([layer(entry("server", mode=0o755))])
    assert NO_SYSTEM in without_system(bare(program(name=kind)), rootfs).incomplete


STATUS = "Package: %s\nStatus: %s\nVersion: 1\n\n"
UNREAD = {
    "to be removed": {"var/lib/dpkg/status": STATUS % ("libssl3", "deinstall ok installed")},
    "to be purged": {"var/lib/dpkg/status": STATUS % ("libssl3", "purge ok half-installed")},
    "without a version": {"var/lib/dpkg/status": "Package: libssl3\nStatus: install ok installed\n"},
    "other spelling": {"var/lib/dpkg/status": "PACKAGE :\tlibssl3 \r\nSTATUS:install ok installed\n"},
    "in a line that looks empty": {
        "var/lib/dpkg/status": STATUS % ("a", "x ok config-files") + " \nPackage: libssl3\n"
    },
    "part of distroless": {"var/lib/dpkg/status.d/libssl3": "Package: libssl3\n"},
    "part with the name of another file": {"var/lib/dpkg/status.d/ssl.md5sums": "Package: libssl3\nVersion: 1\n"},
    "apk without a version": {"lib/apk/db/installed": "P:libssl3\nA:x86_64\n"},
    "second database of apk": {"lib/apk/db/installed": "P:curl\n", "usr/lib/apk/db/installed": "P:libssl3\n"},
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_listed_package_that_an_engine_skips_is_a_gap(name: str) -> None:
    rootfs = merge([layer(contents={**SYSTEM, **{path: text.encode() for path, text in UNREAD[name].items()}})])
    listed = [Component(f"pkg:deb/debian/{n}@1", n, "1", "debian") for n in ("curl", *(f"p{i}" for i in range(99)))]
    others = [Component("pkg:npm/libssl3@1", "libssl3", "1", "npm", path="libssl3/package.json")]
    (gap,) = compare_system(answer("debian", "12.8", *listed, *others), rootfs).incomplete
    assert (gap.reason, gap.detail[-7:]) == ("package_unread", "libssl3")


def test_megabytes_of_spaces_in_a_package_database_take_no_time() -> None:
    """A pattern that takes quadratic time for them would not end."""
    long = b" " * (8 << 20)
    status, installed = b"Package: libssl3" + long + b"\n", b"P:zlib" + long + b"\nP:a" + long + b"b\n"
    rootfs = merge([layer(contents={"var/lib/dpkg/status": status, "lib/apk/db/installed": installed})])
    assert {name[:8] for name in installed_packages(rootfs)} == {"libssl3", "zlib", "a       "}


@pytest.mark.parametrize("state", ["deinstall ok config-files", "purge ok not-installed"])
def test_a_package_that_was_removed_need_not_be_looked_up(state: str) -> None:
    status = (STATUS % ("curl", "hold ok installed") + STATUS % ("libssl3", state)).encode()
    rootfs = merge([layer(contents={**SYSTEM, "var/lib/dpkg/status": status})])
    curl = Component("pkg:deb/debian/curl@1", "curl", "1", "debian")
    assert compare_system(answer("debian", "12.8", curl), rootfs).incomplete == ()


@pytest.mark.parametrize(
    "path",
    [
        "opt/conda/conda-meta/openssl-3.0.9-0.json",
        "nix/store/0abc-openssl-3.0.9/bin/openssl",
        "home/linuxbrew/.linuxbrew/Cellar/openssl/3.0.9/bin/openssl",
        "var/lib/pacman/local/openssl-3.0.9-1/desc",
        "app/.pnp.cjs",
    ],
)
def test_packages_of_another_package_manager_are_unknown(path: str) -> None:
    """No engine reads these; the advisories of the distribution say nothing about them."""
    curl = Component("pkg:deb/debian/curl@1", "curl", "1", "debian")
    found = compare_system(answer("debian", "12.8", curl), merge([layer(entry(path), contents=SYSTEM)]))
    assert [gap.reason for gap in found.incomplete] == ["package_unread"]


def test_an_empty_directory_of_a_package_manager_hides_no_other_one() -> None:
    empty = entry("usr/lib/opkg", kind=FileType.DIRECTORY)
    curl = Component("pkg:deb/debian/curl@1", "curl", "1", "debian")
    rootfs = merge([layer(entry("var/lib/opkg/info/openssl.control"), empty, contents=SYSTEM)])
    (gap,) = compare_system(answer("debian", "12.8", curl), rootfs).incomplete
    assert gap.detail.startswith("var/lib/opkg has packages of opkg")
    rootfs = merge([layer(empty, contents=SYSTEM)])
    assert compare_system(answer("debian", "12.8", curl), rootfs).incomplete == ()


@pytest.mark.parametrize(
    ("path", "size", "gaps"),
    [
        ("var/lib/rpm/rpmdb.sqlite-wal", 4096, ["package_unread"]),
        ("usr/lib/sysimage/rpm/rpmdb.sqlite-journal", 512, ["package_unread"]),
        ("var/lib/dpkg/updates/0001", 90, ["package_unread"]),
        ("var/lib/rpm/rpmdb.sqlite-wal", 0, []),
        ("var/lib/dpkg/updates/tmp.i", 0, []),
    ],
)
def test_changes_that_were_not_written_to_the_database_are_unknown(path: str, size: int, gaps: list[str]) -> None:
    """rpm and dpkg would apply them first. Fedora's images have an empty log."""
    curl = Component("pkg:deb/debian/curl@1", "curl", "1", "debian")
    found = compare_system(answer("debian", "12.8", curl), merge([layer(entry(path, size=size), contents=SYSTEM)]))
    assert [gap.reason for gap in found.incomplete] == gaps


def test_packages_of_languages_do_not_make_up_for_those_of_rpm() -> None:
    database = "var/lib/rpm/rpmdb.sqlite"
    facts = layer(contents={"etc/os-release": b"ID=rocky\nVERSION_ID=9.4\n", database: b""})
    rootfs = merge([replace(facts, rpm_packages={database: 20})])
    listed = [Component(f"pkg:rpm/rocky/p{n}@1", f"p{n}", "1", "rocky") for n in range(20)]
    others = [Component(f"pkg:npm/p{n}@1", f"p{n}", "1", "npm", path="p/package.json") for n in range(20)]
    assert compare_system(answer("rocky", "9.4", *listed), rootfs).incomplete == ()
    (gap,) = compare_system(answer("rocky", "9.4", *listed[:9], *others), rootfs).incomplete
    assert gap.reason == "package_unread"


NO_PACKAGES = ["nix/store", "var/db/pkg", "opt/conda/conda-meta/history", "app/node_modules/x/test/.pnp.cjs"]


@pytest.mark.parametrize("path", NO_PACKAGES)
def test_a_place_for_packages_without_any_is_no_gap(path: str) -> None:
    curl = Component("pkg:deb/debian/curl@1", "curl", "1", "debian")
    kind = FileType.FILE if path.endswith(("history", ".cjs")) else FileType.DIRECTORY
    assert (
        compare_system(
            answer("debian", "12.8", curl), merge([layer(entry(path, kind=kind), contents=SYSTEM)])
        ).incomplete
        == ()
    )


@pytest.mark.parametrize("content", [b"", b'{"curated": true, "os": "debian", "os_version": "12"}'])
def test_a_file_that_names_a_vendor_of_advisories_changes_none(
    tmp_path: Path, advisories: Path, content: bytes
) -> None:
    """Trivy looks an image with this file up in RapidFort's advisories: without them, it found nothing in Debian."""
    image = scan(tmp_path, advisories, DEBIAN, {"usr/share/rapidfort/curated.json": content}).images[0]
    assert [found.id for found in image.engines[0].vulnerabilities] == ["CVE-2026-90001"]


BASEOS, OTHER = "rhel-9-for-x86_64-baseos-rpms", "rhel-9-for-x86_64-highavailability-rpms"
MANIFEST = "root/buildinfo/content_manifests/a-1-1.json"


def sets(*names: str, member: str = "content_sets") -> bytes:
    return json.dumps({"metadata": {}, member: names, "image_contents": []}).encode()


def red_hat(*above: Mapping[str, bytes], family: str = "redhat", version: str = "9.4") -> EngineReport:
    own = "rhel" if family == "redhat" else family
    base = layer(contents={"etc/os-release": f'ID="{own}"\nVERSION_ID="{version}"\n'.encode()})
    openssl = Component("pkg:rpm/redhat/openssl@1", "openssl", "1", family)
    return compare_system(answer(family, version, openssl), merge([base, *(layer(contents=files) for files in above)]))


@pytest.mark.parametrize(
    "files",
    [
        {MANIFEST: sets(OTHER)},
        {MANIFEST: sets("ubi-9-baseos-rpms", OTHER)},
        {MANIFEST: sets("rhel-9-for-x86_64-baseos-eus-rpms__9_DOT_4")},
        {MANIFEST: sets("ubi-9-for-x86_64-appstream-rpms")},
        {MANIFEST: sets("rhel-8-for-x86_64-baseos-rpms")},
        {MANIFEST: sets(OTHER, member="Content_Sets")},
        {MANIFEST: sets(BASEOS)[:-1] + b', "CONTENT_SETS": ["x"]}'},
        {MANIFEST: b"no JSON"},
        {"usr/share/buildinfo/content-sets.json": sets(OTHER)},
        {MANIFEST: sets(BASEOS), "usr/share/buildinfo/content-sets.json": sets(OTHER)},
        {"root/buildinfo/Dockerfile-x-1-1": b"LABEL com.redhat.component=x"},
        {"usr/share/buildinfo/labels.json": b"{}"},
    ],
)
def test_build_information_of_another_product_decides_nothing(files: Mapping[str, bytes]) -> None:
    assert [gap.reason for gap in red_hat(files).incomplete] == ["release_disagrees"]
    assert [gap.reason for gap in red_hat({MANIFEST: sets(BASEOS)}, files).incomplete] == ["release_disagrees"]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {MANIFEST: sets(BASEOS)},
        {MANIFEST: sets("ubi-9-for-aarch64-appstream-rpms", "ubi-9-for-aarch64-baseos-rpms")},
        {MANIFEST: sets(OTHER, BASEOS), "root/buildinfo/Dockerfile-x-1-1": b""},
        {MANIFEST: sets()},
        {"usr/share/buildinfo/content-sets.json": sets(BASEOS), "usr/share/buildinfo/labels.json": b"{}"},
        {"opt/app/content_manifests/x.json": sets(OTHER)},
    ],
)
def test_build_information_of_the_system_is_no_gap(files: Mapping[str, bytes]) -> None:
    assert red_hat(files).incomplete == ()
    assert red_hat({MANIFEST: sets(OTHER)}, family="rocky").incomplete == (), "of other systems nobody reads it"


@pytest.mark.parametrize("name", ["rhel-7-server-rpms", "rhel-7-for-power-le-rpms", "rhel-7-for-system-z-rpms"])
def test_build_information_of_red_hat_7_by_architecture(name: str) -> None:
    assert red_hat({MANIFEST: sets(name)}, version="7.9").incomplete == ()
    assert [gap.reason for gap in red_hat({MANIFEST: sets(name)}).incomplete] == ["release_disagrees"]


SITE = "usr/local/lib/python3.11/site-packages"
RECORDS = {
    "app/node_modules/bom/package.json": b'\xef\xbb\xbf{"name": "bom", "version": "1.0.0"}',
    "app/node_modules/list/package.json": b'{"name": "list", "version": "1.0.0", "dependencies": []}',
    f"{SITE}/broken-1.0.dist-info/METADATA": b" \nName: broken\nVersion: 1.0\n",
    "app/vendor/composer/installed.json": b'[{"name": "a/b", "version": "1.0"}]',
    "opt/owned-1.0.dist-info/METADATA": b"Name: owned\nVersion: 1.0\n",
}
READ = {
    "app/node_modules/good/package.json": b'{"name": "good", "version": "1.0.0"}',
    "app/node_modules/good/test/broken/package.json": b"{",
    "app/node_modules/good/lib/package.json": b'{"type": "module"}',
    f"{SITE}/good-1.0.dist-info/METADATA": b"Name: good\nVersion: 1.0\n",
    "usr/local/bundle/specifications/good-1.0.gemspec": b'Gem::Specification.new do |s|\n  s.name = "good"\n'
    b'  s.version = "1.0"\nend\n',
}


def test_a_package_of_a_language_that_trivy_skips_is_a_gap(tmp_path: Path, advisories: Path) -> None:
    """Each of them is a package to its runtime, but not to Trivy, which says nothing."""
    sums = {"var/lib/dpkg/info/base-files.md5sums": b"%s  opt/owned-1.0.dist-info/METADATA\n" % (b"0" * 32)}
    (image,) = scan(tmp_path / "bad", advisories, DEBIAN | RECORDS | READ | sums).images
    (gap,) = [gap for gap in image.engines[0].incomplete if gap.reason == "package_unread"]
    assert gap.detail.startswith("the engine did not look up 5 packages that files of the image record: app/node_")
    (image,) = scan(tmp_path / "good", advisories, DEBIAN | READ, READ).images
    assert reasons(image) <= {"no_advisories"}
