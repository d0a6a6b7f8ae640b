"""What the image itself says of its system and packages, so that an engine's silence can be judged."""

from __future__ import annotations

import re
from dataclasses import dataclass

from scanner.model.filesystem import Rootfs
from scanner.model.release import Release
from scanner.registry.places import APK, DPKG, DPKG_PARTS, RPM_DATABASES

_OS_RELEASE = re.compile(rb"""^(ID|ID_LIKE|VERSION_ID)=["']?([A-Za-z0-9._ :-]{0,64})["']?[ \t\r]*$""", re.MULTILINE)
_INSTALLED = re.compile(rb"^Status: \S+ \S+ installed[ \t]*$", re.MULTILINE)
_DPKG_PACKAGE = re.compile(rb"^Package: ", re.MULTILINE)
_APK_PACKAGE = re.compile(rb"^P:", re.MULTILINE)
_KINDS = {
    "apk": "alpine wolfi chainguard minimos postmarketos",
    "dpkg": "debian ubuntu linuxmint raspbian kali pop devuan echo",
    "rpm": "rhel centos fedora rocky almalinux ol amzn sles suse opensuse opensuse-leap opensuse-tumbleweed "
    "photon mariner azurelinux bottlerocket",
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}


@dataclass(frozen=True, slots=True)
class PackageDatabase:
    """``kind`` is dpkg, apk or rpm; ``packages`` how many it lists, None where that cannot be read as text."""

    kind: str
    path: str
    packages: int | None


@dataclass(frozen=True, slots=True)
class PackageDatabases:
    """The system that the image says it is, and the package databases that a container would find in it."""

    os_id: str
    os_version: str
    kind: str  # of database that such a system has; empty where the system is not known
    databases: tuple[PackageDatabase, ...]

    @property
    def listed(self) -> int:
        """Packages that are certainly there."""
        return sum(database.packages or 0 for database in self.databases)

    @property
    def foreign(self) -> tuple[PackageDatabase, ...]:
        """Databases of another kind than the system's: engines look their packages up in the wrong distribution's
        advisories.
        """
        return tuple(d for d in self.databases if self.kind and d.kind != self.kind and d.packages != 0)


def release_of(said: Rootfs | bytes) -> Release:
    """What os-release(5) says, of a file system (links are followed) or of the file's bytes."""
    if isinstance(said, Rootfs):
        said = said.content("etc/os-release") or said.content("usr/lib/os-release") or b""
    found = {key: value.decode().strip().lower() for key, value in _OS_RELEASE.findall(said)}
    return Release(found.get(b"ID", ""), found.get(b"VERSION_ID", ""), tuple(found.get(b"ID_LIKE", "").split()))


def package_databases(rootfs: Rootfs) -> PackageDatabases:
    """See ``PackageDatabases``. Links are followed, as a package manager in the container would."""
    told = release_of(rootfs)
    kind = next((_KIND_OF[name] for name in (told.id, *told.like) if name in _KIND_OF), "")
    return PackageDatabases(told.id, told.version, kind, (*_texts(rootfs), *_rpms(rootfs)))


def _texts(rootfs: Rootfs) -> tuple[PackageDatabase, ...]:
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
    """dpkg keeps packages that were removed but left their configuration: only ``installed`` ones count."""
    if kind == "apk":
        return len(_APK_PACKAGE.findall(data))
    return len(_INSTALLED.findall(data)) if b"\nStatus: " in data else len(_DPKG_PACKAGE.findall(data))


def _rpms(rootfs: Rootfs) -> tuple[PackageDatabase, ...]:
    found: dict[str, PackageDatabase] = {}
    for path in sorted(RPM_DATABASES):
        resolved = rootfs.resolve(path)
        if resolved is not None:
            found.setdefault(resolved, PackageDatabase("rpm", path, None))
    return tuple(found.values())
