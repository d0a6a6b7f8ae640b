"""An engine's release and the image's own must be the same one, by whatever name each of them calls it."""

from __future__ import annotations

import pytest

from scanner.model.finding import Component
from scanner.model.release import Release, disagreement, foreign_packages, release_number


def component(name: str, version: str, kind: str) -> Component:
    return Component(f"pkg:generic/{name}@{version}", name, version, kind)


@pytest.mark.parametrize(
    ("family", "version", "told"),
    [
        ("debian", "12.8", Release("debian", "12")),
        ("debian", "12.8", Release("raspbian", "12", ("debian",))),
        ("ubuntu", "22.04", Release("ubuntu", "22.04", ("debian",))),
        ("ubuntu", "22.04-ESM", Release("ubuntu", "22.04", ("debian",))),
        ("alpine", "3.20.3", Release("alpine", "3.20.3")),
        ("alpine", "3.20", Release("alpine", "3.20.3")),
        ("alpine", "3.23.0_alpha20250108", Release("alpine", "3.23.0_alpha20250108")),
        ("alpine", "edge", Release("alpine", "3.23.0_alpha20250108")),
        ("rocky", "9.4", Release("rocky", "9.4", ("rhel", "centos", "fedora"))),
        ("alma", "9.4", Release("almalinux", "9.4", ("rhel", "centos", "fedora"))),
        ("oracle", "9.4", Release("ol", "9.4", ("fedora",))),
        ("redhat", "9.4", Release("rhel", "9.4", ("fedora",))),
        ("rhel", "9", Release("rhel", "9.4", ("fedora",))),
        ("centos", "9", Release("centos", "9", ("rhel", "fedora"))),
        ("amazon", "2 (Karoo)", Release("amzn", "2", ("centos", "rhel", "fedora"))),
        ("amazon", "2023.6.20241212 (Amazon Linux)", Release("amzn", "2023", ("fedora",))),
        ("amazon", "AMI release 2018.03", Release("amzn", "2018.03", ("rhel", "fedora"))),
        ("sles", "15.5", Release("sles", "15.5", ("suse",))),
        ("sles", "15", Release("sles", "15", ("suse",))),
        ("suse linux enterprise server", "15.5", Release("sles", "15.5", ("suse",))),
        ("slem", "5.5", Release("sle-micro", "5.5", ("suse",))),
        ("opensuse-leap", "15.6", Release("opensuse-leap", "15.6", ("suse", "opensuse"))),
        ("opensuse-tumbleweed", "20241101", Release("opensuse-tumbleweed", "20241102", ("opensuse", "suse"))),
        ("photon", "5.0", Release("photon", "5.0")),
        ("cbl-mariner", "2.0.20240112", Release("mariner", "2.0")),
        ("azurelinux", "3.0.20240824", Release("azurelinux", "3.0")),
        ("wolfi", "20230201", Release("wolfi", "20230201")),
        ("chainguard", "20230214", Release("chainguard", "20230214")),
    ],
)
def test_a_release_is_known_by_either_name(family: str, version: str, told: Release) -> None:
    assert disagreement(family, version, told) == ""


@pytest.mark.parametrize(
    ("family", "version", "told"),
    [
        ("debian", "kali-rolling", Release("debian", "12")),
        ("debian", "kali-rolling", Release("kali", "2024.3", ("debian",))),
        ("debian", "15.0", Release("debian", "12")),
        ("debian", "11.9", Release("debian", "12")),
        ("debian", "12.8", Release("debian")),
        ("debian", "12.8", Release()),
        ("debian", "trixie/sid", Release("debian")),
        ("debian", "trixie/sid", Release("ubuntu", "24.04", ("debian",))),
        ("debian", "bookworm/sid", Release("linuxmint", "21.3", ("ubuntu", "debian"))),
        ("debian", "12.8", Release("devuan", "5", ("debian",))),
        ("debian", "12.8", Release("alpine", "3.20.3")),
        ("ubuntu", "bookworm/sid", Release("ubuntu", "22.04", ("debian",))),
        ("ubuntu", "22.04", Release("ubuntu", "24.04", ("debian",))),
        ("ubuntu", "22", Release("ubuntu", "22.04", ("debian",))),
        ("alpine", "3.20.3", Release("alpine", "3.19.1")),
        ("alpine", "3.20.3", Release("alpine", "3.23.0_alpha20250108")),
        ("rocky", "9.4", Release("almalinux", "9.4", ("rhel", "centos", "fedora"))),
        ("rocky", "8.10", Release("rocky", "9.4", ("rhel",))),
        ("amazon", "2 (Karoo)", Release("amzn", "2023", ("fedora",))),
        ("wolfi", "20230201", Release("chainguard", "20230214")),
        ("photon", "4", Release("photon", "5.0")),
    ],
)
def test_another_release_is_none_to_be_compared_with(family: str, version: str, told: Release) -> None:
    assert "os-release" in disagreement(family, version, told)


@pytest.mark.parametrize(
    ("family", "version", "package"),
    [
        ("debian", "12.8", ("base-files", "12.4+deb12u8", "debian")),
        ("ubuntu", "24.04", ("base-files", "13ubuntu10.1", "ubuntu")),
        ("ubuntu", "25.10", ("base-files", "13.8ubuntu4", "ubuntu")),
        ("alpine", "3.20.3", ("alpine-release", "3.20.3-r0", "alpine")),
        ("rocky", "9.4", ("rocky-release", "9.4-1.7.el9", "rocky")),
        ("oracle", "8.10", ("oraclelinux-release", "8:8.10-1.0.6.el8", "oracle")),
        ("amazon", "2023.6.20241212 (Amazon Linux)", ("system-release", "2023.6.20241212-0.amzn2023", "amazon")),
        ("amazon", "2 (Karoo)", ("system-release", "1:2-16.amzn2", "amazon")),
        ("photon", "5.0", ("photon-release", "5.0-3.ph5", "photon")),
        ("echo", "1", ("base-files", "12.4+deb12u8", "echo")),
        ("alpine", "3.23.0_alpha20250108", ("alpine-release", "3.23.0_alpha20250108-r0", "alpine")),
        ("opensuse-tumbleweed", "20241101", ("openSUSE-release", "20241101-1", "opensuse-tumbleweed")),
        ("debian", "12.8", ("alpine-release", "3.20.3-r0", "npm")),
        ("alpine", "3.20.3", ("alpine-baselayout", "3.6.5-r0", "alpine")),
        ("chainguard", "20230214", ("wolfi-baselayout", "20230201-r15", "chainguard")),
    ],
)
def test_the_package_that_brings_the_release_files_agrees(
    family: str, version: str, package: tuple[str, str, str]
) -> None:
    assert foreign_packages(family, version, [component("zlib", "1.3", family), component(*package)]) == ""


@pytest.mark.parametrize(
    ("family", "version", "package"),
    [
        ("debian", "11.9", ("base-files", "12.4+deb12u8", "debian")),
        ("debian", "13.1", ("base-files", "12.4+deb12u8", "debian")),
        ("debian", "12.8", ("base-files", "12ubuntu4.7", "debian")),
        ("ubuntu", "22.04", ("base-files", "12.4+deb12u8", "ubuntu")),
        ("ubuntu", "24.04", ("base-files", "12ubuntu4.7", "ubuntu")),
        ("ubuntu", "25.10", ("base-files", "12ubuntu4.7", "ubuntu")),
        ("ubuntu", "22.04", ("base-files", "13.6ubuntu1", "ubuntu")),
        ("alpine", "3.20.3", ("alpine-release", "3.18.4-r0", "alpine")),
        ("rocky", "9.4", ("almalinux-release", "9.4-2.el9", "rocky")),
        ("rocky", "9.4", ("rocky-release", "8.10-1.9.el8", "rocky")),
        ("wolfi", "20230201", ("base-files", "12.4+deb12u8", "wolfi")),
        ("chainguard", "20230214", ("alpine-release", "3.20.3-r0", "chainguard")),
        ("debian", "12.8", ("alpine-release", "3.20.3-r0", "debian")),
        ("wolfi", "20230201", ("alpine-baselayout", "3.1.2-r0", "wolfi")),
        ("alpine", "3.20.3", ("wolfi-baselayout", "20230201-r15", "alpine")),
        ("redhat", "9.4", ("fedora-release-common", "38-36", "redhat")),
        ("rocky", "9.4", ("fedora-release-common", "38-36", "rocky")),
    ],
)
def test_packages_below_a_forged_release_tell_what_they_are(
    family: str, version: str, package: tuple[str, str, str]
) -> None:
    assert package[0] in foreign_packages(family, version, [component("zlib", "1.3", family), component(*package)])


def test_one_package_that_agrees_does_not_hide_another() -> None:
    """A layer adds a second base-files to dpkg's parts: both are listed."""
    listed = [component("base-files", "12.4+deb12u8", "debian"), component("base-files", "11.1+deb11u9", "debian")]
    assert "12.4" in foreign_packages("debian", "11.9", listed)
    assert "12.4" in foreign_packages("debian", "11.9", listed[::-1])


def test_a_clone_has_the_package_of_what_it_was_cloned_from_beside_its_own() -> None:
    listed = [
        component("redhat-release", "3:8.10-0.2.el8", "oracle"),
        component("oraclelinux-release", "8:8.10-1.el8", "oracle"),
    ]
    assert foreign_packages("oracle", "8.10", listed) == ""
    assert foreign_packages("oracle", "8.10", listed[:1])


def test_a_version_without_a_release_has_no_number() -> None:
    assert [release_number("debian", text) for text in ("", "kali-rolling", "trixie/sid", "12.8")] == ["", "", "", "12"]
    assert [release_number("alpine", text) for text in ("3", "edge", "3.20.3")] == ["", "edge", "3.20"]
