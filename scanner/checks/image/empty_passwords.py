"""Accounts without a password (Dockle DKL-LI-0001)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scanner.checks._passwd import PASSWD, SHADOW, accounts, is_unread, layer_of, passwords, shown_name
from scanner.checks._remedy import run
from scanner.checks.base import ALLOW, FilesCheck, ImageSubject
from scanner.model.filesystem import Rootfs
from scanner.model.finding import Evidence, Incomplete, NotApplicable, Outcome, Severity

_MASTER = "etc/master.passwd"


class EmptyPasswords(FilesCheck):
    """With an empty password field, any user in the container can become that account (CVE-2019-5021)."""

    id = "empty-passwords"
    title = "Accounts without a password"
    severity = Severity.HIGH
    remedy = "RUN passwd -l NAME"
    looks_at = "the password fields of etc/shadow, etc/master.passwd and etc/passwd"
    cannot_see = "other authentication methods (PAM modules, directory services)"
    dockle = ("DKL-LI-0001",)
    article = ("Security",)
    tags = ("users",)
    wants = (SHADOW, _MASTER)
    parameters = ALLOW

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        files = [path for path in (SHADOW, _MASTER, PASSWD) if rootfs.resolve(path) is not None]
        if not files:
            return NotApplicable("the image has no accounts")
        unread = [path for path in files if is_unread(rootfs, path)]
        if unread:
            return Incomplete("file_unread", f"{unread[0]} could not be read")
        return self.judged(self._empty(subject, rootfs), subject.parameters)

    def _empty(self, subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
        fields = [(SHADOW, *line) for line in passwords(rootfs, SHADOW) or ()]
        fields += [(_MASTER, *line) for line in passwords(rootfs, _MASTER) or ()]
        fields += [(PASSWD, a.line, a.name, a.password) for a in accounts(rootfs) or () if a.is_known]
        for path, line, name, password in fields:
            if not password:
                yield subject.evidence(
                    f"{shown_name(name)} has no password (line {line} of /{path})",
                    layer_index=layer_of(rootfs, path),
                    path=path,
                    line=line,
                    name=name,
                )

    def remedy_for(self, evidence: Sequence[Evidence]) -> str:
        """See ``Check.remedy_for``."""
        return run("passwd -l", (item.name for item in evidence), each=True)
