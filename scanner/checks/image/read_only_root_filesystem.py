"""Cannot run with a read-only root file system as it is (CIS Docker 5.13)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.filesystem import FileType, Rootfs
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity

# Programs that are known to write, and where, unless told otherwise. What stands here is in their packages' own defaults.
_WRITERS = {
    "usr/sbin/nginx": ("var/cache/nginx", "var/run", "var/log/nginx"),
    "usr/sbin/apache2": ("var/run/apache2", "var/lock/apache2", "var/log/apache2"),
    "usr/sbin/httpd": ("var/run/httpd", "var/log/httpd"),
    "usr/sbin/mysqld": ("var/lib/mysql", "var/run/mysqld", "tmp"),
    "usr/bin/redis-server": ("var/lib/redis",),
    "usr/bin/mongod": ("var/lib/mongodb", "tmp"),
    "usr/sbin/php-fpm": ("var/run", "var/log"),
}
_STATE = re.compile(r"(?:^|/)(?:var/(?:log|cache|spool|lib)/[^/]+)$")


@dataclass(frozen=True)
class Need:
    """A directory that has to be writable, why we think so, and how sure that is."""

    path: str
    why: str
    certain: bool
    layer: int | None = None


class ReadOnlyRootFilesystem(ImageCheck):
    """Whether ``--read-only`` would work: which directories the image shows that it writes, outside its declared volumes."""

    id = "read-only-root-filesystem"
    title = "Needs a writable root file system"
    severity = Severity.MEDIUM
    remedy = "run with --read-only and a --tmpfs or volume for each directory that is named"
    looks_at = "the running user's own directories, log files, known servers' directories, the working directory and declared volumes"
    cannot_see = "what the program does when it runs: the answer is a forecast and says how sure it is"
    cis = ("5.13",)
    article = ("Security: Read-Only Filesystems", "Logging and Monitoring: Centralized Logging")
    tags = ("read-only",)

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        if subject.rootfs is None:
            return Incomplete("layers_unreadable", subject.rootfs_reason)
        volumes = tuple(volume.strip("/") for volume in subject.image.config.volumes)
        needs = [need for need in _needs(subject, subject.rootfs) if not _inside(need.path, volumes)]
        paths = sorted({need.path for need in needs})
        if not paths:
            return Passed()
        flags = " ".join(f"--tmpfs /{path}" for path in paths)
        evidence = tuple(self._evidence(subject, need) for need in {n.path: n for n in reversed(needs)}.values())
        return Failed(tuple(sorted(evidence, key=lambda e: e.path)), remedy=f"docker run --read-only {flags}")

    def _evidence(self, subject: ImageSubject, need: Need) -> Evidence:
        sure = "certain" if need.certain else "likely"
        return subject.evidence(f"/{need.path} is written ({sure}): {need.why}", layer_index=need.layer, path=need.path)


def _needs(subject: ImageSubject, rootfs: Rootfs) -> Iterator[Need]:
    for program, directories in _WRITERS.items():
        if program in rootfs.files and _started(subject, program):
            for directory in directories:
                if not _to_console(rootfs, directory):
                    yield Need(
                        directory,
                        f"/{program} writes there by default",
                        certain=True,
                        layer=rootfs.files[program].layer,
                    )
    for placed in rootfs:
        entry = placed.entry
        if (
            entry.type is FileType.FILE
            and entry.path.startswith("var/log/")
            and entry.path.endswith(".log")
            and placed.layer > 0
        ):
            yield Need(
                entry.path.rpartition("/")[0],
                f"holds the log file {entry.path.rpartition('/')[2]}",
                certain=False,
                layer=placed.layer,
            )
        if entry.type is FileType.DIRECTORY and _owned_state(subject, entry.path, entry.uid):
            yield Need(
                entry.path,
                f"belongs to the running user {subject.image.config.user}",
                certain=False,
                layer=placed.layer,
            )


def _started(subject: ImageSubject, program: str) -> bool:
    """Whether the entrypoint or command names the program."""
    command = " ".join((*subject.image.config.entrypoint, *subject.image.config.cmd))
    return program.rpartition("/")[2] in re.split(r"[^A-Za-z0-9._-]+", command)


def _owned_state(subject: ImageSubject, path: str, uid: int) -> bool:
    """A state directory that somebody gave to the (non-root) user that runs: that is done in order to write there."""
    user = subject.image.config.user.partition(":")[0]
    return user.isdigit() and int(user) == uid != 0 and bool(_STATE.search(path))


def _to_console(rootfs: Rootfs, directory: str) -> bool:
    """Logs that are links to the console need no directory."""
    inside = [p for p in rootfs if p.entry.path.startswith(directory + "/")]
    return bool(inside) and all(p.entry.type is FileType.SYMLINK and p.entry.link.startswith("/dev/") for p in inside)


def _inside(path: str, volumes: tuple[str, ...]) -> bool:
    return any(path == volume or path.startswith(volume + "/") for volume in volumes)
