"""Registry versions with known vulnerabilities."""

from __future__ import annotations

from dataclasses import dataclass

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity


@dataclass(frozen=True)
class _Hole:
    product: str
    fixed: tuple[int, ...]  # the first version without it
    name: str
    what: str  # what an attacker gains


_HOLES = (
    _Hole("Nexus", (3, 21, 2), "CVE-2020-10199", "code execution"),
    _Hole("Nexus", (3, 68, 1), "CVE-2024-4956", "anonymous clients can read any file of the server"),
    _Hole("Harbor", (1, 8, 3), "CVE-2019-16097", "any user can become administrator"),
)


class RegistryVersion(RegistryCheck):
    """Most registries do not send their version; the check is then incomplete. The severity of a finding is high."""

    id = "registry-version"
    title = "Version with known vulnerabilities"
    severity = Severity.LOW
    remedy = "upgrade the registry to a version that its maintainers support"
    looks_at = (
        "product and version in the Server header, compared with a short list of vulnerabilities that "
        "need no authentication"
    )
    cannot_see = "unknown versions; other vulnerabilities: scan the registry's image, too"
    article = ("Security: Registry Security",)
    tags = ("registry",)

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        software = subject.facts.software
        if isinstance(software, Incomplete):
            return software
        if not software.version:
            return Incomplete("version_not_told", "the registry does not send its product and version")
        if software.product not in {hole.product for hole in _HOLES}:
            return Incomplete("product_not_listed", f"no list of vulnerabilities of {software.product} is available")
        version = tuple(int(part) for part in software.version.split("."))
        found = [hole for hole in _HOLES if hole.product == software.product and version < hole.fixed]
        if not found:
            return Passed()
        said = f"{software.product} {software.version}"
        return Failed(tuple(Evidence(f"{said}: {hole.name}, {hole.what}") for hole in found), Severity.HIGH)
