"""The distribution and release of an image: what an engine assumed, and what the image declares.

An engine matches packages with the advisories of one release. Matched with another release, an image can look clean:
there are no advisories for Debian 15, and with the older versions of Debian 11, late fixes in Debian 12 look fixed. So
three sources must agree: the engine, os-release(5), and the package with the distribution's release files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from scanner.lazy_dataclasses import dataclass
from scanner.model.finding import Component
from scanner.patterns import lazy

# Engines use other names than the ID of os-release(5), and some distributions have several IDs.
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
# Number of version parts that identify the release for which advisories are published.
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
# Their advisories apply to the distribution in any version.
_ROLLING: Final = frozenset(("wolfi", "chainguard", "minimos", "echo", "bottlerocket", "opensuse-tumbleweed"))
# Packages with a distribution's release files. Their versions begin with the release.
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
    # Engines have no advisories for these. Under another name their packages look newer than its advisories.
    "fedora-release": "fedora",
    "fedora-release-common": "fedora",
    "openEuler-release": "openeuler",
    "anolis-release": "anolis",
}
# Packages that only these distributions have. Their versions do not contain the release.
_OWN_PACKAGES: Final = {"alpine-baselayout": ("alpine",), "wolfi-baselayout": ("wolfi", "chainguard")}
# Versions of Ubuntu's base-files, which follow Debian's, by long-term release (https://packages.ubuntu.com/base-files).
_UBUNTU_BASE_FILES: Final = {
    "7.2ubuntu5": "14.04",
    "9.4ubuntu4": "16.04",
    "10.1ubuntu2": "18.04",
    "11ubuntu5": "20.04",
    "12ubuntu4": "22.04",
    "13ubuntu10": "24.04",
}
_UBUNTU_REVISION: Final = lazy(r"[0-9.]+ubuntu[0-9]+")
# Distributions that use the release package of another one.
_SHARED: Final = {"echo": "debian", "opensuse-tumbleweed": "opensuse-leap"}
_VERSION: Final = lazy(r"[0-9][0-9A-Za-z._]*")


@dataclass(frozen=True, slots=True)
class Release:
    """ID, VERSION_ID and ID_LIKE of os-release(5); each is empty if absent."""

    id: str = ""
    version: str = ""
    like: tuple[str, ...] = ()  # families that it is derived from, nearest first

    def __str__(self) -> str:
        return f"{self.id} {self.version}".strip() or "no release"


def os_id(family: str) -> str:
    """The ID in os-release(5) of the distribution that an engine calls ``family``."""
    return _IDS.get(family.lower(), family.lower())


def release_number(family: str, version: str) -> str:
    """The part of a version for which advisories are published: ``3.20`` for Alpine's ``3.20.3``, ``edge`` for its
    development branch. Empty if the version has no such part, or the distribution has no releases.
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


def disagreement(family: str, version: str, declared: Release) -> str:
    """Why an engine may have used the advisories of another release than the image's; empty if it did not."""
    if not declared.id:
        return f"the engine treated the image as {family} {version}, but the image has no os-release that confirms it"
    seen, own = os_id(family), os_id(declared.id)
    if seen != own and seen not in map(os_id, declared.like):
        return f"the engine treated the image as {family} {version}, but its os-release declares {declared}"
    if seen in _ROLLING or (declared.version and version == declared.version):
        return ""
    if not declared.version:
        return f"the engine treated the image as {family} {version}, but its os-release has no VERSION_ID"
    number, other = release_number(seen, version), release_number(seen, declared.version)
    if not number or number != other:
        return f"the engine treated the image as {family} {version}, but its os-release declares {declared}"
    return ""


def foreign_packages(family: str, version: str, components: Iterable[Component]) -> str:
    """A sentence about a package that belongs to another release than the assumed one; empty if there is none.

    An attacker can replace os-release and the engine's file in an upper layer, but the packages below stay the same.
    """
    seen, number = os_id(family), release_number(family, version)
    own_type = [c for c in components if os_id(c.type) == seen]
    foreign = next((c for c in own_type if seen not in _OWN_PACKAGES.get(c.name, (seen,))), None)
    if foreign is not None:
        return _mismatch(foreign, family, version)
    listed = [c for c in own_type if c.name in _RELEASE_PACKAGES]
    if seen in ("debian", "raspbian", "ubuntu"):
        wrong = [c for c in listed if c.name != "base-files" or not _is_base_of(seen, number, c.version)]
    else:
        own = [c for c in listed if _RELEASE_PACKAGES[c.name] == seen]
        # A clone of Red Hat may have Red Hat's package beside its own. Without its own, it is not that clone.
        wrong = [c for c in own if not _begins_with(seen, number, c.version)] or ([] if own else listed)
        wrong = [c for c in wrong if _RELEASE_PACKAGES[c.name] != _SHARED.get(seen)]
    return _mismatch(wrong[0], family, version) if wrong else ""


def _begins_with(seen: str, number: str, version: str) -> bool:
    """True if a package belongs to the release. Alpine's edge has the number of the next release."""
    match = _VERSION.match(version.rpartition(":")[2])
    return not number or number == "edge" or (match is not None and release_number(seen, match[0]) == number)


def _is_base_of(seen: str, number: str, version: str) -> bool:
    """True if base-files belongs to the release.

    Debian numbers it by release, Ubuntu by the Debian it is derived from.
    """
    match = _VERSION.match(version.rpartition(":")[2])
    there = match[0] if match else ""
    ubuntu = _UBUNTU_REVISION.match(there)
    if seen != "ubuntu":
        return ubuntu is None and release_number("debian", there) == number
    named = _UBUNTU_BASE_FILES.get(ubuntu[0]) if ubuntu else ""
    return named == number or (named is None and number not in _UBUNTU_BASE_FILES.values())


def _mismatch(package: Component, family: str, version: str) -> str:
    return (
        f"the engine matched the packages as those of {family} {version}, "
        f"but the package {package.name} {package.version} belongs to another release"
    )
