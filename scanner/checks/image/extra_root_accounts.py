"""Accounts other than root with uid 0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scanner.checks._passwd import PASSWD, accounts, is_unread, layer_of, shown_name
from scanner.checks._remedy import run
from scanner.checks.base import ALLOW, FilesCheck, ImageSubject
from scanner.model.filesystem import Rootfs
from scanner.model.finding import Evidence, Incomplete, NotApplicable, Outcome, Severity


class ExtraRootAccounts(FilesCheck):
    """Another account with uid 0 is root, but easily overlooked. Runtimes also read a non-numeric uid as 0."""

    id = "extra-root-accounts"
    title = "Accounts other than root have uid 0"
    severity = Severity.HIGH
    remedy = "RUN userdel NAME"
    looks_at = "uids in etc/passwd as container runtimes parse them"
    cannot_see = "accounts from a directory service"
    dockle = ("DKL-LI-0002",)
    article = ("Security: Run as Non-Root",)
    tags = ("users",)
    parameters = ALLOW

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        found = accounts(rootfs)
        if found is None and is_unread(rootfs, PASSWD):
            return Incomplete("file_unread", "etc/passwd could not be read")
        if found is None:
            return NotApplicable("the image has no accounts")
        return self.judged(self._extra(subject, rootfs), subject.parameters)

    def _extra(self, subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
        layer = layer_of(rootfs, PASSWD)
        for account in accounts(rootfs) or ():
            if account.uid == 0 and account.name != "root":
                how = (
                    "uid 0"
                    if account.uid_text.strip("0+-") == "" and account.uid_text
                    else "a uid that runtimes read as 0"
                )
                written = "" if how == "uid 0" else f" ({account.uid_text[:40]!r})"
                message = f"{shown_name(account.name)} has {how}{written}"
                yield subject.evidence(message, layer_index=layer, path=PASSWD, line=account.line, name=account.name)

    def remedy_for(self, evidence: Sequence[Evidence]) -> str:
        """See ``Check.remedy_for``."""
        return run("userdel --force", (item.name for item in evidence), each=True)
