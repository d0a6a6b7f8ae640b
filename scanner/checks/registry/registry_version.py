"""A version with known holes, as far as the registry says what it is."""

from __future__ import annotations

from dataclasses import dataclass

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity


@dataclass(frozen=True)
class _Hole:
    product: str
    fixed: tuple[int, ...]
    name: str
    what: str


_HOLES = (
    _Hole("Nexus", (3, 21, 2), "CVE-2020-10199", "code execution"),
    _Hole("Nexus", (3, 68, 1), "CVE-2024-4956", "any file of the server is readable without credentials"),
    _Hole("Harbor", (1, 8, 3), "CVE-2019-16097", "anybody can make themselves an administrator"),
)


class RegistryVersion(RegistryCheck):
    """Few registries say their version, so a version that is not told is unknown.

    Severity is that of the hole, high, where one is found.
    """

    id = "registry-version"
    title = "Version with known holes"
    severity = Severity.LOW
    remedy = "upgrade the registry to a version that its maintainers support"
    looks_at = "product and version in the Server header, against a short list of holes that let anybody in"
    cannot_see = "versions that are not told; other holes: scan the registry's own image as well"
    article = ("Security: Registry Security",)
    tags = ("registry",)

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        software = subject.facts.software
        if isinstance(software, Incomplete):
            return software
        if not software.version:
            return Incomplete("version_not_told", "it does not say which version of what it is")
        if software.product not in {hole.product for hole in _HOLES}:
            return Incomplete("product_not_listed", f"no list of the holes of {software.product} is kept here")
        version = tuple(int(part) for part in software.version.split("."))
        found = [hole for hole in _HOLES if hole.product == software.product and version < hole.fixed]
        if not found:
            return Passed()
        said = f"{software.product} {software.version}"
        return Failed(tuple(Evidence(f"{said}: {hole.name}, {hole.what}") for hole in found), Severity.HIGH)
