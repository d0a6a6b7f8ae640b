"""Which files are a distribution's own, unchanged: a package of it lists them, and their bytes are those that it
shipped.

dpkg keeps the MD5 of each file of a package (dpkg-deb(1), ``DEBIAN/md5sums``). MD5 is no proof against somebody who
makes a file on purpose; whoever can do that to an image can write the list as well. It tells a program that was
replaced or added afterwards.
"""

from __future__ import annotations

import hashlib
import re

from scanner.model.filesystem import Rootfs
from scanner.registry.places import DPKG

_INFO = "var/lib/dpkg/info/"
# The packages of Debian and Ubuntu that ship setuid or setgid programs.
PACKAGES = (
    "login",
    "passwd",
    "mount",
    "util-linux",
    "bsdutils",
    "bsdextrautils",
    "libpam-modules-bin",
    "libpam-modules",
    "openssh-client",
    "cron",
    "at",
    "dbus",
    "dbus-daemon",
    "policykit-1",
    "polkitd",
    "pkexec",
    "fuse",
    "fuse3",
    "iputils-ping",
    "uidmap",
    "locate",
    "mlocate",
    "plocate",
    "liblockfile-bin",
)
_DIRECTORIES = ("bin", "sbin", "usr/bin", "usr/sbin")
_HELPERS = (
    "usr/lib/openssh/ssh-keysign",
    "usr/lib/dbus-1.0/dbus-daemon-launch-helper",
    "usr/lib/policykit-1/polkit-agent-helper-1",
    "usr/lib/polkit-1/polkit-agent-helper-1",
)
_ARCHITECTURES = tuple(f":{name}" for name in ("amd64", "arm64", "armhf", "i386", "ppc64el", "riscv64", "s390x"))
# What is setuid as shipped; the others are setgid only, so a setuid bit on one of them was set by somebody else.
SETUID = frozenset(
    [
        "su",
        "mount",
        "umount",
        "passwd",
        "chsh",
        "chfn",
        "gpasswd",
        "newgrp",
        "ssh-keysign",
        "pkexec",
        "polkit-agent-helper-1",
        "fusermount",
        "fusermount3",
        "ping",
        "newuidmap",
        "newgidmap",
        "at",
        "dbus-daemon-launch-helper",
    ]
)
_SETGID = [
    "chage",
    "expiry",
    "unix_chkpwd",
    "wall",
    "write",
    "write.ul",
    "bsd-write",
    "ssh-agent",
    "crontab",
    "dotlockfile",
    "mlocate",
    "plocate",
    "locate",
]
WANTS = (
    *(f"{_INFO}{package}.md5sums" for package in PACKAGES),
    *(f"{_INFO}{package}{architecture}.md5sums" for package in PACKAGES for architecture in _ARCHITECTURES),
    *(f"{directory}/{name}" for directory in _DIRECTORIES for name in sorted({*SETUID, *_SETGID})),
    *_HELPERS,
)


class Distribution:
    """What dpkg of one image says of its files."""

    def __init__(self, rootfs: Rootfs) -> None:
        self._rootfs = rootfs
        self._sums: dict[str, tuple[str, str]] = {}
        status = rootfs.content(DPKG) or b""
        for package in PACKAGES:
            if _is_installed(status, package):
                for path, digest in _md5sums(rootfs, package):
                    self._sums[path] = (package, digest)

    def owner(self, path: str) -> str:
        """The package whose unchanged file this is; empty: none, or not known."""
        forms = (path, path.removeprefix("usr/"))  # a package may list bin/su where /bin is a link to usr/bin
        for form in dict.fromkeys(forms):
            package, digest = self._sums.get(form, ("", ""))
            data = self._rootfs.content(path)
            if package and data is not None and hashlib.md5(data, usedforsecurity=False).hexdigest() == digest:
                return package
        return ""


def _is_installed(status: bytes, package: str) -> bool:
    found = re.search(rb"(?m)^Package: " + re.escape(package.encode()) + rb"$", status)
    if found is None:
        return False
    end = status.find(b"\n\n", found.start())
    return b"\nStatus: install ok installed\n" in status[found.start() : end if end >= 0 else None] + b"\n"


def _md5sums(rootfs: Rootfs, package: str) -> list[tuple[str, str]]:
    """(path, MD5) of each file of a package."""
    names = [f"{_INFO}{package}{architecture}.md5sums" for architecture in ("", *_ARCHITECTURES)]
    texts = [(rootfs.content(name) or b"").decode("utf-8", "replace") for name in names if name in rootfs.files]
    pairs = (line.split(maxsplit=1) for text in texts for line in text.split("\n"))
    return [(pair[1].strip(), pair[0]) for pair in pairs if len(pair) == 2]
