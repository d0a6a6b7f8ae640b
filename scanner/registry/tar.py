"""A strict, streaming reader of tar (POSIX.1-2001 pax, ustar, GNU), for bytes that an attacker chose.

The standard library's ``tarfile`` must not see such bytes: it can be made to hang on 4 kB, to take gigabytes for 1
MB, to list less than there is without an error, and its filters have been escaped (CVE-2025-4517, CVE-2025-8194).
Here whatever two readers could read differently is refused: bad checksums, negative or absurd sizes, global pax
headers, sparse files, unknown types, two names for one entry, data where one reader expects none, bytes after the
end marker. Nothing is ever written to a file system.
"""

from __future__ import annotations

import re
import zlib
from abc import ABC, abstractmethod
from typing import Final

from scanner.config import Limits
from scanner.errors import ImageError, LimitExceeded
from scanner.model.filesystem import FileEntry, FileType

BLOCK: Final = 512
_ZERO = bytes(BLOCK)
_TYPES = {
    0: FileType.FILE,
    ord("0"): FileType.FILE,
    ord("1"): FileType.HARDLINK,
    ord("2"): FileType.SYMLINK,
    ord("3"): FileType.CHAR_DEVICE,
    ord("4"): FileType.BLOCK_DEVICE,
    ord("5"): FileType.DIRECTORY,
    ord("6"): FileType.FIFO,
}
_OLD_FILE, _FILE = 0, ord("0")
_STARGZ_INDEX = b"stargz.index.json"
_LINKS = (FileType.SYMLINK, FileType.HARDLINK)
_DEVICES = (FileType.CHAR_DEVICE, FileType.BLOCK_DEVICE)
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _SPARSE = ord("L"), ord("K"), ord("x"), ord("g"), ord("S")
_SPECIAL = frozenset((_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL))
# mode, uid, gid, size, mtime, checksum as nearly every writer pads them; anything else takes the slow way.
_USUAL = re.compile(rb"([0-7]{7})[ \0]([0-7]{7})[ \0]([0-7]{7})[ \0]([0-7]{11})[ \0]([0-7]{11})[ \0]([0-7]{6})[ \0]{2}")
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_SECONDS = re.compile(rb"(-?[0-9]{1,18})(?:\.[0-9]*)?")
_NO_DEVICE = (bytes(16), b"0000000\x000000000\0")
_CAPABILITY = b"SCHILY.xattr.security.capability"
# An overlay file system believes these: a layer that sets them shows a container other files than it shows us.
_OVERLAY = (b"SCHILY.xattr.trusted.overlay.", b"SCHILY.xattr.user.overlay.")


class Visitor(ABC):
    """Who is told about the entries, in archive order."""

    @abstractmethod
    def entry(self, entry: FileEntry) -> bool:
        """One entry; True: its content is wanted, and will come in one piece by ``content``."""

    @abstractmethod
    def content(self, entry: FileEntry, data: bytes) -> None:
        """The bytes of a wanted regular file."""


def malformed(message: str) -> ImageError:
    return ImageError(message, reason="malformed_archive")


def unsafe(message: str) -> ImageError:
    return ImageError(message, reason="unsafe_archive")


class _Overrides:
    """What pax and GNU headers say about the next entry. ``kinds``: which of them came, each at most once."""

    __slots__ = ("capability", "gid", "kinds", "link", "mtime", "name", "size", "uid")

    def __init__(self) -> None:
        self.kinds: tuple[int, ...] = ()
        self.name: bytes | None = None
        self.link: bytes | None = None
        self.size: int | None = None
        self.uid: int | None = None
        self.gid: int | None = None
        self.mtime: int | None = None
        self.capability = b""


_NONE = _Overrides()


class TarReader:
    """Feed it the archive's bytes in any pieces, then ``close``.

    Raises ImageError or LimitExceeded; never anything else.

    ``offset`` is the position of the next byte in the archive, so a visitor can note where an entry's data begins.
    """

    def __init__(self, visitor: Visitor, limits: Limits) -> None:
        self._visitor, self._limits = visitor, limits
        self._header = bytearray()
        self._left = 0  # bytes of the current body still to come, padding included
        self._padding = 0
        self._body: list[bytes] | None = None
        self._kind = 0
        self._entry: FileEntry | None = None
        self._overrides = _NONE
        self._zeros = 0
        self._has_index = False
        self.entries = 0
        self.offset = 0

    def feed(self, chunk: bytes | memoryview) -> None:
        """The next bytes."""
        view, position, end = memoryview(chunk), 0, len(chunk)
        base = self.offset
        while position < end:
            if self._left:
                take = min(self._left, end - position)
                if self._body is not None:
                    self._body.append(bytes(view[position : position + take]))
                self._left -= take
                position += take
                if not self._left:
                    self._end_of_body()
                continue
            if not self._header and end - position >= BLOCK:
                block = bytes(view[position : position + BLOCK])
                position += BLOCK
            else:
                take = min(BLOCK - len(self._header), end - position)
                self._header += view[position : position + take]
                position += take
                if len(self._header) < BLOCK:
                    break
                block = bytes(self._header)
                self._header.clear()
            self.offset = base + position
            self._block(block)
        self.offset = base + end

    def close(self) -> None:
        """No more bytes come.

        Raises for an archive that stops in the middle; what pads one behind its end marker is zeros.
        """
        if self._zeros > 1 and not any(self._header) and not self._left:
            return
        if self._left or self._header or self._overrides is not _NONE:
            raise malformed("the archive ends in the middle of an entry")

    def _block(self, block: bytes) -> None:
        if block == _ZERO:
            if self._overrides is not _NONE:
                raise malformed("the archive ends in the middle of an entry")
            self._zeros += 1
            return
        if self._zeros:
            self._after_the_end(block)
            return
        mode, uid, gid, size, mtime = _numbers(block)
        kind = block[156]
        if kind in _SPECIAL:
            self._special(kind, size)
        else:
            self._plain(block, kind, mode, uid, gid, size, mtime)

    def _after_the_end(self, block: bytes) -> None:
        """eStargz appends its index to a finished archive (stargz-snapshotter, docs/estargz.md: "TOC"): one file of
        that name, then nothing.

        Container runtimes stop at the end marker and never unpack it, so it is no entry of ours either. Anything
        else is hidden from them.
        """
        name = block[:100].rstrip(b"\0") if block[345:500].strip(b"\0") == b"" else b""
        if self._zeros < 2 or name != _STARGZ_INDEX or block[156] not in (_OLD_FILE, _FILE) or self._has_index:
            raise unsafe("there is data after the end of the archive: readers disagree about it")
        _, _, _, size, _ = _numbers(block)
        if size > self._limits.file_size:
            raise LimitExceeded(f"a file of {size} bytes")
        self._has_index, self._zeros = True, 2
        self._expect(size)

    def _special(self, kind: int, size: int) -> None:
        """A header about the next entry.

        Go drops what stands before a global header, others keep it; of two they take either.
        """
        if size > self._limits.special_header:
            raise LimitExceeded(f"a name or pax header of {size} bytes")
        if kind in self._overrides.kinds or (kind == _PAX_GLOBAL and self._overrides is not _NONE):
            raise unsafe("several headers of one kind for one entry: readers take different ones")
        if kind != _PAX_GLOBAL:
            if self._overrides is _NONE:
                self._overrides = _Overrides()
            self._overrides.kinds += (kind,)
        self._kind, self._body = kind, []
        self._expect(size)

    def _plain(self, block: bytes, kind: int, mode: int, uid: int, gid: int, size: int, mtime: int) -> None:
        file_type = _TYPES.get(kind)
        if file_type is None:
            raise unsafe(
                "a sparse file: its size is not the size of its data"
                if kind == _SPARSE
                else f"an entry of unknown type {chr(kind)!r}"
            )
        self.entries += 1
        if self.entries > self._limits.layer_entries:
            raise LimitExceeded(f"more than {self._limits.layer_entries} entries")
        over, self._overrides = self._overrides, _NONE
        if over.size is not None:
            size = over.size
        name = over.name if over.name is not None else _name(block)
        if file_type is FileType.FILE and name.endswith(b"/"):
            # Old archives mark directories so; for the newer type some readers see a file here, some a directory.
            if kind != _OLD_FILE:
                raise unsafe("a file whose name ends with a slash: readers disagree about what it is")
            file_type = FileType.DIRECTORY
        has_body = file_type is FileType.FILE
        if size and not has_body:
            # Go takes these bytes for the next header, others skip them: whatever stands there, one of them does not
            # see it.
            raise unsafe(f"a {file_type} with data: readers disagree about it")
        if size > self._limits.file_size:
            raise LimitExceeded(f"a file of {size} bytes")
        path = self._path(name)
        if not path and file_type is not FileType.DIRECTORY:
            raise unsafe("an entry without a name")
        entry = FileEntry(
            path,
            file_type,
            mode & 0o7777,
            uid if over.uid is None else over.uid,
            gid if over.gid is None else over.gid,
            size,
            "" if has_body or file_type is FileType.DIRECTORY else self._link(block, over, file_type),
            over.capability,
            mtime if over.mtime is None else over.mtime,
        )
        self._entry, self._kind = entry, kind
        self._body = [] if self._visitor.entry(entry) and has_body else None
        self._expect(size)

    def _path(self, name: bytes) -> str:
        """Relative and normalised. ``..`` is refused wherever it stands: no builder writes it."""
        if len(name) > self._limits.path_length:
            raise LimitExceeded(f"a path of {len(name)} bytes")
        if b"\0" in name:
            raise malformed("a path with a NUL byte")
        path = name.decode("utf-8", "surrogateescape").removeprefix("./").removesuffix("/")
        if not path or path[0] in "./" or "//" in path or "/." in path:
            parts = [part for part in path.split("/") if part not in ("", ".")]
            if ".." in parts:
                raise unsafe("a path that leaves the image")
            path = "/".join(parts)
        if path.count("/") >= self._limits.path_depth:
            raise LimitExceeded(f"a path {path.count('/') + 1} directories deep")
        return path

    def _link(self, block: bytes, over: _Overrides, file_type: FileType) -> str:
        """The target as written; of a device ``major:minor``."""
        if file_type in _DEVICES:
            return f"{_number(block[329:337], 'device')}:{_number(block[337:345], 'device')}"
        if file_type not in _LINKS:
            return ""
        target = over.link if over.link is not None else block[157:257].split(b"\0", 1)[0]
        if len(target) > self._limits.path_length:
            raise LimitExceeded(f"a link of {len(target)} bytes")
        if not target or b"\0" in target:
            raise malformed("a link without a target")
        if file_type is FileType.SYMLINK:
            return target.decode("utf-8", "surrogateescape")
        if target.startswith(b"/"):
            raise unsafe("a hard link to an absolute path")
        return self._path(target)

    def _expect(self, size: int) -> None:
        self._padding = -size % BLOCK
        self._left = size + self._padding
        if not self._left:
            self._end_of_body()

    def _end_of_body(self) -> None:
        body, self._body = self._body, None
        entry, self._entry = self._entry, None
        if body is None:
            return
        data = body[0] if len(body) == 1 else b"".join(body)
        data = data[: len(data) - self._padding] if self._padding else data
        if entry is not None:
            self._visitor.content(entry, data)
        elif self._kind == _LONG_NAME:
            self._overrides.name = _once(self._overrides.name, data.split(b"\0", 1)[0])
        elif self._kind == _LONG_LINK:
            self._overrides.link = _once(self._overrides.link, data.split(b"\0", 1)[0])
        else:
            self._pax(data, is_global=self._kind == _PAX_GLOBAL)

    def _pax(self, data: bytes, *, is_global: bool) -> None:
        """Records ``"%d %s=%s\\n"`` (POSIX pax, extended header). Duplicates and sparse maps are refused."""
        records = _records(data, self._limits)
        if is_global:
            if set(records) - {b"comment"}:
                raise unsafe("a global pax header: it renames every file for some readers")
            return
        over = self._overrides
        for key, value in records.items():
            if key == b"path":
                over.name = _once(over.name, value)
            elif key == b"linkpath":
                over.link = _once(over.link, value)
            elif key in (b"size", b"uid", b"gid"):
                setattr(over, key.decode(), _decimal(value, key.decode()))
            elif key == b"mtime":
                over.mtime = _time(value)
            elif key == _CAPABILITY:
                over.capability = value
            elif key.startswith(b"GNU.sparse."):
                raise unsafe("a sparse file: its size is not the size of its data")
            elif key.startswith(_OVERLAY):
                raise unsafe("an extended attribute that only an overlay file system may set")


def _once(before: bytes | None, value: bytes) -> bytes:
    """A name, said once and not empty: POSIX takes an empty one back, others use it; of two, readers take different
    ones.
    """
    if before is not None or not value:
        raise unsafe("an entry with two names, or none: readers take different ones")
    return value


def _records(data: bytes, limits: Limits) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    position = xattrs = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        length = _decimal(data[position:space], "pax record length") if space > position else 0
        record = data[position : position + length]
        if length < 5 or not record.endswith(b"\n") or len(record) != length:
            raise malformed("a broken pax header")
        key, equals, value = record[space - position + 1 : -1].partition(b"=")
        if not equals or not key:
            raise malformed("a broken pax header")
        if key in records:
            raise unsafe("a pax header that says a thing twice: readers take different ones")
        xattrs += len(value) if key.startswith(b"SCHILY.xattr.") else 0
        records[key] = value
        if len(records) > limits.pax_records or xattrs > limits.xattrs:
            raise LimitExceeded("too many pax records")
        position += length
    return records


def _numbers(block: bytes) -> tuple[int, int, int, int, int]:
    """Mode, uid, gid, size and mtime of a header whose checksum is right."""
    usual = _USUAL.match(block, 100)
    if usual is not None:
        mode, uid, gid, size, mtime, checksum = usual.groups()
        numbers = int(mode, 8), int(uid, 8), int(gid, 8), int(size, 8), int(mtime, 8)
        stored = int(checksum, 8)
    else:
        stored = _number(block[148:156], "checksum")
        numbers = (
            _number(block[100:108], "mode"),
            _number(block[108:116], "uid"),
            _number(block[116:124], "gid"),
            _number(block[124:136], "size"),
            _number(block[136:148], "mtime", signed=True),
        )
    if stored != _sum(block) - sum(block[148:156]) + 256:
        raise malformed("a header's checksum is wrong")
    return numbers


def _sum(data: bytes) -> int:
    """The bytes' sum.

    Adler-32's low half is that plus one, modulo 65521, and thirty times faster than adding them here.
    """
    if len(data) - data.count(0) > 256:  # only then can the sum pass the modulus
        return sum(data)
    return (zlib.adler32(data) & 0xFFFF) - 1


def _name(block: bytes) -> bytes:
    """The header's own name.

    Three formats share the field behind it; where a reader could mistake one for another, it is refused.
    """
    name = block[:100].split(b"\0", 1)[0]
    magic = block[257:265]
    if magic == b"ustar\x0000":
        prefix = block[345:500].split(b"\0", 1)[0]
        if block[508:512] == b"tar\0":
            raise unsafe("a header of star's own format: its prefix is shorter for some readers")
        if block[329:345] not in _NO_DEVICE:
            _number(block[329:337], "device")
            _number(block[337:345], "device")
        return prefix + b"/" + name if prefix else name
    if magic == b"ustar  \0":
        # Where these two times are no numbers, Go takes them for a name's beginning (a bug of old writers).
        if _OCTAL.fullmatch(block[345:357]) is None or _OCTAL.fullmatch(block[357:369]) is None:
            raise unsafe("a GNU header with a broken time: some readers take it for a name")
    elif magic.startswith(b"ustar\0"):
        raise unsafe("a ustar header of an unknown version: some readers see no prefix in it")
    return name


def _number(field: bytes, what: str, *, signed: bool = False) -> int:
    """Octal, or GNU's base-256 with the high bit set.

    Raises for a negative size, which would send a reader backwards.
    """
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if (value < 0 and not signed) or abs(value) > 1 << 62:
            raise malformed(f"a {what} of {value}")
        return value
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise malformed(f"a {what} that is no number")
    return int(match[1] or b"0", 8)


def _time(value: bytes) -> int:
    """Seconds since 1970; fractions are dropped."""
    match = _SECONDS.fullmatch(value)
    if match is None:
        raise malformed("an mtime that is no number")
    return int(match[1])


def _decimal(value: bytes, what: str) -> int:
    if not value.isdigit() or len(value) > 19:
        raise malformed(f"a {what} that is no number")
    return min(int(value), 1 << 62)
