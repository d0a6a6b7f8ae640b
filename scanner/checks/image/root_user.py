"""Runs as root (CIS Docker 4.1)."""

from __future__ import annotations

from scanner.checks._passwd import accounts, number
from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.finding import Failed, Incomplete, Outcome, Passed, Severity


class RootUser(ImageCheck):
    """The user a container starts as, in every spelling: name, number, ``0:0``, ``00``, a name that the image's own passwd maps to 0."""

    id = "root-user"
    title = "Runs as root"
    severity = Severity.HIGH
    remedy = "USER 10001:10001"
    looks_at = "config.User and the image's own etc/passwd"
    cannot_see = "an entrypoint that changes its user itself, or a user given when the container is started"
    cis = ("4.1",)
    dockle = ("CIS-DI-0001",)
    article = ("Security: Run as Non-Root",)
    pss = ("runAsNonRoot", "runAsUser")
    tags = ("users",)

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        user = subject.image.config.user.strip()
        name = user.partition(":")[0]
        if not name:
            return self._root(subject, "no USER is set, so the container starts as root")
        uid = number(name)
        if uid is not None:
            return self._root(subject, f"USER {user} is uid 0") if uid == 0 else Passed()
        return self._named(subject, user, name)

    def _named(self, subject: ImageSubject, user: str, name: str) -> Outcome:
        if name == "root":
            return self._root(subject, f"USER {user} is root")
        if subject.rootfs is None:
            return Incomplete("layers_unreadable", subject.rootfs_reason)
        found = accounts(subject.rootfs)
        account = next((a for a in found or () if a.name == name), None)
        if account is None or account.uid is None:
            return Incomplete(
                "user_unresolved", f"USER {user!r} is not in the image's etc/passwd, so its uid is not known"
            )
        if account.uid == 0:
            return self._root(subject, f"USER {user} is uid 0 in the image's own etc/passwd")
        return Passed()

    def _root(self, subject: ImageSubject, message: str) -> Outcome:
        return Failed((subject.evidence(message, pointer="/config/User"),))
