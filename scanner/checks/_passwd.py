"""Parser for ``etc/passwd``, ``etc/group`` and ``etc/shadow`` of an image that agrees with container runtimes.

Docker, containerd, CRI-O and Podman share one parser (moby/sys/user): only a newline ends a line, a missing or
non-numeric field is 0, and the first line of a name counts. A stricter parser here would see a user where they see
root.

Programs in the container use the C library. glibc (``nss/nss_files``) and musl (``src/passwd/getpwent_a.c``) ignore
lines with a non-numeric uid or gid, and names that begin with ``+`` or ``-``, which are NIS entries
(nsswitch.conf(5), ``compat``).
"""

from __future__ import annotations

from scanner.lazy_dataclasses import dataclass
from scanner.model.filesystem import Rootfs
from scanner.model.reference import Platform
from scanner.patterns import lazy

PASSWD, GROUP, SHADOW = "etc/passwd", "etc/group", "etc/shadow"
MAX_ID = (1 << 32) - 2  # (1 << 32) - 1 means "unchanged" to chown(2) and is no id
_MAX_LINES = 100_000
_INTEGER = lazy(r"[+-]?[0-9]{1,19}")
# strtoul skips blanks and takes a sign.
_GLIBC_NUMBER = lazy(r"\s*\+?[0-9]{1,10}")
_IGNORED = ("#", "+", "-")  # comments, and entries of NIS
_LONGEST_NAME = 64  # characters that are shown


@dataclass(frozen=True, slots=True)
class Account:
    """One line of passwd.

    ``uid_text`` is the uid as written, ``uid`` as runtimes parse it. ``is_known``: a C library returns the account.
    """

    name: str
    password: str  # "x": it is in /etc/shadow; empty: none is asked for
    uid: int
    gid: int
    home: str
    shell: str
    line: int  # from 1
    uid_text: str
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """One line of group."""

    name: str
    gid: int
    line: int  # from 1


def accounts(rootfs: Rootfs) -> tuple[Account, ...] | None:
    """Return the image's accounts. None: no passwd file, or it could not be read (see ``is_unread``)."""
    lines = _lines(rootfs, PASSWD)
    return None if lines is None else tuple(_account(number, fields) for number, fields in lines)


def uid_of_number(rootfs: Rootfs, number: str) -> int | None:
    """Return the uid with which an old Docker starts ``USER number``. None: no passwd file, or it could not be read.

    A user may have a number as name. Before Docker 1.11.2 (CVE-2016-3697) the first line with this name or uid counts;
    lines that the C library ignores count as well. Later versions and containerd take the number as it is, but programs
    in the container, such as su, still look for the name first.
    """
    lines = _lines(rootfs, PASSWD, ())
    if lines is None:
        return None
    for _, fields in lines:
        text = fields[2] if len(fields) > 2 else ""
        uid = int(text) if _INTEGER.fullmatch(text) else 0
        if number in (fields[0], str(uid)):
            return uid % (1 << 32)
    return runtime_id(number)


def groups(rootfs: Rootfs) -> tuple[Group, ...] | None:
    """Return the image's groups. None as in ``accounts``."""
    lines = _lines(rootfs, GROUP)
    return None if lines is None else tuple(Group(f[0], _number(f[2] if len(f) > 2 else ""), n) for n, f in lines)


def passwords(rootfs: Rootfs, path: str = SHADOW) -> tuple[tuple[int, str, str], ...] | None:
    """Return line number, name and password field of a shadow or master.passwd file. None as in ``accounts``."""
    lines = _lines(rootfs, path)
    return None if lines is None else tuple((number, f[0], f[1]) for number, f in lines if len(f) > 1)


def is_unread(rootfs: Rootfs, path: str) -> bool:
    """Return whether the file exists but could not be read: too large, or a link to a file whose content is not
    kept.
    """
    return rootfs.resolve(path) is not None and _lines(rootfs, path) is None


def is_windows(platform: Platform, rootfs: Rootfs) -> bool:
    """Return whether an image is for Windows, by its config and by its files.

    The config is its author's word: containerd runs an image that calls itself one for Windows on Linux, and there the
    users are those of etc/passwd. Layers for Windows hold their files below ``Files/``.
    """
    if platform.os != "windows" or rootfs.resolve(PASSWD) is not None:
        return False
    return any(path.startswith("Files/") for path in rootfs.files)


def layer_of(rootfs: Rootfs, path: str) -> int | None:
    """Return the layer of the file that a container sees."""
    resolved = rootfs.resolve(path)
    return None if resolved is None else rootfs.files[resolved].layer


def runtime_id(text: str) -> int | None:
    """Parse a uid like containerd: Go's ``strconv.Atoi``, then 32 bits. None: not a number, so a name.

    ``00``, ``+0`` and ``4294967296`` are 0 (CVE-2024-40635).
    """
    if _INTEGER.fullmatch(text) is None or not -(1 << 63) <= int(text) < 1 << 63:
        return None
    return int(text) % (1 << 32)


def _lines(rootfs: Rootfs, path: str, ignored: tuple[str, ...] = _IGNORED) -> list[tuple[int, list[str]]] | None:
    data = rootfs.content(path)
    # Counted before the text is split: a passwd file of many megabytes would become millions of lists.
    if data is None or data.count(b"\n") > _MAX_LINES:
        return None
    found = []
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        text = line.strip()
        if text and not text.startswith(ignored):
            found.append((number, text.split(":")))
    return found


def _account(line: int, fields: list[str]) -> Account:
    name, password, uid, gid, _, home, shell = (*fields, "", "", "", "", "", "", "")[:7]
    return Account(name, password, _number(uid), _number(gid), home, shell, line, uid, _is_known(fields))


def _is_known(fields: list[str]) -> bool:
    """Return whether glibc or musl accepts this line. musl needs all fields and reads an empty number as 0."""
    numbers = fields[2:4]
    if len(numbers) == 2 and all(_GLIBC_NUMBER.fullmatch(n) and int(n) < 1 << 32 for n in numbers):
        return True
    return len(fields) >= 7 and all(number == "" or (number.isascii() and number.isdigit()) for number in numbers)


def shown_name(name: str) -> str:
    """Return a name for messages, truncated: a field may be as long as the file."""
    return (name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…") or "(no name)"


def _number(text: str) -> int:
    return runtime_id(text) or 0
