"""Number of operating system packages (CIS Docker 4.3; article: start with minimal base images)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from scanner.checks.base import FilesCheck, ImageSubject
from scanner.model.filesystem import Rootfs
from scanner.model.finding import Evidence, Incomplete, NotApplicable, Outcome, Severity
from scanner.registry.packages import package_databases


class MinimalBase(FilesCheck):
    """Every package must be pulled and patched, and may help an attacker. Counts the packages of package databases."""

    id = "minimal-base"
    title = "Many operating system packages"
    severity = Severity.LOW
    remedy = "FROM the slim, alpine or distroless variant of the base, or FROM scratch for a static program"
    looks_at = "the number of packages in the dpkg, apk and rpm databases, compared with max_packages"
    cannot_see = "which packages the service uses"
    cis = ("4.3",)
    dockle = ("CIS-DI-0003",)
    article = ("Image Management: Keep Images Small",)
    tags = ("size", "base")
    parameters: ClassVar[Mapping[str, Any]] = MappingProxyType({"max_packages": 150})

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        there = package_databases(rootfs)
        if not there.databases:
            return NotApplicable("the image has no package database")
        if any(database.packages is None for database in there.databases):
            return Incomplete(
                "packages_not_counted", "the packages of a database could not be counted; see the engine's components"
            )
        system = f"{there.os_id} {there.os_version}".strip() or "the system"
        path = max(there.databases, key=lambda database: database.packages or 0).path
        resolved = rootfs.resolve(path)
        layer = rootfs.files[resolved].layer if resolved else None
        message = f"{there.listed} packages of {system} are installed"
        return self.judged(
            [subject.evidence(message, layer_index=layer, path=path, amount=float(there.listed))], subject.parameters
        )

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """See ``Check.tolerates``."""
        return evidence.amount is not None and evidence.amount <= parameters["max_packages"]
