"""Programs with file capabilities (CIS Docker 4.8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scanner.checks._remedy import run
from scanner.checks.base import ALLOW, FilesCheck, ImageSubject
from scanner.model.filesystem import Rootfs
from scanner.model.finding import Evidence, Outcome, Severity

# In the order of include/uapi/linux/capability.h.
_NAMES = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable "
    "net_bind_service net_broadcast"
    " net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin "
    "sys_boot sys_nice"
    " sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override "
    "mac_admin syslog wake_alarm"
    " block_suspend audit_read perfmon bpf checkpoint_restore"
)
# Each of these is equivalent to root or easily leads to it.
_AS_ROOT = (
    "chown dac_override dac_read_search fowner setgid setuid setpcap net_admin sys_module sys_rawio "
    "sys_ptrace sys_admin mknod setfcap"
    " mac_override mac_admin bpf"
)
_REVISIONS = {1: 12, 2: 20, 3: 24}  # VFS_CAP_REVISION -> size of the attribute


class FileCapabilities(FilesCheck):
    """File capabilities grant parts of root's privileges, like setuid, but ``ls -l`` does not show them."""

    id = "file-capabilities"
    title = "Programs with file capabilities"
    severity = Severity.MEDIUM
    remedy = "RUN setcap -r /path/to/program"
    looks_at = "the security.capability attribute of all files that a container sees"
    cannot_see = "the container's capabilities: those that the runtime drops cannot be gained"
    cis = ("4.8",)
    dockle = ("CIS-DI-0008",)
    article = ("Security: Run as Non-Root",)
    pss = ("capabilities",)
    tags = ("files",)
    parameters = ALLOW

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        return self.judged(sorted(self._capable(subject, rootfs), key=lambda item: item.path), subject.parameters)

    def _capable(self, subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
        for path, placed in rootfs.files.items():
            if placed.entry.capability:
                names = decode(placed.entry.capability)
                said = ", ".join(f"cap_{name}" for name in names) if names else "an invalid attribute"
                message = f"/{path} has file capabilities: {said}"
                yield subject.evidence(message, layer_index=placed.layer, path=path, name=" ".join(names or ()))

    def severity_of(self, evidence: Sequence[Evidence]) -> Severity | None:
        """See ``Check.severity_of``."""
        given = {name for item in evidence for name in item.name.split()}
        if given & set(_AS_ROOT.split()) or not all(item.name for item in evidence):
            return Severity.HIGH
        return Severity.LOW if given <= {"net_bind_service", "net_raw"} else None

    def remedy_for(self, evidence: Sequence[Evidence]) -> str:
        """See ``Check.remedy_for``."""
        return run("setcap -r", (item.path and f"/{item.path}" for item in evidence), each=True)


def decode(attribute: bytes) -> tuple[str, ...] | None:
    """Return the permitted and inheritable capabilities of a ``struct vfs_cap_data`` (linux/capability.h).

    None: invalid, or empty.
    """
    magic = int.from_bytes(attribute[:4], "little")
    if _REVISIONS.get(magic >> 24) != len(attribute):
        return None
    words = [int.from_bytes(attribute[i : i + 4], "little") for i in range(4, min(len(attribute), 20), 4)]
    given = 0
    for number, word in enumerate(words):
        given |= word << 32 * (number // 2)  # permitted, inheritable of the low word, then of the high word
    names = _NAMES.split()
    return tuple(names[bit] if bit < len(names) else f"{bit}" for bit in range(64) if given >> bit & 1) or None
