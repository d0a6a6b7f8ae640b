"""World-writable files and directories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from scanner.checks._remedy import run
from scanner.checks.base import ALLOW, FilesCheck, ImageSubject
from scanner.model.filesystem import FileEntry, FileType, Rootfs
from scanner.model.finding import Evidence, Outcome, Severity

_KERNELS = ("dev/", "proc/", "sys/")  # container runtimes mount their own file systems here
_SYSTEM = ("etc", "usr", "bin", "sbin", "lib", "lib64", "boot", "root")


class WorldWritableFiles(FilesCheck):
    """An attacker with any user id can change world-writable files.

    Directories with the sticky bit (``/tmp``) are accepted. Files below a writable directory are counted with it.
    """

    id = "world-writable-files"
    title = "World-writable files"
    severity = Severity.MEDIUM
    remedy = "RUN chmod -R o-w /path"
    looks_at = "mode bits of all files and directories that a container sees"
    cannot_see = "access control lists; a read-only root file system"
    article = ("Security: Read-Only Filesystems",)
    tags = ("files",)
    parameters = ALLOW

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        return self.judged(self._writable(subject, rootfs), subject.parameters)

    def _writable(self, subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
        writable = {path for path, placed in rootfs.files.items() if _is_writable(path, placed.entry)}
        directories = {path for path in writable if rootfs.files[path].entry.type is FileType.DIRECTORY}
        below: Counter[str] = Counter()
        tops = []
        for path in sorted(writable):
            above = _highest(path, directories)
            if above == path:
                tops.append(path)
            else:
                below[above] += 1
        for path in tops:
            placed = rootfs.files[path]
            what = "directory without sticky bit" if path in directories else "file"
            more = f", with {below[path]} more entries below it" if below[path] else ""
            message = f"/{path} is world-writable ({what}, mode {placed.entry.mode:04o}){more}"
            yield subject.evidence(message, layer_index=placed.layer, path=path)

    def severity_of(self, evidence: Sequence[Evidence]) -> Severity | None:
        """See ``Check.severity_of``."""
        return Severity.HIGH if any(item.path.partition("/")[0] in _SYSTEM for item in evidence) else None

    def remedy_for(self, evidence: Sequence[Evidence]) -> str:
        """See ``Check.remedy_for``."""
        return run("chmod -R o-w", (item.path and f"/{item.path}" for item in evidence))


def _is_writable(path: str, entry: FileEntry) -> bool:
    if not entry.mode & 0o002 or path.startswith(_KERNELS):
        return False
    if entry.type is FileType.DIRECTORY:
        return not entry.mode & 0o1000
    # A symbolic link has the mode 0777 always, and it means nothing (symlink(7)).
    return entry.type in (FileType.FILE, FileType.HARDLINK, FileType.FIFO)


def _highest(path: str, directories: set[str]) -> str:
    """Return the topmost parent of ``path`` in ``directories``, or ``path`` itself."""
    parts = path.split("/")
    return next((top for n in range(1, len(parts)) if (top := "/".join(parts[:n])) in directories), path)
