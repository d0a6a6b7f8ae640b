"""A strict, streaming reader of tar (POSIX.1-2001 pax, ustar, GNU) for hostile input.

The standard library's ``tarfile`` must not read such input: 4 kB can make it hang, 1 MB can make it use gigabytes, it
can list fewer entries than exist without an error, and its filters have been bypassed (CVE-2025-4517, CVE-2025-8194).
This reader refuses everything that two readers could read differently: wrong checksums, negative or absurd sizes,
global pax headers, sparse files, unknown types, two names for one entry, data where a reader expects none, data after
the end marker. It never writes to a file system.
"""

from __future__ import annotations

import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from scanner.config import Limits
from scanner.errors import ImageError, LimitExceeded
from scanner.model.filesystem import FileEntry, FileType
from scanner.patterns import lazy

if TYPE_CHECKING:
    from scanner.registry.excerpts import Excerpt

# POSIX: header and data are padded to this.
BLOCK: Final = 512
# First bytes of gzip, zstd, bzip2 and xz; a zstd stream may also begin with a skippable frame (RFC 8878, 3.1.2).
_COMPRESSED: Final = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0")
# RFC 8878, 3.1.2: the magic numbers of skippable frames.
_SKIPPABLE: Final = lazy(rb"[\x50-\x5f]\x2a\x4d\x18")
_ZERO = bytes(BLOCK)
_MAGIC = 257  # where the magic number of a header begins
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
# Globals, which are found faster than members of an enumeration: each entry of a layer asks for them.
_REGULAR, _DIRECTORY = FileType.FILE, FileType.DIRECTORY
_OLD_FILE, _FILE = 0, ord("0")
_STARGZ_INDEX = b"stargz.index.json"
_LINKS = (FileType.SYMLINK, FileType.HARDLINK)
_DEVICES = (FileType.CHAR_DEVICE, FileType.BLOCK_DEVICE)
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _SPARSE = ord("L"), ord("K"), ord("x"), ord("g"), ord("S")
_SPECIAL = frozenset((_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL))
# mode, uid, gid, size, mtime, checksum as nearly all writers pad them. Other forms are parsed field by field.
_USUAL = lazy(rb"([0-7]{7}[ \0][0-7]{7}[ \0][0-7]{7})[ \0]([0-7]{11})[ \0]([0-7]{11})[ \0](([0-7]{6})[ \0]{2})")
_OCTAL = lazy(rb"[ \0]*([0-7]*)[ \0]*")
_SECONDS = lazy(rb"(-?[0-9]{1,18})(?:\.[0-9]*)?")
_NO_DEVICE = (bytes(16), b"0000000\x000000000\0")
_CAPABILITY = b"SCHILY.xattr.security.capability"
# overlayfs acts on these attributes, so a layer that sets them shows a container other files than it shows us.
_OVERLAY = (b"SCHILY.xattr.trusted.overlay.", b"SCHILY.xattr.user.overlay.")


class Pieces(Protocol):
    """Reads a file that is too large to be held in memory."""

    def feed(self, data: memoryview, /) -> None:
        """Read the next bytes. The memory is reused after the call."""

    def close(self) -> None:
        """End the file."""


class Visitor(ABC):
    """Receives the entries in archive order."""

    def pieces(self, entry: FileEntry) -> Pieces | None:
        """Return what reads the content of a regular file in pieces. Not called if ``entry`` asked for the whole."""
        return None

    def is_idle(self, entry: FileEntry, piece: bytes, start: int) -> bool:
        """Return whether the content that was asked for is not needed after all.

        All of it is in ``piece``, a piece of the archive, from ``start`` on. Content in several pieces is passed on.
        """
        return False

    @abstractmethod
    def entry(self, entry: FileEntry) -> bool:
        """Process an entry. Return True to get its content, as a whole, by ``content``."""

    @abstractmethod
    def content(self, entry: FileEntry, data: bytes) -> None:
        """Process the bytes of a requested regular file."""


def malformed_archive(message: str) -> ImageError:
    return ImageError(message, reason="malformed_archive")


def unsafe(message: str) -> ImageError:
    return ImageError(message, reason="unsafe_archive")


class _Overrides:
    """Values from pax and GNU headers for the next entry. ``kinds``: the types of headers read, each at most once."""

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
    """Feed it the archive's bytes in pieces of any size, then call ``close``.

    Raises ImageError or LimitExceeded, never anything else. ``offset``: position of the next byte in the archive, so
    that a visitor can record where an entry's data begins. ``excerpt`` gets the bytes of the archive.
    """

    def __init__(self, visitor: Visitor, limits: Limits, excerpt: Excerpt | None = None) -> None:
        self._visitor, self._limits, self._excerpt = visitor, limits, excerpt
        self._copy: Callable[[memoryview], None] | None = None  # gets the current body as well
        self._header = bytearray()
        self._left = 0  # bytes of the current body still to come, padding included
        self._padding = 0
        self._body: list[bytes] | None = None
        self._pieces: Pieces | None = None
        self._kind = 0
        self._entry: FileEntry | None = None
        self._overrides = _NONE
        self._zeros = 0
        self._has_index = False
        self.entries = 0
        self.offset = 0

    def feed(self, chunk: bytes | memoryview) -> None:
        """Read the next bytes."""
        # Slices of bytes take a third of the time of those of a view that become bytes.
        piece = chunk if isinstance(chunk, bytes) else bytes(chunk)
        view, position, end = memoryview(piece), 0, len(piece)
        base = self.offset
        while position < end:
            if self._left:
                take = min(self._left, end - position)
                if self._copy is not None:
                    self._copy(view[position : position + take])
                if self._body is not None and take == self._left and not self._body:
                    if self._entry is not None and self._visitor.is_idle(self._entry, piece, position):
                        self._left, self._body, self._entry = 0, None, None
                        position += take
                        continue
                    # All of it in one piece, as most files are: copied once, without the padding.
                    data = piece[position : position + take - self._padding]
                    self._left, self._body = 0, None
                    position += take
                    self._deliver(data)
                    continue
                if self._body is not None:
                    self._body.append(piece[position : position + take])
                elif self._pieces is not None and self._left > self._padding:
                    self._pieces.feed(view[position : position + min(take, self._left - self._padding)])
                self._left -= take
                position += take
                if not self._left:
                    self._end_of_body()
                continue
            if not self._header and end - position >= BLOCK:
                block = piece[position : position + BLOCK]
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
        """End the archive. Raises ImageError if it is truncated. Zeros after the end marker are padding."""
        # POSIX asks for two blocks of zeros; writers fill up to a record of 20 blocks with more.
        if self._zeros > 1 and not any(self._header) and not self._left:
            return
        if self._left or self._header or self._overrides is not _NONE:
            raise malformed_archive("the archive ends in the middle of an entry")

    def _block(self, block: bytes) -> None:
        if block == _ZERO:
            if self._overrides is not _NONE:
                raise malformed_archive("the archive ends in the middle of an entry")
            self._zeros += 1
            return
        if self._zeros:
            self._after_the_end(block)
            return
        mode, uid, gid, size, mtime = _numbers(block)
        kind = block[156]
        if self._excerpt is not None:
            self._excerpt.header(block)
        if kind in _SPECIAL:
            self._special(kind, size)
        else:
            self._plain(block, kind, mode, uid, gid, size, mtime)

    def _after_the_end(self, block: bytes) -> None:
        """Accept the index that eStargz appends to a finished archive (stargz-snapshotter, docs/estargz.md, "TOC"):
        one file of that name, then nothing.

        Container runtimes stop at the end marker and never unpack it, so it is not an entry here either. Anything else
        after the marker is refused: some readers would see it and others not.
        """
        name = block[:100].rstrip(b"\0") if block[345:500].strip(b"\0") == b"" else b""
        if self._zeros < 2 or name != _STARGZ_INDEX or block[156] not in (_OLD_FILE, _FILE) or self._has_index:
            raise unsafe("there is data after the end of the archive, which some readers see and others do not")
        _, _, _, size, _ = _numbers(block)
        if size > self._limits.file_size:
            raise LimitExceeded(f"a file is too large: {size} bytes")
        self._has_index, self._zeros, self._copy = True, 2, None
        self._expect(size)

    def _special(self, kind: int, size: int) -> None:
        """Read a header for the next entry.

        Go drops headers before a global header, others keep them; with two of a kind, readers take different ones.
        """
        if size > self._limits.special_header:
            raise LimitExceeded(f"a name or pax header of {size} bytes")
        if kind in self._overrides.kinds or (kind == _PAX_GLOBAL and self._overrides is not _NONE):
            raise unsafe("one entry has several headers of the same kind, and readers take different ones")
        if kind != _PAX_GLOBAL:
            if self._overrides is _NONE:
                self._overrides = _Overrides()
            self._overrides.kinds += (kind,)
        self._kind, self._body = kind, []
        self._copy = self._excerpt.content if self._excerpt is not None else None
        self._expect(size)

    def _plain(self, block: bytes, kind: int, mode: int, uid: int, gid: int, size: int, mtime: int) -> None:
        file_type = _TYPES.get(kind)
        if file_type is None:
            raise unsafe(
                "a sparse file is refused: its size differs from the size of its data"
                if kind == _SPARSE
                else f"an entry of unknown type {chr(kind)!r}"
            )
        # Also entries without data cost memory: a few compressed kilobytes hold millions of them.
        self.entries += 1
        if self.entries > self._limits.layer_entries:
            raise LimitExceeded(f"more than {self._limits.layer_entries} entries")
        # Used once: headers are for the very next entry.
        over, self._overrides = self._overrides, _NONE
        if over.size is not None:
            size = over.size
        name = over.name if over.name is not None else _name(block)
        if file_type is _REGULAR and name.endswith(b"/"):
            # Old archives mark directories this way. For the newer type some readers see a file, others a directory.
            if kind != _OLD_FILE:
                raise unsafe("a file has a name that ends with a slash: some readers see a directory")
            file_type = _DIRECTORY
        has_body = file_type is _REGULAR
        if size and not has_body:
            # Go parses these bytes as the next header, others skip them: entries hidden in there are seen by only some
            # readers.
            raise unsafe(f"a {file_type} has data, which some readers take for entries")
        if size > self._limits.file_size:
            raise LimitExceeded(f"a file is too large: {size} bytes")
        path = self._path(name)
        if not path and file_type is not _DIRECTORY:
            raise unsafe("an entry has no name")
        entry = FileEntry(
            path,
            file_type,
            mode & 0o7777,
            uid if over.uid is None else over.uid,
            gid if over.gid is None else over.gid,
            size,
            "" if has_body or file_type is _DIRECTORY else self._link(block, over, file_type),
            over.capability,
            mtime if over.mtime is None else over.mtime,
        )
        self._entry, self._kind = entry, kind
        whole = self._visitor.entry(entry)
        self._body = [] if whole and has_body else None
        self._pieces = self._visitor.pieces(entry) if has_body and not whole else None
        if self._excerpt is not None:
            self._copy = self._excerpt.content if self._excerpt.wants(entry, size + -size % BLOCK) else None
        self._expect(size)

    def _path(self, name: bytes) -> str:
        """Return a relative, normalised path. ``..`` is refused anywhere: no image builder writes it."""
        if len(name) > self._limits.path_length:
            raise LimitExceeded(f"a path is too long: {len(name)} bytes")
        if b"\0" in name:
            raise malformed_archive("a path contains a NUL byte")
        # Linux names are bytes. The escape keeps two different names different.
        path = name.decode("utf-8", "surrogateescape").removeprefix("./").removesuffix("/")
        if not path or path[0] in "./" or "//" in path or "/." in path:
            parts = [part for part in path.split("/") if part not in ("", ".")]
            if ".." in parts:
                raise unsafe("a path points outside the image")
            path = "/".join(parts)
        # A short path cannot have so many.
        if len(path) >= self._limits.path_depth <= path.count("/"):
            raise LimitExceeded(f"a path is too deep: {path.count('/') + 1} directories")
        return path

    def _link(self, block: bytes, over: _Overrides, file_type: FileType) -> str:
        """The link's target as written; ``major:minor`` for a device."""
        if file_type in _DEVICES:
            return f"{_number(block[329:337], 'device')}:{_number(block[337:345], 'device')}"
        if file_type not in _LINKS:
            return ""
        target = over.link if over.link is not None else block[157:257].split(b"\0", 1)[0]
        if len(target) > self._limits.path_length:
            raise LimitExceeded(f"a link is too long: {len(target)} bytes")
        if not target or b"\0" in target:
            raise malformed_archive("a link has no target")
        if file_type is FileType.SYMLINK:
            return target.decode("utf-8", "surrogateescape")
        # A hard link names an entry of the archive; some unpackers would take an absolute one for a file of the host.
        if target.startswith(b"/"):
            raise unsafe("a hard link has an absolute path as its target")
        return self._path(target)

    def _expect(self, size: int) -> None:
        self._padding = -size % BLOCK
        self._left = size + self._padding
        if not self._left:
            self._end_of_body()

    def _end_of_body(self) -> None:
        body, self._body = self._body, None
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            pieces.close()
        if body is None:
            self._entry = None
            return
        data = body[0] if len(body) == 1 else b"".join(body)
        self._deliver(data[: len(data) - self._padding] if self._padding else data)

    def _deliver(self, data: bytes) -> None:
        """Pass on the content of a file, or read the values for the next entry."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self._visitor.content(entry, data)
        elif self._kind == _LONG_NAME:
            self._overrides.name = _first_only(self._overrides.name, data.split(b"\0", 1)[0])
        elif self._kind == _LONG_LINK:
            self._overrides.link = _first_only(self._overrides.link, data.split(b"\0", 1)[0])
        else:
            self._pax(data, is_global=self._kind == _PAX_GLOBAL)

    def _pax(self, data: bytes, *, is_global: bool) -> None:
        """Read records ``"%d %s=%s\\n"`` (POSIX pax, extended header). Duplicates and sparse maps are refused."""
        records = _records(data, self._limits)
        if is_global:
            if set(records) - {b"comment"}:
                raise unsafe("a global pax header is refused: for some readers it renames every file")
            return
        over = self._overrides
        for key, value in records.items():
            if key == b"path":
                over.name = _first_only(over.name, value)
            elif key == b"linkpath":
                over.link = _first_only(over.link, value)
            elif key in (b"size", b"uid", b"gid"):
                setattr(over, key.decode(), _decimal(value, key.decode()))
            elif key == b"mtime":
                over.mtime = _time(value)
            elif key == _CAPABILITY:
                over.capability = value
            elif key.startswith(b"GNU.sparse."):
                raise unsafe("a sparse file is refused: its size differs from the size of its data")
            elif key.startswith(_OVERLAY):
                raise unsafe("an extended attribute is reserved for the overlay file system")


def _first_only(before: bytes | None, value: bytes) -> bytes:
    """Return the value if it is the first and not empty.

    POSIX ignores an empty name, others use it; of two names, readers take different ones.
    """
    if before is not None or not value:
        raise unsafe("an entry has two names or an empty one, and readers take different ones")
    return value


def _records(data: bytes, limits: Limits) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    position = xattrs = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        length = _decimal(data[position:space], "pax record length") if space > position else 0
        record = data[position : position + length]
        if length < 5 or not record.endswith(b"\n") or len(record) != length:
            raise malformed_archive("a pax header is malformed")
        key, equals, value = record[space - position + 1 : -1].partition(b"=")
        if not equals or not key:
            raise malformed_archive("a pax header is malformed")
        if key in records:
            raise unsafe("a pax header has a key twice, and readers take different ones")
        xattrs += len(value) if key.startswith(b"SCHILY.xattr.") else 0
        records[key] = value
        if len(records) > limits.pax_records or xattrs > limits.xattrs:
            raise LimitExceeded("too many pax records")
        position += length
    return records


def _numbers(block: bytes) -> tuple[int, int, int, int, int]:
    """Mode, uid, gid, size and mtime of a header, after verifying its checksum."""
    usual = _USUAL.match(block, 100)
    if usual is not None:
        owner, size, mtime, checksum, digits = usual.groups()
        numbers = (*_mode_and_owner(owner), int(size, 8), int(mtime, 8))
        stored = int(digits, 8)
    else:
        checksum = block[148:156]
        stored = _number(checksum, "checksum")
        numbers = (
            _number(block[100:108], "mode"),
            _number(block[108:116], "uid"),
            _number(block[116:124], "gid"),
            _number(block[124:136], "size"),
            _number(block[136:148], "mtime", signed=True),
        )
    # The field itself counts as eight spaces.
    if stored != _sum(block) - _sum(checksum) + 256:
        raise malformed_archive("a header's checksum is wrong")
    return numbers


@lru_cache(maxsize=1024)  # a layer has few owners
def _mode_and_owner(fields: bytes) -> tuple[int, int, int]:
    return int(fields[:7], 8), int(fields[8:15], 8), int(fields[16:], 8)


def begins_archive(head: bytes) -> bool:
    """True if some reader could take content with these first 512 bytes for an archive, plain or compressed.

    More lenient than `TarReader`: Go also accepts signed sums, and Podman unpacks bzip2 and xz.
    """
    if not head.strip(b"\0") or head.startswith(_COMPRESSED) or _SKIPPABLE.match(head):
        return True
    if len(head) < BLOCK:
        return False
    stored = re.fullmatch(rb"[ \0]*([0-7]+)[ \0]*", head[148:156])
    unsigned = sum(head[:BLOCK]) - sum(head[148:156]) + 256
    signed = unsigned - 256 * sum(byte > 127 for byte in head[:148] + head[156:BLOCK])
    base_256 = int.from_bytes(bytes([head[148] & 0x7F]) + head[149:156], "big") if head[148] & 0x80 else -1
    return (int(stored[1], 8) if stored else base_256) in (unsigned, signed)


def _sum(data: bytes) -> int:
    """Sum of the bytes.

    The low half of Adler-32 is this sum plus one, modulo 65521, and thirty times faster to compute.
    """
    if not data.isascii():  # only then can the sum exceed the modulus: 512 times 127 is below it
        return sum(data)
    return (zlib.adler32(data) & 0xFFFF) - 1


def _name(block: bytes) -> bytes:
    """The name in the header itself. Three formats use the following field differently; an ambiguous one is refused."""
    name = block[:100].split(b"\0", 1)[0]
    prefix = _prefix(block[_MAGIC:])
    return prefix + b"/" + name if prefix else name


@lru_cache(maxsize=1024)  # most headers of a layer end alike
def _prefix(end: bytes) -> bytes:
    """The beginning of the name that a header has in its end (from the magic number on), after verifying the end."""

    def field(first: int, last: int) -> bytes:
        return end[first - _MAGIC : last - _MAGIC]

    magic = field(257, 265)
    if magic == b"ustar\x0000":
        if field(508, 512) == b"tar\0":
            raise unsafe("a header has the format of star, whose prefix is shorter for some readers")
        if field(329, 345) not in _NO_DEVICE:
            _number(field(329, 337), "device")
            _number(field(337, 345), "device")
        return field(345, 500).split(b"\0", 1)[0]
    if magic == b"ustar  \0":
        # If these two times are not numbers, Go takes them for the beginning of a name (a bug of old writers).
        if _OCTAL.fullmatch(field(345, 357)) is None or _OCTAL.fullmatch(field(357, 369)) is None:
            raise unsafe("a GNU header has a malformed time, which some readers take for a name")
    elif magic.startswith(b"ustar\0"):
        raise unsafe("a ustar header has an unknown version, in which some readers see no prefix")
    return b""


def _number(field: bytes, what: str, *, signed: bool = False) -> int:
    """Parse an octal number, or GNU's base-256 with the high bit set.

    Raises ImageError for a negative size, which would move a reader backwards.
    """
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if (value < 0 and not signed) or abs(value) > 1 << 62:
            raise malformed_archive(f"the {what} {value} is out of range")
        return value
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise malformed_archive(f"the {what} is not a number")
    return int(match[1] or b"0", 8)


def _time(value: bytes) -> int:
    """Seconds since 1970. Fractions are dropped."""
    match = _SECONDS.fullmatch(value)
    if match is None:
        raise malformed_archive("the mtime is not a number")
    return int(match[1])


def _decimal(value: bytes, what: str) -> int:
    if not value.isdigit() or len(value) > 19:
        raise malformed_archive(f"the {what} is not a number")
    return min(int(value), 1 << 62)
