"""Accounts or groups with the same id (Dockle DKL-LI-0002)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from scanner.checks._passwd import GROUP, PASSWD, accounts, groups, is_unread, layer_of, shown_name
from scanner.checks.base import ALLOW, FilesCheck, ImageSubject
from scanner.model.filesystem import Rootfs
from scanner.model.finding import Evidence, Incomplete, NotApplicable, Outcome, Severity


class DuplicateIds(FilesCheck):
    """For the kernel, accounts with the same uid are one account.

    Duplicate names are resolved differently by programs.
    """

    id = "duplicate-ids"
    title = "Accounts or groups share an id"
    severity = Severity.MEDIUM
    remedy = "RUN usermod --uid 10002 NAME"
    looks_at = "uids and names in etc/passwd, gids and names in etc/group"
    cannot_see = "accounts from a directory service"
    dockle = ("DKL-LI-0002",)
    article = ("Security",)
    tags = ("users",)
    parameters = ALLOW

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        files = [path for path in (PASSWD, GROUP) if rootfs.resolve(path) is not None]
        if not files:
            return NotApplicable("the image has no accounts")
        unread = [path for path in files if is_unread(rootfs, path)]
        if unread:
            return Incomplete("file_unread", f"{unread[0]} could not be read")
        users = [(a.name, a.uid, a.line) for a in accounts(rootfs) or () if a.is_known]
        teams = [(g.name, g.gid, g.line) for g in groups(rootfs) or ()]
        found = [
            *self._shared_ids(subject, rootfs, PASSWD, "uid", users),
            *self._shared_ids(subject, rootfs, GROUP, "gid", teams),
        ]
        return self.judged(found, subject.parameters)

    def _shared_ids(
        self, subject: ImageSubject, rootfs: Rootfs, path: str, what: str, rows: Iterable[tuple[str, int, int]]
    ) -> Iterator[Evidence]:
        by_id: dict[int, list[tuple[str, int]]] = defaultdict(list)
        by_name: dict[str, list[int]] = defaultdict(list)
        for name, number, line in rows:
            by_id[number].append((name, line))
            by_name[name].append(line)
        layer = layer_of(rootfs, path)
        for number, holders in by_id.items():
            names = list(dict.fromkeys(name for name, _ in holders))
            if len(names) > 1 and not (what == "uid" and number == 0):  # the check extra-root-accounts reports these
                message = f"{' and '.join(map(shown_name, names[:5]))} have the same {what} {number}"
                yield subject.evidence(message, layer_index=layer, path=path, line=holders[1][1], name=names[1])
        for name, lines in by_name.items():
            if len(lines) > 1:
                message = (
                    f"{shown_name(name)} is {len(lines)} times in /{path}: programs differ in which entry they use"
                )
                yield subject.evidence(message, layer_index=layer, path=path, line=lines[1], name=name)
