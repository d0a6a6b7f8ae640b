"""Which release of which distribution: what an engine took an image for, and what the image says it is.

An engine looks packages up in the advisories of one release. Taken for another release than it is, an image looks
clean: nothing is known against Debian 15, and what Debian 12 fixed late looks fixed by the older version numbers of
Debian 11. So three accounts must agree: the engine's, os-release(5), and the package that carries a distribution's
release files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from scanner.model.finding import Component

# Engines have names of their own for the ID of os-release(5), and some distributions have several.
_IDS: Final = {
    "redhat": "rhel",
    "alma": "almalinux",
    "oracle": "ol",
    "amazon": "amzn",
    "cbl-mariner": "mariner",
    "opensuse": "opensuse-leap",
    "opensuse.leap": "opensuse-leap",
    "opensuse.tumbleweed": "opensuse-tumbleweed",
    "suse linux enterprise server": "sles",
    "suse linux enterprise micro": "sl-micro",
    "slem": "sl-micro",
    "sle-micro": "sl-micro",
    "sle-micro-rancher": "sl-micro",
}
# How many parts of a version name the release for which advisories are published.
_PARTS: Final = {
    "debian": 1,
    "raspbian": 1,
    "ubuntu": 2,
    "alpine": 2,
    "rhel": 1,
    "centos": 1,
    "rocky": 1,
    "almalinux": 1,
    "ol": 1,
    "amzn": 1,
    "mariner": 2,
    "azurelinux": 2,
    "photon": 2,
    "sles": 2,
    "sl-micro": 2,
    "opensuse-leap": 2,
}
# Advisories of these are for the distribution, whatever its version.
_ROLLING: Final = frozenset(("wolfi", "chainguard", "minimos", "echo", "bottlerocket", "opensuse-tumbleweed"))
# The packages that bring a distribution's release files; their versions begin with the release.
_RELEASE_PACKAGES: Final = {
    "alpine-release": "alpine",
    "redhat-release": "rhel",
    "redhat-release-server": "rhel",
    "centos-release": "centos",
    "centos-linux-release": "centos",
    "centos-stream-release": "centos",
    "rocky-release": "rocky",
    "almalinux-release": "almalinux",
    "oraclelinux-release": "ol",
    "system-release": "amzn",
    "photon-release": "photon",
    "mariner-release": "mariner",
    "azurelinux-release": "azurelinux",
    "sles-release": "sles",
    "openSUSE-release": "opensuse-leap",
    "base-files": "debian",
}
# Ubuntu's base-files is numbered after Debian's; what each long-term release has
# (https://packages.ubuntu.com/base-files).
_UBUNTU_BASE_FILES: Final = {
    "7.2ubuntu5": "14.04",
    "9.4ubuntu4": "16.04",
    "10.1ubuntu2": "18.04",
    "11ubuntu5": "20.04",
    "12ubuntu4": "22.04",
    "13ubuntu10": "24.04",
}
_UBUNTU_REVISION: Final = re.compile(r"[0-9.]+ubuntu[0-9]+")
# Whose release packages these have for their own.
_SHARED: Final = {"echo": "debian", "opensuse-tumbleweed": "opensuse-leap"}
_VERSION: Final = re.compile(r"[0-9][0-9A-Za-z._]*")


@dataclass(frozen=True, slots=True)
class Release:
    """What os-release(5) says: ID, VERSION_ID and ID_LIKE, each empty where it does not."""

    id: str = ""
    version: str = ""
    like: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.id} {self.version}".strip() or "no release at all"


def os_id(family: str) -> str:
    """The ID in os-release(5) of a distribution that an engine calls ``family``."""
    return _IDS.get(family.lower(), family.lower())


def release_number(family: str, version: str) -> str:
    """The part of a version that advisories are published for: ``3.20.3`` of Alpine is ``3.20``; ``edge`` for its
    development branch.

    Empty where the version has no such part, or where the distribution has no releases at all.
    """
    family = os_id(family)
    if family in _ROLLING:
        return ""
    if family == "alpine" and (version == "edge" or "_alpha" in version):
        return "edge"
    found = next((word for word in version.removesuffix("-ESM").split() if word[0].isdigit()), "")
    parts = found.split(".")
    count = _PARTS.get(family, 2)
    if len(parts) < count and not (family in ("sles", "amzn") and found):  # SLES without a service pack is "15"
        return ""
    return ".".join(parts[:count])


def disagreement(family: str, version: str, told: Release) -> str:
    """Why an engine may have compared with another release's advisories than the image's own; empty: it did not."""
    if not told.id:
        return f"the engine took the image for {family} {version}, but the image has no os-release that says what it is"
    seen, own = os_id(family), os_id(told.id)
    if seen != own and seen not in map(os_id, told.like):
        return f"the engine took the image for {family} {version}, but its os-release says {told}"
    if seen in _ROLLING or (told.version and version == told.version):
        return ""
    if not told.version:
        return f"the engine took the image for {family} {version}, but its os-release names no VERSION_ID"
    number, other = release_number(seen, version), release_number(seen, told.version)
    if not number or number != other:
        return f"the engine took the image for {family} {version}, but its os-release says {told}"
    return ""


def foreign_packages(family: str, version: str, components: Iterable[Component]) -> str:
    """Which package shows that the packages are of another release than the one they were looked up for; empty: none
    does.

    Whoever writes os-release and the engine's own file in a layer on top has not changed the packages below.
    """
    seen, number = os_id(family), release_number(family, version)
    listed = [c for c in components if c.name in _RELEASE_PACKAGES and os_id(c.type) == seen]
    if seen in ("debian", "raspbian", "ubuntu"):
        wrong = [c for c in listed if c.name != "base-files" or not _is_base_of(seen, number, c.version)]
    else:
        own = [c for c in listed if _RELEASE_PACKAGES[c.name] == seen]
        # A clone of Red Hat may have its package beside its own; without its own, it is no such clone.
        wrong = [c for c in own if not _begins_with(seen, number, c.version)] or ([] if own else listed)
        wrong = [c for c in wrong if _RELEASE_PACKAGES[c.name] != _SHARED.get(seen)]
    return _told(wrong[0], family, version) if wrong else ""


def _begins_with(seen: str, number: str, version: str) -> bool:
    """Whether a package is of the release. Alpine's edge has the number of the release that it will be."""
    match = _VERSION.match(version.rpartition(":")[2])
    return not number or number == "edge" or (match is not None and release_number(seen, match[0]) == number)


def _is_base_of(seen: str, number: str, version: str) -> bool:
    """Debian numbers base-files after its releases, Ubuntu after the Debian that it was taken from."""
    match = _VERSION.match(version.rpartition(":")[2])
    there = match[0] if match else ""
    ubuntu = _UBUNTU_REVISION.match(there)
    if seen != "ubuntu":
        return ubuntu is None and release_number("debian", there) == number
    named = _UBUNTU_BASE_FILES.get(ubuntu[0]) if ubuntu else ""
    return named == number or (named is None and number not in _UBUNTU_BASE_FILES.values())


def _told(package: Component, family: str, version: str) -> str:
    return (
        f"the engine looked the packages up as those of {family} {version}, "
        f"but the package {package.name} {package.version} is of another release"
    )
