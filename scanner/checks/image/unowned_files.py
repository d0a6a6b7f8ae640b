"""Files with unknown users or groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from os.path import commonpath

from scanner.checks._passwd import GROUP, PASSWD, accounts, groups, is_unread, runtime_id
from scanner.checks.base import ALLOW, FilesCheck, ImageSubject
from scanner.model.filesystem import Rootfs
from scanner.model.finding import Evidence, Incomplete, NotApplicable, Outcome, Severity

_OVERFLOW = 65534  # shown for ids without a mapping; named nobody or nogroup


class UnownedFiles(FilesCheck):
    """A later account may get the unknown id and thus the files. Usually it is the id of the build host's user."""

    id = "unowned-files"
    title = "Files with an unknown owner"
    severity = Severity.LOW
    remedy = "COPY --chown=0:0 . /app"
    looks_at = "owner and group of all files, compared with etc/passwd, etc/group and config.User"
    cannot_see = "ids from a user namespace or a directory service"
    article = ("Security",)
    tags = ("files",)
    parameters = ALLOW

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        unread = [path for path in (PASSWD, GROUP) if is_unread(rootfs, path)]
        if unread:
            return Incomplete("file_unread", f"{unread[0]} could not be read")
        users, teams = accounts(rootfs), groups(rootfs)
        if users is None or teams is None:
            return NotApplicable("the image has no accounts, so all owners are unknown")
        user, _, group = subject.image.config.user.partition(":")
        uids = {0, _OVERFLOW, runtime_id(user), *(a.uid for a in users if a.is_known)}
        gids = {0, _OVERFLOW, runtime_id(group), *(g.gid for g in teams), *(a.gid for a in users if a.is_known)}
        gids |= {number for number in (runtime_id(user),) if not group}  # COPY --chown=10001 sets uid and gid
        return self.judged(self._unowned_files(subject, rootfs, uids, gids), subject.parameters)

    def _unowned_files(
        self, subject: ImageSubject, rootfs: Rootfs, uids: set[int | None], gids: set[int | None]
    ) -> Iterator[Evidence]:
        found: dict[tuple[int, str, int], list[str]] = defaultdict(list)
        for path, placed in rootfs.files.items():
            entry = placed.entry
            if entry.uid not in uids:
                found[placed.layer, "uid", entry.uid].append(path)
            elif entry.gid not in gids:
                found[placed.layer, "gid", entry.gid].append(path)
        for (layer, what, number), paths in sorted(found.items()):
            top = commonpath(paths)
            where = f"/{top}" if len(paths) == 1 else f"{len(paths)} files below /{top}"
            message = (
                f"{where} belong{'s' if len(paths) == 1 else ''} to {what} {number}, which has no account in the image"
            )
            yield subject.evidence(message, layer_index=layer, path=top, name=str(number))
