"""Layers applied in order, and what an engine would see differently than a container."""

from __future__ import annotations

import pytest

from scanner.model.filesystem import FileType, Rootfs
from scanner.model.finding import Coverage
from scanner.registry.packages import PackageDatabase, package_databases
from scanner.registry.rootfs import concerns
from tests.scanner.registry import rpm_databases
from tests.scanner.registry.archives import directory, file, hardlink, header, rootfs, symlink

ALPINE = file("etc/os-release", b'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.20.1\n')
DEBIAN = file("usr/lib/os-release", b'ID=debian\nVERSION_ID="12"\n') + symlink(
    "etc/os-release", "../usr/lib/os-release"
)
FEDORA = file("usr/lib/os-release", b"ID=fedora\nVERSION_ID=42\n") + symlink("etc/os-release", "../usr/lib/os-release")
APK = b"P:musl\nV:1.2\n\nP:busybox\nV:1.36\n\n"
DPKG = (
    b"Package: libc6\nStatus: install ok installed\n\nPackage: gone\nStatus: deinstall ok "
    b"config-files\n\nPackage: bash\nStatus: install ok installed\n"
)
RPM = b"SQLite format 3\0\x10\0\2\2\0\x40\x20\x20" + bytes(76)


def reasons(fs: Rootfs, coverage: Coverage | None = None) -> set[str]:
    found = concerns(fs, coverage)
    assert all(c.detail.isprintable() and len(c.detail) <= 500 for c in found)
    return {c.reason for c in found}


def paths(fs: Rootfs, kind: FileType = FileType.FILE) -> set[str]:
    return {path for path, placed in fs.files.items() if placed.entry.type is kind}


def test_later_layers_win() -> None:
    fs = rootfs(file("etc/passwd", b"old"), file("etc/passwd", b"new"))
    assert fs.content("etc/passwd") == b"new"
    assert fs.files["etc/passwd"].layer == 1
    assert [(p.entry.path, p.layer, by) for p, by in fs.hidden] == [("etc/passwd", 0, 1)]


def test_whiteouts_hide_what_is_below_only() -> None:
    fs = rootfs(file("a/x") + file("a/y") + file("b/z"), file("a/.wh.x") + file("a/new") + file(".wh.b"))
    assert paths(fs) == {"a/y", "a/new"}
    assert {(p.entry.path, by) for p, by in fs.hidden} == {("a/x", 1), ("b/z", 1), ("b", 1)}


def test_a_whiteout_comes_before_its_layers_own_entries() -> None:
    assert paths(rootfs(file("a/x", b"1"), file("a/x", b"2") + file("a/.wh.x"))) == {"a/x"}


def test_opaque_directories_hide_what_is_below_only() -> None:
    fs = rootfs(file("a/x") + file("a/b/c") + file("d"), file("a/new") + file("a/.wh..wh..opq"))
    assert paths(fs) == {"a/new", "d"}
    assert paths(rootfs(file("a/x") + file("d"), file(".wh..wh..opq") + file("e"))) == {"e"}


def test_a_file_over_a_directory_and_back() -> None:
    fs = rootfs(file("a/x"), file("a"))
    assert paths(fs) == {"a"}
    fs = rootfs(file("a"), directory("a") + file("a/x"))
    assert (paths(fs), fs.files["a"].entry.type) == ({"a/x"}, FileType.DIRECTORY)
    fs = rootfs(file("a"), file("a/b/x"))
    assert (paths(fs), fs.files["a"].entry.type) == ({"a/b/x"}, FileType.DIRECTORY)
    assert [p.entry.path for p, _ in fs.hidden] == ["a"]


def test_a_directory_over_a_directory_keeps_its_files() -> None:
    fs = rootfs(directory("a") + file("a/x"), directory("a", mode=0o700))
    assert paths(fs) == {"a/x"}
    assert fs.files["a"].entry.mode == 0o700
    assert fs.hidden == ()


def test_directories_need_no_entry_of_their_own() -> None:
    fs = rootfs(file("etc/passwd", b"x"))
    assert fs.content("etc/passwd") == b"x"
    assert paths(fs, FileType.DIRECTORY) == {"etc"}


def test_links_are_followed_inside_the_image() -> None:
    fs = rootfs(
        file("usr/lib/os-release", b"x")
        + symlink("lib", "usr/lib")
        + symlink("etc/os-release", "/../../usr/./lib/os-release")
    )
    assert fs.content("etc/os-release") == fs.content("lib/os-release") == b"x"
    assert fs.resolve("lib/missing") is None
    assert rootfs(symlink("a", "b") + symlink("b", "a")).resolve("a") is None


def test_a_hard_link_is_the_file() -> None:
    fs = rootfs(file("etc/passwd", b"x") + hardlink("etc/group", "etc/passwd", mode=0o4755))
    assert fs.content("etc/group") == b"x"
    entry = fs.files["etc/group"].entry
    assert (entry.type, entry.size, entry.link, entry.setuid) == (FileType.FILE, 1, "etc/passwd", True)
    assert fs.files["etc/passwd"].entry.setuid, "some runtimes change the mode of the one inode that both are"


def test_a_hard_link_keeps_its_bytes_when_its_target_is_replaced() -> None:
    fs = rootfs(file("etc/passwd", b"old") + hardlink("etc/group", "etc/passwd"), file("etc/passwd", b"new"))
    assert (fs.content("etc/group"), fs.content("etc/passwd")) == (b"old", b"new")


def test_entries_behind_a_lower_layers_link_are_where_a_runtime_puts_them() -> None:
    base = directory("usr/lib") + symlink("lib", "usr/lib")
    fs = rootfs(base, file("lib/apk/db/installed", APK))
    assert paths(fs) == {"usr/lib/apk/db/installed"}
    assert fs.content("usr/lib/apk/db/installed") == APK
    assert fs.redirected == ((1, "lib/apk/db/installed", "usr/lib/apk/db/installed"),)
    assert reasons(fs) == {"package_db_indirect"}
    assert reasons(rootfs(base, file("lib/systemd/x"))) == set()


def test_a_link_that_a_middle_layer_makes_counts_from_then_on() -> None:
    base = directory("usr/lib") + symlink("other", "usr")
    fs = rootfs(base, file("lib/a"), symlink("lib", "usr/lib"), file("lib/b"))
    assert paths(fs) == {"usr/lib/b"}


def test_a_directory_entry_replaces_a_lower_layers_link() -> None:
    fs = rootfs(file("usr/lib/x") + symlink("lib", "usr/lib"), directory("lib") + file("lib/y"))
    assert paths(fs) == {"usr/lib/x", "lib/y"}
    assert fs.redirected == ()


def test_whiteouts_go_through_links_too() -> None:
    assert paths(rootfs(file("usr/lib/x") + symlink("lib", "usr/lib"), file("lib/.wh.x"))) == set()
    assert paths(rootfs(file("usr/lib/x") + symlink("lib", "usr/lib"), file("lib/.wh..wh..opq"))) == set()
    assert paths(rootfs(file("usr/lib/x") + symlink("lib", "usr/lib"), file(".wh.lib"))) == {"usr/lib/x"}


# Distributions as they are: none of this may be remarked on.


def test_alpine() -> None:
    fs = rootfs(ALPINE + file("lib/apk/db/installed", APK) + file("etc/passwd") + file("etc/group"))
    assert reasons(fs, Coverage("alpine", "3.20", True, 2)) == set()


def test_alpine_with_apk_3_and_a_merged_usr() -> None:
    merged = symlink("lib", "usr/lib") + symlink("bin", "usr/bin") + file("usr/lib/apk/db/installed", APK)
    linked = (
        file("usr/lib/apk/db/installed", APK) + directory("lib/apk") + symlink("lib/apk/db", "../../usr/lib/apk/db")
    )
    for fs in (rootfs(ALPINE + merged), rootfs(ALPINE + linked)):
        assert reasons(fs, Coverage("alpine", "3.23", True, 2)) == set()
        assert package_databases(fs).listed == 2


def test_an_upgrade_that_moves_the_database() -> None:
    fs = rootfs(
        ALPINE + file("lib/apk/db/installed", APK),
        file("lib/apk/db/.wh.installed") + file("usr/lib/apk/db/installed", APK),
    )
    assert reasons(fs, Coverage("alpine", "3.23", True, 2)) == set()


def test_debian_with_a_merged_usr() -> None:
    links = (
        symlink("bin", "usr/bin")
        + symlink("lib", "usr/lib")
        + symlink("lib64", "usr/lib64")
        + symlink("sbin", "usr/sbin")
    )
    fs = rootfs(
        links + DEBIAN + file("var/lib/dpkg/status", DPKG),
        file("var/lib/dpkg/status", DPKG + b"\nPackage: x\nStatus: install ok installed\n"),
    )
    assert reasons(fs, Coverage("debian", "12", True, 3)) == set()


def test_distroless() -> None:
    parts = file("var/lib/dpkg/status.d/libc6", b"Package: libc6\n") + file(
        "var/lib/dpkg/status.d/libc6.md5sums", b"0 x\n"
    )
    fs = rootfs(DEBIAN + parts)
    assert reasons(fs, Coverage("debian", "12", True, 1)) == set()
    assert package_databases(fs).databases == (PackageDatabase("dpkg", "var/lib/dpkg/status.d", 1),)


def test_fedora_and_red_hat() -> None:
    moved = (
        directory("usr/lib/sysimage/rpm")
        + file("usr/lib/sysimage/rpm/rpmdb.sqlite", RPM)
        + symlink("var/lib/rpm", "../../usr/lib/sysimage/rpm")
    )
    older = file("var/lib/rpm/rpmdb.sqlite", RPM)
    for layer in (moved, older):
        fs = rootfs(FEDORA + layer + file("etc/rocky-release") + symlink("etc/redhat-release", "rocky-release"))
        assert reasons(fs, Coverage("fedora", "42", True, 150)) == set()
        assert [d.kind for d in package_databases(fs).databases] == ["rpm"]


def test_an_engine_that_misses_packages_of_rpm_is_noticed() -> None:
    names = ("bash", "glibc", "openssl-libs", "gpg-pubkey")
    for store in (rpm_databases.sqlite, rpm_databases.ndb, rpm_databases.berkeley):
        database = store(*(rpm_databases.header(name, []) for name in names))
        fs = rootfs(FEDORA + file("var/lib/rpm/Packages", database))
        assert [d.packages for d in package_databases(fs).databases] == [3]
        assert reasons(fs, Coverage("fedora", "42", True, 3)) == set()
        assert reasons(fs, Coverage("fedora", "42", True, 1)) == {"nothing_to_scan"}


def test_a_base_without_rpm_database_keeps_its_usual_link() -> None:
    assert reasons(rootfs(FEDORA + symlink("var/lib/rpm", "../../usr/lib/sysimage/rpm"))) == set()


def test_nix_keeps_its_users_behind_links() -> None:
    assert (
        reasons(
            rootfs(symlink("etc/passwd", "/nix/store/abc-nss/etc/passwd") + file("nix/store/abc-nss/etc/passwd", b"x"))
        )
        == set()
    )


def test_a_program_of_its_own_on_an_empty_base() -> None:
    assert reasons(rootfs(file("app", b"\x7fELF", mode=0o755)), Coverage("", "", None, 12)) == set()


# Images that show an engine something else than a container.


def test_a_database_behind_links() -> None:
    for parts in (
        file("opt/x", APK) + symlink("lib/apk/db/installed", "/opt/x"),
        file("opt/apk/db/installed", APK) + symlink("lib/apk", "/opt/apk"),
        file("x/apk/db/installed", APK) + symlink("lib", "x"),
        file("opt/x", APK) + hardlink("lib/apk/db/installed", "opt/x"),
        file("opt/status", DPKG) + symlink("var/lib/dpkg", "../../opt"),
        file("opt/d/bash", b"Package: bash\n") + symlink("var/lib/dpkg/status.d", "/opt/d"),
        file("opt/bash", b"Package: bash\n") + symlink("var/lib/dpkg/status.d/bash", "/opt/bash"),
        file("opt/rpm/rpmdb.sqlite", RPM) + symlink("var/lib/rpm", "/opt/rpm"),
        symlink("lib/apk/db/installed", "/nowhere"),
        symlink("var/lib/dpkg/status", "status"),
        symlink("var/lib/dpkg", "/nowhere"),
        directory("var/lib/dpkg/status"),
        file("var/lib/dpkg/status", DPKG) + symlink("lib/apk/db/installed", "/var/lib/dpkg/status"),
        file("opt/release", b"ID=alpine\n") + symlink("etc/os-release", "/opt/release"),
        file("opt/release", b"ID=alpine\n") + hardlink("usr/lib/os-release", "opt/release"),
    ):
        assert "package_db_indirect" in reasons(rootfs(parts)), parts


def test_a_database_that_is_no_file() -> None:
    for kind in "346":
        found = reasons(rootfs(header("var/lib/dpkg/status", kind)))
        assert {"package_db_indirect", "unsafe_archive"} <= found


def test_a_database_that_a_later_layer_takes_away() -> None:
    for base, later in (
        (file("lib/apk/db/installed", APK), file("lib/apk/db/.wh.installed")),
        (file("lib/apk/db/installed", APK), file(".wh.lib")),
        (file("var/lib/dpkg/status", DPKG), file("var/lib/dpkg/.wh..wh..opq")),
        (file("var/lib/dpkg/status", DPKG), file("var/lib/dpkg")),
        (file("var/lib/dpkg/status", DPKG), file("var/lib/dpkg/status")),
        (file("var/lib/dpkg/status.d/bash", b"Package: bash\n"), file("var/lib/dpkg/status.d/.wh.bash")),
        (file("var/lib/rpm/rpmdb.sqlite", RPM), file("var/lib/.wh.rpm")),
    ):
        assert "package_db_deleted" in reasons(rootfs(base, later)), later


def test_packages_of_another_system() -> None:
    fs = rootfs(ALPINE + file("lib/apk/db/installed", APK) + file("var/lib/dpkg/status", DPKG))
    assert reasons(fs) == {"unsupported_os"}
    assert reasons(rootfs(ALPINE + file("lib/apk/db/installed", APK) + file("var/lib/dpkg/status"))) == set()


def test_an_engine_that_saw_less_than_is_listed() -> None:
    fs = rootfs(DEBIAN + file("var/lib/dpkg/status", DPKG))
    assert package_databases(fs).listed == 2
    assert reasons(fs, Coverage("debian", "12", True, 0)) == {"nothing_to_scan"}
    many = b"".join(b"Package: p%d\nStatus: install ok installed\n\n" % i for i in range(100))
    fs = rootfs(DEBIAN + file("var/lib/dpkg/status", many))
    assert reasons(fs, Coverage("debian", "12", True, 89)) == {"nothing_to_scan"}
    assert reasons(fs, Coverage("debian", "12", True, 100)) == set()
    assert reasons(rootfs(FEDORA + file("var/lib/rpm/rpmdb.sqlite", RPM)), Coverage("fedora", "42", True, 0)) == {
        "nothing_to_scan"
    }
    assert reasons(rootfs(file("app", b"\x7fELF", mode=0o755)), Coverage()) == {"nothing_to_scan"}


def test_a_file_that_nobody_could_look_into() -> None:
    assert reasons(rootfs(file("opt/p", b"root") + symlink("etc/passwd", "/opt/p"))) == {"file_unread"}
    assert reasons(rootfs(file("opt/p", b"root") + hardlink("etc/passwd", "opt/p"))) == {"file_unread"}


def test_remarks_are_bounded_and_printable() -> None:
    found = concerns(rootfs(b"".join(header(f"d\x1b[31m{i}", "4") for i in range(300))), None)
    assert len(found) == 101
    assert all(c.detail.isprintable() for c in found)


LODASH = "srv/node_modules/lodash"
DJANGO = "usr/lib/python3/site-packages/Django-1.0.dist-info"
NODE = file(f"{LODASH}/package.json", b"{}") + file(f"{LODASH}/index.js", b"x")
PYTHON = file(f"{DJANGO}/METADATA") + file("usr/lib/python3/site-packages/django/__init__.py")


@pytest.mark.parametrize("name", [".wh.type:node-pkg", ".wh..wh..opq", ".wh.x"])
def test_a_deletion_below_a_file_is_read_in_two_ways(name: str) -> None:
    """Trivy takes it for a deletion of the package that it read in the file."""
    assert reasons(rootfs(NODE, file(f"{LODASH}/package.json/{name}"))) == {"unsafe_archive"}


def test_a_directory_in_place_of_a_file_may_be_opaque() -> None:
    """overlayfs marks it so, and containerd writes that into the layer."""
    above = directory("srv/a") + file("srv/a/.wh..wh..opq") + file("srv/a/x")
    assert reasons(rootfs(file("srv/a", b"x"), above)) == set()


@pytest.mark.parametrize(
    ("below", "above"),
    [
        (NODE, file(f"{LODASH}/.wh.package.json")),
        (NODE, directory(f"{LODASH}/package.json")),
        (
            file("srv/node_modules/@babel/core/package.json") + file("srv/node_modules/@babel/core/a.js"),
            file("srv/node_modules/@babel/core/.wh.package.json"),
        ),
        (PYTHON, file("usr/lib/python3/site-packages/.wh.Django-1.0.dist-info")),
        (PYTHON, file(f"{DJANGO}/.wh.METADATA")),
    ],
)
def test_a_package_whose_metadata_is_deleted_is_still_there(below: bytes, above: bytes) -> None:
    assert reasons(rootfs(below, above)) == {"package_db_deleted"}


@pytest.mark.parametrize(
    ("below", "above"),
    [
        (NODE, file("srv/node_modules/.wh.lodash")),
        (NODE, file(f"{LODASH}/package.json", b"{ }")),
        (
            PYTHON,
            file("usr/lib/python3/site-packages/.wh.Django-1.0.dist-info")
            + file("usr/lib/python3/site-packages/django-2.0.dist-info/METADATA"),
        ),
        (
            PYTHON,
            file("usr/lib/python3/site-packages/.wh.Django-1.0.dist-info")
            + directory("usr/lib/python3/site-packages/django")
            + file("usr/lib/python3/site-packages/django/.wh..wh..opq")
            + file("usr/lib/python3/site-packages/django/__pycache__/x.pyc"),
        ),
        (file("srv/package.json") + file("srv/index.js"), file("srv/.wh.package.json")),
    ],
    ids=["removed", "written again", "upgraded", "uninstalled, with traces", "no installed package"],
)
def test_a_package_that_is_gone_or_listed_again_is_no_remark(below: bytes, above: bytes) -> None:
    assert reasons(rootfs(below, above)) == set()
