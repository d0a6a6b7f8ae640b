"""USER is a name (Pod Security Standards: runAsNonRoot)."""

from __future__ import annotations

from scanner.checks._passwd import PASSWD, accounts, is_unread, is_windows, runtime_id
from scanner.checks.base import FilesCheck, ImageSubject
from scanner.model.filesystem import Rootfs
from scanner.model.finding import Failed, Incomplete, NotApplicable, Outcome, Passed, Severity


class NumericUser(FilesCheck):
    """With ``runAsNonRoot``, Kubernetes refuses an image whose user is a name, because it does not read etc/passwd."""

    id = "numeric-user"
    title = "User is a name, not a number"
    severity = Severity.LOW
    remedy = "USER 10001:10001"
    looks_at = "config.User"
    cannot_see = "whether a workload sets runAsNonRoot or runAsUser"
    article = ("Security: Run as Non-Root",)
    pss = ("runAsNonRoot",)
    tags = ("users",)

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        name = subject.image.config.user.partition(":")[0]
        if is_windows(subject.image.platform, rootfs):
            return NotApplicable("Windows users have names only")
        if name in ("", "root") or runtime_id(name) == 0:
            return NotApplicable("the image runs as root: see root-user")
        if runtime_id(name) is not None:
            return Passed()
        if is_unread(rootfs, PASSWD):
            return Incomplete("file_unread", "the image's etc/passwd could not be read")
        account = next((a for a in accounts(rootfs) or () if a.name == name), None)
        message = f"USER {name} is a name: Kubernetes refuses it with runAsNonRoot"
        remedy = f"USER {account.uid}:{account.gid}" if account and account.uid else ""
        return Failed((subject.setting(message, "USER", pointer="/config/User", name=name),), remedy=remedy)
