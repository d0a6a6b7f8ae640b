"""The operating system and package databases that the image contains, to judge whether an engine missed packages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set

from scanner.lazy_dataclasses import dataclass
from scanner.model.filesystem import Rootfs
from scanner.model.release import Release
from scanner.patterns import lazy
from scanner.registry.places import APK, DPKG, DPKG_PARTS, RPM_DATABASES, RPM_DIRECTORIES

_OS_RELEASE = lazy(rb"""^(ID|ID_LIKE|VERSION_ID)=["']?([A-Za-z0-9._ :-]{0,64})["']?[ \t\r]*$""", re.MULTILINE)
# dpkg-query(1): "deinstall ok config-files" is no installed package.
_INSTALLED = lazy(rb"^Status: \S+ \S+ installed[ \t]*$", re.MULTILINE)
_DPKG_PACKAGE = lazy(rb"^Package: ", re.MULTILINE)
# deb822: a blank line ends a package.
_STANZA_END = lazy(rb"\n[ \t\r]*\n")
# dpkg ignores the case of field names, and spaces around values (lib/dpkg/parse.c).
# They are cut afterwards: a pattern that leaves them out takes quadratic time for a line of megabytes of spaces.
_DPKG_FIELD = lazy(rb"^(Package|Status)[ \t]*:([^\n]*)", re.MULTILINE | re.IGNORECASE)
_APK_NAME = lazy(rb"^P:([^\n]*)", re.MULTILINE)
_BLANKS = b" \t\r"
_REMOVED = frozenset((b"config-files", b"not-installed"))  # of these, no program is left: dpkg(1), "package states"
# Package managers that engines do not read, by the directory of their packages.
_OTHER_MANAGERS = {
    "gnu/store": "Guix",
    "nix/store": "Nix",
    "var/db/pkg": "Portage",
    "var/db/xbps": "XBPS",
    "var/lib/opkg": "opkg",
    "usr/lib/opkg": "opkg",
    "var/lib/pacman/local": "pacman",
}
_DPKG_UPDATES = "var/lib/dpkg/updates/"
_CONDA, _HOMEBREW = "conda-meta/", "/Cellar/"
# Written by Yarn, whose packages stay in archives then. Packages have such files only in their tests.
_PLUG_AND_PLAY, _OF_PACKAGES = (".pnp.cjs", ".pnp.js"), "node_modules/"
_APK_PACKAGE = lazy(rb"^P:", re.MULTILINE)
_KINDS = {
    "apk": "alpine wolfi chainguard minimos postmarketos",
    "dpkg": "debian ubuntu linuxmint raspbian kali pop devuan echo",
    "rpm": "rhel centos fedora rocky almalinux ol amzn sles suse opensuse opensuse-leap opensuse-tumbleweed "
    "photon mariner azurelinux bottlerocket",
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}


@dataclass(frozen=True, slots=True)
class PackageDatabase:
    """``kind``: dpkg, apk or rpm. ``packages``: how many it lists; None if that is not known."""

    kind: str
    path: str
    packages: int | None


@dataclass(frozen=True, slots=True)
class PackageDatabases:
    """The declared operating system, and the package databases that a container would find."""

    os_id: str  # ``ID`` of os-release; empty: none
    os_version: str
    kind: str  # of database that this system uses; empty if the system is unknown
    databases: tuple[PackageDatabase, ...]

    @property
    def listed(self) -> int:
        """Number of packages that are certainly installed."""
        return sum(database.packages or 0 for database in self.databases)

    @property
    def foreign(self) -> tuple[PackageDatabase, ...]:
        """Databases of another kind than the system's.

        Engines match their packages with the wrong distribution's advisories.
        """
        return tuple(d for d in self.databases if self.kind and d.kind != self.kind and d.packages != 0)


def release_of(source: Rootfs | bytes) -> Release:
    """Parse os-release(5) of a file system (links are followed), or of the file's bytes."""
    if isinstance(source, Rootfs):
        source = source.content("etc/os-release") or source.content("usr/lib/os-release") or b""
    found = {key: value.decode().strip().lower() for key, value in _OS_RELEASE.findall(source)}
    return Release(found.get(b"ID", ""), found.get(b"VERSION_ID", ""), tuple(found.get(b"ID_LIKE", "").split()))


def package_databases(rootfs: Rootfs) -> PackageDatabases:
    """Find the package databases. Links are followed, as a package manager in the container would do."""
    release = release_of(rootfs)
    kind = next((_KIND_OF[name] for name in (release.id, *release.like) if name in _KIND_OF), "")
    return PackageDatabases(release.id, release.version, kind, (*_text_databases(rootfs), *_rpm_databases(rootfs)))


def _text_databases(rootfs: Rootfs) -> tuple[PackageDatabase, ...]:
    found: dict[str, PackageDatabase] = {}
    for kind, path in (("dpkg", DPKG), *(("apk", path) for path in APK)):
        resolved, data = rootfs.resolve(path), rootfs.content(path)
        if resolved is not None:
            count = None if data is None else _count(kind, data)
            found.setdefault(resolved, PackageDatabase(kind, path, count))
    parts = [path for path in rootfs.files if path.startswith(f"{DPKG_PARTS}/") and not path.endswith(".md5sums")]
    if parts:
        total = sum(len(_DPKG_PACKAGE.findall(rootfs.content(path) or b"")) for path in parts)
        found[DPKG_PARTS] = PackageDatabase("dpkg", DPKG_PARTS, total)
    return tuple(found.values())


def _count(kind: str, data: bytes) -> int:
    """Count packages. dpkg also lists removed packages that left configuration files; only ``installed`` ones count."""
    if kind == "apk":
        return len(_APK_PACKAGE.findall(data))
    return len(_INSTALLED.findall(data)) if b"\nStatus: " in data else len(_DPKG_PACKAGE.findall(data))


def installed_packages(rootfs: Rootfs) -> frozenset[str]:
    """Names of the packages of which dpkg's or apk's database says that their files are in the image.

    Entries that dpkg or apk would not accept count as well: it is their files that matter.
    """
    found: set[bytes] = set()
    for path in (DPKG, *(path for path in rootfs.files if path.startswith(f"{DPKG_PARTS}/"))):
        for stanza in _STANZA_END.split(rootfs.content(path) or b""):
            fields = [(name.lower(), value.strip(_BLANKS)) for name, value in _DPKG_FIELD.findall(stanza)]
            states = [value.split()[-1:] for name, value in fields if name == b"status"]
            if not states or not all(state and state[0].lower() in _REMOVED for state in states):
                found.update(value for name, value in fields if name == b"package" and value)
    for path in APK:
        found.update(name.rstrip(_BLANKS) for name in _APK_NAME.findall(rootfs.content(path) or b""))
    return frozenset(name.decode("utf-8", "replace") for name in found)


def unapplied_changes(rootfs: Rootfs) -> tuple[str, ...]:
    """Return journals of package databases that hold changes. Package managers apply them first; engines do not."""
    logs = (f"{directory}/rpmdb.sqlite-{log}" for directory in RPM_DIRECTORIES for log in ("wal", "journal"))
    updates = (path for path in rootfs.files if path.startswith(_DPKG_UPDATES) and path[len(_DPKG_UPDATES) :].isdigit())
    found = (path for name in (*logs, *updates) if (path := rootfs.resolve(name)) is not None)
    return tuple(sorted(path for path in set(found) if rootfs.files[path].entry.size))


def other_packages(rootfs: Rootfs, read: Set[str]) -> Mapping[str, str]:
    """Return package managers beside the distribution's, each with a directory or file that holds packages of it.

    ``read``: paths from which the engine read packages.
    """
    wanted = tuple(f"{place}/" for place in _OTHER_MANAGERS if place in rootfs.files)
    # A directory alone says nothing: images contain empty ones, for volumes.
    filled = {place for path in rootfs.files if path.startswith(wanted) for place in wanted if path.startswith(place)}
    found = {manager: place for place, manager in _OTHER_MANAGERS.items() if f"{place}/" in filled}
    for path in rootfs.files:
        if _CONDA in path and path.endswith(".json") and path not in read:
            found.setdefault("conda", path)
        elif _HOMEBREW in path:
            found.setdefault("Homebrew", path.partition(_HOMEBREW)[0] + _HOMEBREW.rstrip("/"))
        elif path.endswith(_PLUG_AND_PLAY) and _OF_PACKAGES not in path:
            found.setdefault("Yarn Plug'n'Play", path)
    return found


def _rpm_databases(rootfs: Rootfs) -> tuple[PackageDatabase, ...]:
    found: dict[str, PackageDatabase] = {}
    for path in sorted(RPM_DATABASES):
        resolved = rootfs.resolve(path)
        if resolved is not None:
            found.setdefault(resolved, PackageDatabase("rpm", path, rootfs.rpm_packages(path)))
    return tuple(found.values())
