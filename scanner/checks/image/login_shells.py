"""System accounts with a login shell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scanner.checks._passwd import PASSWD, SHADOW, Account, accounts, is_unread, layer_of, passwords, shown_name
from scanner.checks._remedy import run
from scanner.checks.base import ALLOW, FilesCheck, ImageSubject
from scanner.model.filesystem import Rootfs
from scanner.model.finding import Evidence, Incomplete, NotApplicable, Outcome, Severity

# Programs that give no shell, and commands that old distributions set as shells (sync, shutdown, halt).
_NO_SHELLS = frozenset(("nologin", "false", "true", "sync", "shutdown", "halt", "null"))
_LAST_SYSTEM_UID = 999  # SYS_UID_MAX of login.defs in all large distributions


class LoginShells(FilesCheck):
    """Daemon accounts need no shell. With one, an attacker with its password or key gets an interactive session."""

    id = "login-shells"
    title = "System accounts have a login shell"
    severity = Severity.LOW
    remedy = "RUN usermod --shell /usr/sbin/nologin NAME"
    looks_at = "shells of accounts with uid 1 to 999 in etc/passwd, whether the shells exist, and locked passwords"
    cannot_see = "whether the container offers any login"
    article = ("Security",)
    tags = ("users",)
    wants = (SHADOW,)
    parameters = ALLOW

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        unread = [path for path in (PASSWD, SHADOW) if is_unread(rootfs, path)]
        if unread:
            return Incomplete("file_unread", f"{unread[0]} could not be read")
        found = accounts(rootfs)
        if found is None:
            return NotApplicable("the image has no accounts")
        return self.judged(self._open(subject, rootfs, found), subject.parameters)

    def _open(self, subject: ImageSubject, rootfs: Rootfs, found: Sequence[Account]) -> Iterator[Evidence]:
        locked = {name for _, name, password in passwords(rootfs) or () if password.startswith(("!", "*"))}
        layer = layer_of(rootfs, PASSWD)
        for account in found:
            shell = account.shell or "/bin/sh"  # passwd(5)
            if (
                not account.is_known
                or not 1 <= account.uid <= _LAST_SYSTEM_UID
                or shell.rpartition("/")[2] in _NO_SHELLS
            ):
                continue
            if account.name in locked or rootfs.resolve(shell) is None:
                continue
            message = (
                f"{shown_name(account.name)} (uid {account.uid}) has the shell {shown_name(shell)} "
                "and its password is not locked"
            )
            yield subject.evidence(message, layer_index=layer, path=PASSWD, line=account.line, name=account.name)

    def remedy_for(self, evidence: Sequence[Evidence]) -> str:
        """See ``Check.remedy_for``."""
        return run("usermod --shell /usr/sbin/nologin", (item.name for item in evidence), each=True)
