"""The source in Trivy's database for each kind of package, named like trivy-db's buckets; determined by testing Trivy
0.76 for each.

https://github.com/aquasecurity/trivy/tree/main/pkg/detector (``ospkg``, and ``library/driver.go``). Packages of kinds
that are not listed here are listed by Trivy, but never looked up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from scanner.advisories.database import Holdings
from scanner.model.finding import Component, Incomplete
from scanner.model.release import release_number

# The source of an operating system family, with its release if the source depends on it.
_SYSTEMS: Final = {
    "alma": "alma {}",
    "alpine": "alpine {}",
    "azurelinux": "Azure Linux {}",
    "bottlerocket": "bottlerocket",
    "cbl-mariner": "CBL-Mariner {}",
    "chainguard": "chainguard",
    "debian": "debian {}",
    "echo": "echo",
    "minimos": "minimos",
    "opensuse-leap": "openSUSE Leap {}",
    "opensuse-tumbleweed": "openSUSE Tumbleweed",
    "oracle": "Oracle Linux {}",
    "photon": "Photon OS {}",
    "rocky": "rocky {}",
    "slem": "SUSE Linux Enterprise Micro {}",
    "sles": "SUSE Linux Enterprise {}",
    "ubuntu": "ubuntu {}",
    "wolfi": "wolfi",
}
_RED_HAT: Final = frozenset(("redhat", "centos"))
# Releases of Ubuntu with a separate source for extended maintenance (Ubuntu Pro). For others Trivy uses the normal one.
_ESM: Final = frozenset(("14.04", "16.04", "18.04", "20.04"))
_AMAZON: Final = frozenset(("2", "2022", "2023"))
# The ecosystem of a package type.
_ECOSYSTEMS: Final = {
    kind: ecosystem
    for ecosystem, kinds in {
        "bitnami": "bitnami",
        "cargo": "cargo rustbinary",
        "cocoapods": "cocoapods",
        "composer": "composer composer-vendor",
        "conan": "conan",
        "erlang": "hex",
        "go": "gobinary gomod",
        "julia": "julia",
        "k8s": "kubernetes",
        "maven": "gradle jar pom sbt",
        "npm": "bun javascript node-pkg npm pnpm yarn",
        "nuget": "dotnet-core nuget packages-props",
        "pip": "pip pipenv poetry pylock python-pkg uv",
        "pub": "pub",
        "rubygems": "bundler gemspec",
        "swift": "swift",
    }.items()
    for kind in kinds.split()
}


def gaps(
    family: str, version: str, extended: bool, components: Iterable[Component], holdings: Holdings
) -> Iterator[tuple[str, Incomplete]]:
    """Yield the package types for which the database has no advisory, with the gap: no findings prove nothing there."""
    for kind in sorted({component.type for component in components}):
        if kind == family:
            if not _has_release(family, version, extended, holdings):
                release = f"{family} {version}".strip()
                yield (
                    kind,
                    Incomplete(
                        "no_advisories",
                        f"the advisory database has no advisories for {release}, so Trivy "
                        "cannot find vulnerabilities there",
                    ),
                )
        elif not has_ecosystem(kind, holdings):
            detail = (
                f"the advisory database has no advisories for packages of the type {kind or 'unknown'}, "
                "so Trivy cannot find vulnerabilities there"
            )
            yield kind, Incomplete("no_advisories", detail)


def has_ecosystem(kind: str, holdings: Holdings) -> bool:
    """True if the database has advisories for a language's packages."""
    ecosystem = _ECOSYSTEMS.get(kind)
    return ecosystem is not None and holdings.has(f"{ecosystem}::")


def has_system(release: str, holdings: Holdings) -> bool:
    """True if the database has advisories for an operating system: family and version, such as ``debian 12.8``."""
    family, _, version = release.partition(" ")
    return _has_release(family, version, version.endswith("-ESM"), holdings)


def _has_release(family: str, version: str, extended: bool, holdings: Holdings) -> bool:
    if family in _RED_HAT and release_number(family, version) not in holdings.rhel:
        return False
    source = source_of(family, version, extended)
    return bool(source) and holdings.has(source)


def source_of(family: str, version: str, extended: bool) -> str:
    """Return the source in which Trivy looks up the packages of an operating system. Empty: there is none."""
    number = release_number(family, version)
    if family in _RED_HAT:
        return "Red Hat"
    if family == "amazon":  # Trivy treats unknown versions as version 1
        return f"amazon linux {number if number in _AMAZON else 1}"
    source = _SYSTEMS.get(family, "")
    # "debian " without a release would match no bucket today, and perhaps one of another name tomorrow.
    if "{}" in source and not number:
        return ""
    if family == "ubuntu" and extended and number in _ESM:
        number += "-ESM"
    return source.format(number)
