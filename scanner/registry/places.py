"""Paths on which all readers of a file system must agree: users, operating system, package databases."""

from __future__ import annotations

from typing import Final

from scanner.model.filesystem import FileEntry, FileType
from scanner.patterns import lazy

OS_RELEASE: Final = ("etc/os-release", "usr/lib/os-release")
IDENTITY: Final = (
    *OS_RELEASE,
    "etc/debian_version",
    "etc/alpine-release",
    "etc/redhat-release",
    "etc/passwd",
    "etc/group",
)
APK_REPOSITORIES: Final = "etc/apk/repositories"
# Red Hat's build information. A container does not use it, but it tells engines for which products the packages are.
RED_HAT_BUILD: Final = ("root/buildinfo/", "usr/share/buildinfo/")
DPKG: Final = "var/lib/dpkg/status"
DPKG_PARTS: Final = "var/lib/dpkg/status.d"  # distroless: a file for each package
DPKG_SUMS: Final = ".md5sums"  # end of the name of a list of a package's files
APK: Final = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
RPM_DIRECTORIES: Final = ("var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm")
RPM_DATABASES: Final = frozenset(
    f"{directory}/{name}" for directory in RPM_DIRECTORIES for name in ("Packages", "Packages.db", "rpmdb.sqlite")
)
PACKAGE_TEXTS: Final = (DPKG, f"{DPKG_PARTS}/*", *APK)
DATABASES: Final = (DPKG, *APK, *sorted(RPM_DATABASES))

_SENSITIVE = frozenset((*IDENTITY, *DATABASES))
_DPKG_PART = f"{DPKG_PARTS}/"
_DPKG_LISTS = ("var/lib/dpkg/info/", _DPKG_PART)

# File names by which engines detect applications. An extra name costs no more than a remark about an unusual archive.
APPLICATION: Final = lazy(
    r"^(?:package(?:-lock)?\.json|npm-shrinkwrap\.json|yarn\.lock|pnpm-lock\.yaml|bun\.lock|requirements.*\.txt|Pipfile\.lock"
    r"|(?:poetry|uv|pdm|Cargo|composer|mix|pubspec|conan|Podfile|Gemfile|Package)\.(?:lock|resolved)|METADATA|PKG-INFO|.*\.egg(?:-info)?"
    r"|.*\.gemspec|installed\.json|go\.(?:mod|sum)|pom\.xml|gradle\.lockfile|.*\.(?:jar|war|ear|par|aar)|.*\.deps\.json"
    r"|packages\.lock\.json|packages\.config|Directory\.Packages\.props|Manifest\.toml|conda-meta)$"
)

# Linux admin-guide/devices.txt: devices that base systems contain in dev/, and that every container gets anyway.
_USUAL_CHAR_DEVICES = frozenset(f"1:{minor}" for minor in (3, 5, 7, 8, 9, 11)) | {
    "5:0",
    "5:1",
    "5:2",
    "10:200",
    "10:229",
}


def is_sensitive(path: str) -> bool:
    """True if two readers that see different files at this path would see different images."""
    return path in _SENSITIVE or path.startswith(_DPKG_PART)


def is_list_of_files(path: str) -> bool:
    """True if dpkg lists there, or distroless images, which files a package brought: see `DPKG_SUMS`."""
    return path.startswith(_DPKG_LISTS)


def is_usual_device(entry: FileEntry) -> bool:
    """True for null, zero, random, terminals … in dev/.

    Not for memory, disks, and 0:0, which is a whiteout in overlayfs.
    """
    if entry.type is not FileType.CHAR_DEVICE or not entry.path.startswith("dev/"):
        return False
    return entry.link in _USUAL_CHAR_DEVICES or entry.link.startswith(("4:", "136:"))


def looks_like_rpm(data: bytes) -> bool:
    """True if the data begins like an rpm database: Berkeley DB hash, ndb or SQLite. False if it is empty."""
    if data.startswith(b"SQLite format 3\0"):
        # https://www.sqlite.org/fileformat2.html#the_database_header: these three bytes are fixed
        return data[21:24] == b"\x40\x20\x20" and data[18] in (1, 2) and data[19] in (1, 2)
    if data.startswith(b"RpmP"):
        return int.from_bytes(data[4:8], "little") == 0 and 0 < int.from_bytes(data[12:16], "little") <= len(data) >> 12
    magic, page = data[12:16], data[20:24]
    size = int.from_bytes(page, "little" if magic[:1] == b"\x61" else "big")
    return magic in (b"\x61\x15\x06\x00", b"\x00\x06\x15\x61") and 512 <= size <= 65536 and size & (size - 1) == 0
