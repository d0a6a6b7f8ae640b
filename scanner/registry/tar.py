"""A strict, streaming reader of tar (POSIX.1-2001 pax, ustar, GNU), for bytes that an attacker chose.

The standard library's ``tarfile`` must not see such bytes: it can be made to hang on 4 kB, to take gigabytes for 1 MB, to list
less than there is without an error, and its filters have been escaped (CVE-2025-4517, CVE-2025-8194). Here whatever two readers
could read differently is refused: bad checksums, negative or absurd sizes, global pax headers, sparse files, unknown types,
bytes after the end marker. Nothing is ever written to a file system.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
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
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _SPARSE = ord("L"), ord("K"), ord("x"), ord("g"), ord("S")
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_CAPABILITY = b"SCHILY.xattr.security.capability"


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


@dataclass(slots=True)
class _Overrides:
    """What pax and GNU headers say about the next entry."""

    name: bytes | None = None
    link: bytes | None = None
    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    capability: bytes = b""


class TarReader:
    """Feed it the archive's bytes in any pieces, then ``close``. Raises ImageError or LimitExceeded; never anything else.

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
        self._overrides = _Overrides()
        self._zeros = 0
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
            take = min(BLOCK - len(self._header), end - position)
            if take == BLOCK:
                block = bytes(view[position : position + BLOCK])
            else:
                self._header += view[position : position + take]
                block = bytes(self._header) if len(self._header) == BLOCK else b""
            position += take
            if block:
                self._header.clear()
                self.offset = base + position
                self._block(block)
        self.offset = base + end

    def close(self) -> None:
        """No more bytes come. Raises for an archive that stops in the middle."""
        if self._left or self._header or self._overrides != _Overrides():
            raise malformed("the archive ends in the middle of an entry")

    def _block(self, block: bytes) -> None:
        if block == _ZERO:
            self._zeros += 1
            return
        if self._zeros:
            raise unsafe("there is data after the end of the archive: readers disagree about it")
        stored = _number(block[148:156], "checksum")
        if stored != sum(block) - sum(block[148:156]) + 256:
            raise malformed("a header's checksum is wrong")
        kind = block[156]
        size = _number(block[124:136], "size")
        if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
            self._special(kind, size)
        else:
            self._plain(block, kind, size)

    def _special(self, kind: int, size: int) -> None:
        if size > self._limits.special_header:
            raise LimitExceeded(f"a name or pax header of {size} bytes")
        self._kind, self._body = kind, []
        self._expect(size)

    def _plain(self, block: bytes, kind: int, size: int) -> None:
        if kind == _SPARSE:
            raise unsafe("a sparse file: its size is not the size of its data")
        if kind not in _TYPES:
            raise unsafe(f"an entry of unknown type {chr(kind)!r}")
        self.entries += 1
        if self.entries > self._limits.layer_entries:
            raise LimitExceeded(f"more than {self._limits.layer_entries} entries")
        over, self._overrides = self._overrides, _Overrides()
        size = size if over.size is None else over.size
        name = over.name if over.name is not None else _name(block)
        file_type = _TYPES[kind]
        if file_type is FileType.FILE and name.endswith(b"/"):
            file_type = FileType.DIRECTORY  # old archives mark directories so (Go, GNU tar)
        has_body = file_type is FileType.FILE
        if size and not has_body and file_type is not FileType.DIRECTORY:
            # GNU tar keeps the file's size in a hard link's header and sends no data; others send some.
            if file_type is FileType.HARDLINK:
                raise unsafe("a hard link with data: readers disagree about it")
            raise malformed(f"a {file_type} with data")
        if size > self._limits.file_size:
            raise LimitExceeded(f"a file of {size} bytes")
        link = over.link if over.link is not None else block[157:257].split(b"\0", 1)[0]
        entry = FileEntry(
            path=self._path(name),
            type=file_type,
            mode=_number(block[100:108], "mode") & 0o7777,
            uid=over.uid if over.uid is not None else _number(block[108:116], "uid"),
            gid=over.gid if over.gid is not None else _number(block[116:124], "gid"),
            size=size,
            link=self._link(link, file_type) if file_type in (FileType.SYMLINK, FileType.HARDLINK) else "",
            capability=over.capability,
            mtime=_number(block[136:148], "mtime", signed=True),
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
        parts = [part for part in name.decode("utf-8", "surrogateescape").split("/") if part not in ("", ".")]
        if ".." in parts:
            raise unsafe("a path that leaves the image")
        if len(parts) > self._limits.path_depth:
            raise LimitExceeded(f"a path {len(parts)} directories deep")
        return "/".join(parts)

    def _link(self, target: bytes, file_type: FileType) -> str:
        if len(target) > self._limits.path_length:
            raise LimitExceeded(f"a link of {len(target)} bytes")
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
        data = b"".join(body)
        data = data[: len(data) - self._padding] if self._padding else data
        if entry is not None:
            self._visitor.content(entry, data)
        elif self._kind == _LONG_NAME:
            self._overrides.name = data.split(b"\0", 1)[0]
        elif self._kind == _LONG_LINK:
            self._overrides.link = data.split(b"\0", 1)[0]
        else:
            self._pax(data, is_global=self._kind == _PAX_GLOBAL)

    def _pax(self, data: bytes, *, is_global: bool) -> None:
        """Records ``"%d %s=%s\\n"`` (POSIX pax, extended header). Duplicates and sparse maps are refused."""
        records = _records(data, self._limits)
        if is_global:
            if set(records) - {b"comment"}:
                raise unsafe("a global pax header: it renames every file for some readers")
            return
        if any(key.startswith(b"GNU.sparse.") for key in records):
            raise unsafe("a sparse file: its size is not the size of its data")
        over = self._overrides
        for key, value in records.items():
            if key == b"path":
                over.name = value
            elif key == b"linkpath":
                over.link = value
            elif key in (b"size", b"uid", b"gid"):
                setattr(over, key.decode(), _decimal(value, key.decode()))
            elif key == _CAPABILITY:
                over.capability = value


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
        if not equals or not key or key in records:
            raise malformed("a broken pax header" if not equals or not key else "a pax header that says a thing twice")
        xattrs += len(value) if key.startswith(b"SCHILY.xattr.") else 0
        records[key] = value
        if len(records) > limits.pax_records or xattrs > limits.xattrs:
            raise LimitExceeded("too many pax records")
        position += length
    return records


def _name(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].split(b"\0", 1)[0]
        return prefix + b"/" + name if prefix else name
    return name


def _number(field: bytes, what: str, *, signed: bool = False) -> int:
    """Octal, or GNU's base-256 with the high bit set. Raises for a negative size, which would send a reader backwards."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if (value < 0 and not signed) or value > 1 << 62:
            raise malformed(f"a {what} of {value}")
        return value
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise malformed(f"a {what} that is no number")
    return int(match[1] or b"0", 8)


def _decimal(value: bytes, what: str) -> int:
    if not value.isdigit() or len(value) > 19:
        raise malformed(f"a {what} that is no number")
    return int(value)
