"""Setuid and setgid programs (CIS Docker 4.8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from scanner.checks._distribution import WANTS, Distribution
from scanner.checks._remedy import run
from scanner.checks.base import ALLOW, FilesCheck, ImageSubject
from scanner.model.filesystem import FileEntry, FileType, Rootfs
from scanner.model.finding import Evidence, Outcome, Severity

# Setuid and setgid programs of distributions. Containers do not need them, but they are not suspicious.
_DISTRIBUTIONS_OWN = (
    "su mount umount passwd chsh chfn gpasswd newgrp chage expiry unix_chkpwd unix_update wall write "
    "write.ul bsd-write ssh-agent"
    " ssh-keysign crontab at dotlockfile dbus-daemon-launch-helper pkexec polkit-agent-helper-1 fusermount "
    "fusermount3 ping ping6"
    " pam_timestamp_check userhelper utempter mlocate plocate locate newuidmap newgidmap bbsuid sg vlock "
    "mount.nfs pam_extrausers_chkpwd"
    " grub2-set-bootflag"
)
_PACKAGES = ("dpkg:", "apk:", "rpm:")
_SYSTEM = ("bin/", "sbin/", "usr/bin/", "usr/sbin/", "usr/lib/", "usr/libexec/", "lib/")


class SetuidFiles(FilesCheck):
    """A setuid program lets an unprivileged user regain root. Programs that no distribution ships are more severe.

    Every base image of a distribution has ``su``, ``mount`` and ``passwd``. These are accepted, and listed as accepted,
    if the package database (dpkg, apk or rpm) lists the file in a package of the distribution, and its content and mode
    are those of the package. The parameter ``distribution: false`` accepts none.
    """

    id = "setuid-files"
    title = "Setuid or setgid programs"
    severity = Severity.MEDIUM
    remedy = "RUN find / -xdev -perm /6000 -type f -exec chmod a-s {} +"
    looks_at = (
        "mode bits of all files that a container sees; for programs of a distribution, whether the package that "
        "dpkg, apk or rpm lists ships them with this mode"
    )
    cannot_see = "no-new-privileges, which disables their effect"
    cis = ("4.8",)
    dockle = ("CIS-DI-0008",)
    article = ("Security: Run as Non-Root",)
    tags = ("files",)
    parameters: ClassVar[dict[str, Any]] = {**ALLOW, "distribution": True}
    wants = WANTS

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        found = sorted(self._privileged_files(subject, rootfs), key=lambda item: item.path)
        return self.judged(found, subject.parameters)

    def _privileged_files(self, subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
        distribution: Distribution | None = None
        for path, placed in rootfs.files.items():
            entry = placed.entry
            if not entry.mode & 0o6000:
                continue
            # setgid without group execute permission meant mandatory locking (chmod(2)) and grants nothing.
            setgid = entry.setgid and bool(entry.mode & 0o010)
            if entry.type not in (FileType.FILE, FileType.HARDLINK) or not (entry.setuid or setgid):
                continue
            kinds = " and ".join(name for name, given in (("setuid", entry.setuid), ("setgid", setgid)) if given)
            message = f"/{path} is {kinds} (mode {entry.mode:04o}, owner {entry.uid}:{entry.gid})"
            distribution = distribution or Distribution(rootfs)
            package = distribution.owner(path, entry) if _is_as_shipped(path, entry) else ""
            if package:
                message += f"; an unchanged file of the distribution (package {package.partition(':')[2]})"
            yield subject.evidence(message, layer_index=placed.layer, path=path, name=package)

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """See ``Check.tolerates``."""
        owned = evidence.name.startswith(_PACKAGES)
        return (owned and bool(parameters.get("distribution"))) or super().tolerates(evidence, parameters)

    def severity_of(self, evidence: Sequence[Evidence]) -> Severity | None:
        """See ``Check.severity_of``."""
        return Severity.LOW if all(_is_expected(item.path) for item in evidence) else None

    def remedy_for(self, evidence: Sequence[Evidence]) -> str:
        """See ``Check.remedy_for``."""
        return run("chmod a-s", (item.path and f"/{item.path}" for item in evidence))


def _is_as_shipped(path: str, entry: FileEntry) -> bool:
    """Whether owner and mode are such as a package gives: root's, not writable by others."""
    return (
        _is_expected(path)
        and entry.type is FileType.FILE
        and not entry.link
        and entry.uid == 0
        and not entry.mode & 0o022
    )


def _is_expected(path: str) -> bool:
    return path.startswith(_SYSTEM) and path.rpartition("/")[2] in _DISTRIBUTIONS_OWN.split()
