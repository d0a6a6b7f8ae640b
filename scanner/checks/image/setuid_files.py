"""Files that give privileges to whoever runs them (CIS Docker 4.8)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.filesystem import FileType, PlacedFile
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity


class SetuidFiles(ImageCheck):
    """setuid and setgid programs, and file capabilities, which give the same without showing in ``ls -l``."""

    id = "setuid-files"
    title = "setuid, setgid or capable files"
    severity = Severity.MEDIUM
    remedy = "RUN find / -xdev -perm /6000 -type f -exec chmod a-s {} +"
    looks_at = "mode bits and the security.capability attribute of every file that a container would see"
    cannot_see = "whether the container runs with no-new-privileges, which takes their effect away"
    cis = ("4.8",)
    dockle = ("CIS-DI-0008",)
    article = ("Security",)
    tags = ("files",)
    parameters: ClassVar[dict[str, Any]] = {"allow": ()}

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        if subject.rootfs is None:
            return Incomplete("layers_unreadable", subject.rootfs_reason)
        allowed = {str(path).lstrip("/") for path in subject.parameters.get("allow", ())}
        found = tuple(
            e for placed in subject.rootfs for e in self._privileged(subject, placed) if e.path not in allowed
        )
        return Failed(tuple(sorted(found, key=lambda e: e.path))) if found else Passed()

    def _privileged(self, subject: ImageSubject, placed: PlacedFile) -> Iterator[Evidence]:
        entry = placed.entry
        if entry.type not in (FileType.FILE, FileType.HARDLINK):
            return
        kinds = [
            name
            for name, given in (("setuid", entry.setuid), ("setgid", entry.setgid), ("capabilities", entry.capability))
            if given
        ]
        if kinds:
            owner = f"owner {entry.uid}:{entry.gid}"
            yield subject.evidence(
                f"/{entry.path} has {' and '.join(kinds)} ({owner})", layer_index=placed.layer, path=entry.path
            )
