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
from scanner.model.finding import NO_SYSTEM, Component, Coverage, EngineReport, Severity
from scanner.model.scan import ImageReport, ScanReport, ScanRequest
from scanner.policy.rules import default_policy
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
    assert {gap.reason for gap in found.incomplete} <= {"release_disagrees", "unsupported_os", "program_unread"}


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
