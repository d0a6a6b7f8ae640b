"""Recognises unchanged files of packages: their package lists them with the same bytes and the same mode.

dpkg stores the MD5 of each file of a package (dpkg-deb(1), ``DEBIAN/md5sums``), apk a SHA-1 with owner and mode
(https://wiki.alpinelinux.org/wiki/Apk_spec, ``Z:`` and ``a:``), rpm a SHA-256 with owner and mode. This detects
programs that were replaced, added or changed later. It is no protection against an attacker who controls the image:
they could also change the package's list.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

from scanner.model.filesystem import FileEntry, PackagedFile, Rootfs
from scanner.registry.places import APK, DPKG, RPM_DATABASES

_INFO = "var/lib/dpkg/info/"
# Packages of Debian and Ubuntu with setuid or setgid programs.
_DPKG_PACKAGES = (
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
# Of Alpine and Wolfi.
_APK_PACKAGES = frozenset(
    (
        *("busybox", "busybox-suid", "shadow", "shadow-login", "shadow-subids", "shadow-uidmap", "linux-pam"),
        *("util-linux", "util-linux-login", "util-linux-misc", "mount", "umount", "fuse", "fuse3", "fuse-common"),
        *("dbus", "dbus-daemon-launch-helper", "polkit", "polkit-common", "polkit-elogind", "polkit-noelogind"),
        *("openssh-keysign", "iputils", "iputils-ping"),
    )
)
# Of Fedora, Enterprise Linux and its rebuilds, Amazon Linux and SUSE.
_RPM_PACKAGES = frozenset(
    (
        *("util-linux", "util-linux-core", "util-linux-user", "shadow-utils", "shadow-utils-subid", "passwd", "pam"),
        *("shadow", "permissions", "login", "dbus", "dbus-1", "dbus-daemon", "dbus-common", "polkit", "usermode"),
        *("fuse", "fuse3", "fuse-common", "openssh", "openssh-clients", "cronie", "at", "libutempter", "utempter"),
        *("mlocate", "plocate", "iputils", "nfs-utils", "nfs-client", "grub2-tools-minimal", "grub2-tools"),
    )
)
_DIRECTORIES = ("bin", "sbin", "usr/bin", "usr/sbin")
_HELPERS = (
    "usr/lib/ssh/ssh-keysign",
    "usr/libexec/openssh/ssh-keysign",
    "usr/libexec/dbus-1/dbus-daemon-launch-helper",
    "usr/libexec/dbus-daemon-launch-helper",
    "usr/libexec/utempter/utempter",
    "usr/lib/utempter/utempter",
    "usr/lib/openssh/ssh-keysign",
    "usr/lib/dbus-1.0/dbus-daemon-launch-helper",
    "usr/lib/policykit-1/polkit-agent-helper-1",
    "usr/lib/polkit-1/polkit-agent-helper-1",
)
# dpkg names the list of a package that can be installed for several architectures with its architecture, such as
# `libpam-modules:amd64.md5sums`.
_ARCHITECTURES = tuple(f":{name}" for name in ("amd64", "arm64", "armhf", "i386", "ppc64el", "riscv64", "s390x"))
# Programs that Debian ships with the setuid bit. A setuid bit on the others was added later.
_SETUID = frozenset(
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
# What other distributions ship with privileges besides.
_ELSEWHERE = [
    *("bbsuid", "pam_timestamp_check", "unix_update", "userhelper", "utempter", "grub2-set-bootflag", "mount.nfs"),
    *("sg", "ping6", "vlock"),
]
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
# Only these files are kept while layers are read. The contents of a whole image do not fit into memory.
WANTS = (
    *(f"{_INFO}{package}.md5sums" for package in _DPKG_PACKAGES),
    *(f"{_INFO}{package}{architecture}.md5sums" for package in _DPKG_PACKAGES for architecture in _ARCHITECTURES),
    *(f"{directory}/{name}" for directory in _DIRECTORIES for name in sorted({*_SETUID, *_SETGID, *_ELSEWHERE})),
    *_HELPERS,
)


class Distribution:
    """The files of installed packages of one image."""

    def __init__(self, rootfs: Rootfs) -> None:
        self._rootfs = rootfs
        self._listed: dict[str, tuple[str, PackagedFile]] = {}  # by path: kind of package, and the listed file
        for kind, files in (("dpkg", _dpkg(rootfs)), ("apk", _apk(rootfs)), ("rpm", _rpm(rootfs))):
            for file in files:
                # The first list counts. An image with files of two package managers (a copied root file system) has
                # one owner per path.
                self._listed.setdefault(file.path, (kind, file))

    def owner(self, path: str, entry: FileEntry) -> str:
        """Return the package of an unchanged file, as in ``dpkg:login``. Empty: none, or unknown."""
        # packages list bin/su, although /bin is a link to usr/bin
        for form in dict.fromkeys((path, path.removeprefix("usr/"))):
            kind, file = self._listed.get(form, ("", None))
            if file is not None and self._is_unchanged(path, entry, file):
                return f"{kind}:{file.package}"
        return ""

    def _is_unchanged(self, path: str, entry: FileEntry, file: PackagedFile) -> bool:
        data = self._rootfs.content(path)
        # The mode is compared as well as the bytes: a shell of the distribution that was given the setuid bit later
        # is the classic back door.
        if data is None or entry.mode & 0o7777 != (file.mode or entry.mode & 0o7777):
            return False
        if not file.mode and not _has_usual_bits(path.rpartition("/")[2], entry):
            return False
        return hashlib.new(file.hash_name, data, usedforsecurity=False).hexdigest() == file.digest


def _has_usual_bits(name: str, entry: FileEntry) -> bool:
    """Whether a program has no other privileges than Debian gives it. dpkg stores no modes to compare with."""
    return (name in _SETUID or not entry.setuid) and (name in _SETGID or not entry.setgid)


def _dpkg(rootfs: Rootfs) -> Iterator[PackagedFile]:
    status = rootfs.content(DPKG) or b""
    for package in _DPKG_PACKAGES:
        if _is_installed(status, package):
            for path, digest in _md5sums(rootfs, package):
                yield PackagedFile(package, path, 0, "root", "md5", digest)


def _rpm(rootfs: Rootfs) -> Iterator[PackagedFile]:
    for path in sorted(RPM_DATABASES):
        # A setuid program that belongs to another user is not what the distribution meant, whatever its package
        # lists.
        yield from (f for f in rootfs.packaged(path) if f.package in _RPM_PACKAGES and f.owner == "root")


def _apk(rootfs: Rootfs) -> Iterator[PackagedFile]:
    """Parse apk's database: fields of one letter, and a blank line after each package.

    ``F:`` is a directory, ``R:`` a file in it, ``a:`` its owner and mode if they are not the default, ``Z:`` its
    digest.
    """
    for path in APK:
        text = (rootfs.content(path) or b"").decode("utf-8", "replace")
        for package in text.split("\n\n"):
            lines = [(line[:1], line[2:]) for line in package.split("\n") if line[1:2] == ":"]
            name = next((value for field, value in lines if field == "P"), "")
            if name in _APK_PACKAGES:
                yield from _apk_files(name, lines)


def _apk_files(package: str, lines: list[tuple[str, str]]) -> Iterator[PackagedFile]:
    directory = path = ""
    mode = 0
    for field, value in lines:
        if field == "F":
            directory, path = value, ""
        elif field == "R":
            path, mode = f"{directory}/{value}" if directory else value, 0
        elif field == "a":
            found = re.fullmatch(r"0:[0-9]+:([0-7]{1,5})", value)
            # Another owner than 0, or an unreadable mode, leaves it at 0, and the file is then not recognised.
            mode = int(found[1], 8) if found else 0
        elif field == "Z" and path and mode and (digest := _checksum(value)):
            yield PackagedFile(package, path, mode, "root", *digest)


def _checksum(text: str) -> tuple[str, str] | None:
    """Parse ``Q1`` and a SHA-1, or ``Q2`` and a SHA-256, in base64. None for anything else."""
    name = {"Q1": "sha1", "Q2": "sha256"}.get(text[:2])
    try:
        return (name, base64.b64decode(text[2:], validate=True).hex()) if name else None
    except binascii.Error:
        return None


def _is_installed(status: bytes, package: str) -> bool:
    found = re.search(rb"(?m)^Package: " + re.escape(package.encode()) + rb"$", status)
    if found is None:
        return False
    # A package that was removed keeps its paragraph, with another status. Its list of files proves nothing any more.
    end = status.find(b"\n\n", found.start())
    paragraph = status[found.start() : end if end >= 0 else None]
    # The first word is what the user wants, as `hold` of `apt-mark hold`; the last is the state.
    return re.search(rb"(?m)^Status: \S+ ok installed$", paragraph) is not None


def _md5sums(rootfs: Rootfs, package: str) -> list[tuple[str, str]]:
    """Return (path, MD5) of each file of a package."""
    names = [f"{_INFO}{package}{architecture}.md5sums" for architecture in ("", *_ARCHITECTURES)]
    texts = [(rootfs.content(name) or b"").decode("utf-8", "replace") for name in names if name in rootfs.files]
    pairs = (line.split(maxsplit=1) for text in texts for line in text.split("\n"))
    return [(pair[1].strip(), pair[0]) for pair in pairs if len(pair) == 2]
