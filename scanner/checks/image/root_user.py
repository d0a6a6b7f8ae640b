"""Image that runs as root (CIS Docker 4.1)."""

from __future__ import annotations

from scanner.checks._passwd import MAX_ID, PASSWD, accounts, is_unread, is_windows, runtime_id, uid_of_number
from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity


class RootUser(ImageCheck):
    """Recognises root in every form that runtimes accept: name, number, ``0:0``, ``00``, ``+0``, a number that
    overflows to 0 (CVE-2024-40635), a name with uid 0 in the image's passwd (a number may be such a name). A user that
    cannot be resolved counts as root.
    """

    id = "root-user"
    title = "Runs as root"
    severity = Severity.HIGH
    remedy = "USER 10001:10001"
    looks_at = "config.User and the image's etc/passwd, parsed like container runtimes"
    cannot_see = "entrypoints that change the user; users that are set at run time"
    cis = ("4.1",)
    dockle = ("CIS-DI-0001",)
    trivy = ("DS-0002",)
    article = ("Security: Run as Non-Root",)
    pss = ("runAsNonRoot", "runAsUser")
    tags = ("users",)

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        user = subject.image.config.user
        name = user.partition(":")[0]
        if subject.image.platform.os == "windows" and subject.rootfs is None:
            return Incomplete("layers_unreadable", subject.rootfs_reason)
        if subject.rootfs is not None and is_windows(subject.image.platform, subject.rootfs):
            return self._on_windows(subject, name)
        if not name.strip():
            return self._root(subject, "no USER is set, so the container starts as root")
        uid = runtime_id(name)
        if uid is None:
            return self._outcome_of_name(subject, user, name)
        if uid == 0:
            how = "" if name.strip("0") == "" else ": runtimes use only 32 bits (CVE-2024-40635)"
            return self._root(subject, f"USER {user} is uid 0{how}")
        if not 0 < int(name) <= MAX_ID:
            return self._root(subject, f"USER {user} is not a valid uid; a user that cannot be resolved counts as root")
        if subject.rootfs is not None and uid_of_number(subject.rootfs, name) == 0:
            message = f"a user with uid 0 has the name {name} in the image's etc/passwd"
            return self._root(subject, f"{message}, and Docker before 1.11.2 starts that user (CVE-2016-3697)")
        return Passed()

    def _on_windows(self, subject: ImageSubject, name: str) -> Outcome:
        """Evaluate a Windows user.

        https://learn.microsoft.com/virtualization/windowscontainers/manage-containers/container-security
        """
        if name.lower() in ("", "containeradministrator"):
            return self._root(subject, "the container starts as ContainerAdministrator")
        if name.lower() == "containeruser":
            return Passed()
        return Incomplete(
            "user_unresolved", f"the config does not show whether the Windows user {name!r} is an administrator"
        )

    def _outcome_of_name(self, subject: ImageSubject, user: str, name: str) -> Outcome:
        if name.strip() == "root":
            return self._root(subject, f"USER {user} is root")
        if subject.rootfs is None:
            return Incomplete("layers_unreadable", subject.rootfs_reason)
        if is_unread(subject.rootfs, PASSWD):
            return Incomplete(
                "file_unread", f"USER {user!r} cannot be looked up: the image's etc/passwd could not be read"
            )
        account = next((a for a in accounts(subject.rootfs) or () if a.name == name), None)
        if account is None:
            return self._root(
                subject,
                f"USER {user!r} is not in the image's etc/passwd; a user that cannot be resolved counts as root",
            )
        if account.uid == 0:
            return self._root(subject, f"USER {user} is uid 0 in line {account.line} of the image's etc/passwd")
        return Passed()

    def _root(self, subject: ImageSubject, message: str) -> Outcome:
        return Failed((subject.setting(message, "USER", pointer="/config/User"),), remedy=self._remedy(subject))

    def _remedy(self, subject: ImageSubject) -> str:
        """Return a USER instruction with the only unprivileged account of the image. Empty: none or several."""
        found = accounts(subject.rootfs) if subject.rootfs is not None else None
        own = {a.name: a for a in found or () if 1000 <= a.uid < 65534 and a.gid}
        if len(own) != 1:
            return ""
        account = next(iter(own.values()))
        return f"USER {account.uid}:{account.gid}"
