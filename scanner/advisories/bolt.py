"""Writes bbolt files (the format of Trivy's database) bottom-up from sorted data, and reads them within bounds without
trusting any page.

No maintained library exists; the one on PyPI takes minutes for what takes a fifth of a second here. Written from the
format that bbolt documents in its sources: 4 KiB pages, two meta pages, sorted leaf and branch pages, small buckets
inline.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scanner.errors import UsageError

PAGE = 4096  # Of files that we write. One that we read states its own in its meta pages.
# bbolt, db.go
_MAGIC, _VERSION = 0xED0CDAED, 2
# bbolt, page.go: the kinds of pages.
_BRANCH, _LEAF, _META, _FREELIST = 0x01, 0x02, 0x04, 0x10
# Bytes of a page's header, and of each element in it.
_HEADER, _ELEMENT = 16, 16
_FILL = PAGE // 2
_MAX_DEPTH = 32  # a tree of this depth has more leaves than any database: a deeper one is a loop
# 512 bytes to 64 KiB: what operating systems have.
_PAGE_SIZES = frozenset(1 << bits for bits in range(9, 17))
# How much one reader may read in total: a multiple of the file. Otherwise pages that refer to one another, or buckets
# that contain themselves, would be read for ever.
_READ_TIMES, _READ_LEAST = 4, 64 << 20

Tree = Mapping[bytes, "bytes | Tree"]


def write(tree: Tree, destination: Path) -> None:
    """Write nested mappings as buckets. Values are bytes or mappings (nested buckets)."""
    writer = _Writer()
    root = writer.bucket(tree)
    freelist = writer.page(_FREELIST, 0, b"")
    meta = [writer.meta(number, root, freelist) for number in (0, 1)]
    destination.write_bytes(b"".join(meta) + b"".join(writer.pages))


@dataclass(frozen=True)
class _Item:
    flags: int  # of a leaf: whether the value is a bucket
    key: bytes
    value: bytes

    @property
    def size(self) -> int:
        return _ELEMENT + len(self.key) + len(self.value)


class _Writer:
    def __init__(self) -> None:
        self.pages: list[bytes] = []
        self._next = 2

    def page(self, flags: int, count: int, body: bytes) -> int:
        """Append a page, with overflow pages if it is longer than one. Returns its number."""
        number = self._next
        total = -(-(_HEADER + len(body)) // PAGE)
        data = struct.pack("<QHHI", number, flags, count, total - 1) + body
        self.pages.append(data.ljust(total * PAGE, b"\0"))
        self._next += total
        return number

    def bucket(self, tree: Tree) -> int:
        """Append the pages of a bucket, bottom-up. Returns the number of its root page."""
        items = []
        for key in sorted(tree):
            value = tree[key]
            items.append(_Item(0, key, value) if isinstance(value, bytes) else _Item(1, key, self._bucket_value(value)))
        level = [(page[0].key if page else b"", self.page(_LEAF, len(page), _leaf(page))) for page in _split(items)]
        while len(level) > 1:
            parts = [level[i : i + 64] for i in range(0, len(level), 64)]
            level = [(part[0][0], self.page(_BRANCH, len(part), _branch(part))) for part in parts]
        return level[0][1]

    def _bucket_value(self, tree: Tree) -> bytes:
        """The value that a parent stores for a bucket: its root page, or the page itself if the bucket is small and
        flat.
        """
        if all(isinstance(value, bytes) for value in tree.values()):
            items = [_Item(0, key, value) for key, value in sorted(tree.items()) if isinstance(value, bytes)]
            if sum(item.size for item in items) + _HEADER <= PAGE // 4:
                return struct.pack("<QQ", 0, 0) + struct.pack("<QHHI", 0, _LEAF, len(items), 0) + _leaf(items)
        return struct.pack("<QQ", self.bucket(tree), 0)

    def meta(self, number: int, root: int, freelist: int) -> bytes:
        body = struct.pack("<IIIIQQQQQ", _MAGIC, _VERSION, PAGE, 0, root, 0, freelist, self._next, number)
        body += struct.pack("<Q", _fnv1a(body))
        return (struct.pack("<QHHI", number, _META, 0, 0) + body).ljust(PAGE, b"\0")


def _split(items: list[_Item]) -> list[list[_Item]]:
    pages: list[list[_Item]] = [[]]
    size = _HEADER
    for item in items:
        if pages[-1] and size + item.size > PAGE - _FILL // 8:
            pages.append([])
            size = _HEADER
        pages[-1].append(item)
        size += item.size
    return pages


def _leaf(items: list[_Item]) -> bytes:
    elements, data = b"", b""
    for index, item in enumerate(items):
        position = (len(items) - index) * _ELEMENT + len(data)
        elements += struct.pack("<IIII", item.flags, position, len(item.key), len(item.value))
        data += item.key + item.value
    return elements + data


def _branch(children: list[tuple[bytes, int]]) -> bytes:
    elements, data = b"", b""
    for index, (key, number) in enumerate(children):
        position = (len(children) - index) * _ELEMENT + len(data)
        elements += struct.pack("<IIQ", position, len(key), number)
        data += key
    return elements + data


def _fnv1a(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


@dataclass(frozen=True)
class _Meta:
    page_size: int
    root: int
    transaction: int  # the higher of the two meta pages is the newer


class _File:
    """The pages of an open file, with a limit on the total amount that is read."""

    def __init__(self, data: mmap.mmap | bytes, page_size: int) -> None:
        self._data, self._page_size = data, page_size
        self._left = max(_READ_LEAST, _READ_TIMES * len(data))

    def page(self, number: int) -> bytes:
        """Return a page with its overflow pages. Raises UsageError if it does not exist."""
        start = number * self._page_size
        # Pages 0 and 1 are the meta pages: no branch may point to them.
        if number < 2 or start + _HEADER > len(self._data):
            raise _broken_file_error()
        flags, _, overflow = struct.unpack_from("<HHI", self._data, start + 8)
        end = start + (overflow + 1) * self._page_size
        if not flags & (_LEAF | _BRANCH) or end > len(self._data):
            raise _broken_file_error()
        self.spend(end - start)
        return self._data[start:end]

    def spend(self, size: int) -> None:
        """Count the bytes that were read. Raises UsageError if they exceed the limit."""
        self._left -= size
        if self._left < 0:
            raise UsageError("the file is damaged: its pages refer to one another", hint="download it again")


@dataclass(frozen=True)
class Bucket:
    """A bucket of an open file. Raises UsageError if a page is malformed."""

    _file: _File
    _root: int
    _inline: bytes = b""  # a small bucket that is stored in its parent's value; empty: it has pages of its own

    def items(self) -> Iterator[tuple[bytes, bytes | Bucket]]:
        """Yield the keys in order, with their values or nested buckets."""
        yield from self._walk(self._first(), 0)

    def get(self, key: bytes) -> bytes | Bucket | None:
        """Return the value or bucket of ``key``, or None."""
        page = self._first()
        for _ in range(_MAX_DEPTH):
            if _flags(page) & _LEAF:
                # Linear, not by bisection: the order of keys is a promise of the file, which nobody verified.
                return next((value for name, value in self._leaf(page) if name == key), None)
            below = [child for first, child in _children(page) if first <= key]
            if not below:
                return None
            page = self._file.page(below[-1])
        raise _broken_file_error()

    def bucket(self, key: bytes) -> Bucket | None:
        found = self.get(key)
        return found if isinstance(found, Bucket) else None

    def _first(self) -> bytes:
        self._file.spend(len(self._inline))
        return self._inline or self._file.page(self._root)

    def _walk(self, page: bytes, depth: int) -> Iterator[tuple[bytes, bytes | Bucket]]:
        if depth > _MAX_DEPTH:
            raise _broken_file_error()
        if _flags(page) & _LEAF:
            yield from self._leaf(page)
        else:
            for _, child in _children(page):
                yield from self._walk(self._file.page(child), depth + 1)

    def _leaf(self, page: bytes) -> Iterator[tuple[bytes, bytes | Bucket]]:
        left = len(page)  # elements do not overlap, so together they are no larger than the page
        for position in _elements(page):
            flags, offset, key_size, value_size = struct.unpack_from("<IIII", page, position)
            start = position + offset
            left -= _ELEMENT + key_size + value_size
            if left < 0:
                raise _broken_file_error()
            key, value = page[start : start + key_size], page[start + key_size : start + key_size + value_size]
            if len(key) != key_size or len(value) != value_size:
                raise _broken_file_error()
            yield key, self._below(value) if flags & 1 else value

    def _below(self, value: bytes) -> Bucket:
        if len(value) < 16:
            raise _broken_file_error()
        (root,) = struct.unpack_from("<Q", value)
        return Bucket(self._file, root, value[16:] if root == 0 else b"")


def _flags(page: bytes) -> int:
    if len(page) < _HEADER:
        raise _broken_file_error()
    return int(struct.unpack_from("<H", page, 8)[0])


def _elements(page: bytes) -> range:
    count = struct.unpack_from("<H", page, 10)[0]
    if _HEADER + count * _ELEMENT > len(page):
        raise _broken_file_error()
    return range(_HEADER, _HEADER + count * _ELEMENT, _ELEMENT)


def _children(page: bytes) -> Iterator[tuple[bytes, int]]:
    for position in _elements(page):
        offset, size, number = struct.unpack_from("<IIQ", page, position)
        yield page[position + offset : position + offset + size], number


def _broken_file_error() -> UsageError:
    return UsageError("the file is damaged: one of its pages is malformed", hint="download it again")


@contextmanager
def open_root_bucket(file: Path) -> Iterator[Bucket]:
    """Open a complete bbolt file and yield its root bucket. Raises UsageError if it is not one."""
    with file.open("rb") as stream:
        if file.stat().st_size < 2 * PAGE:
            raise UsageError(f"{file.name} is not a complete Trivy database", hint="download it again")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield root_of(data, file.name)


def root_of(data: mmap.mmap | bytes, name: str = "the file") -> Bucket:
    """Return the root bucket of a file's bytes. Raises UsageError if it is not a bbolt file."""
    if len(data) < 2 * PAGE:
        raise UsageError(f"{name} is not a complete Trivy database", hint="download it again")
    meta = _newest_meta(data, name)
    return Bucket(_File(data, meta.page_size), meta.root)


def _newest_meta(data: mmap.mmap | bytes, name: str) -> _Meta:
    """Return the valid meta page with the higher transaction number: bbolt writes the two alternately."""
    found = []
    for offset in (0, PAGE):
        body = data[offset + _HEADER : offset + _HEADER + 64]
        magic, version, page_size, _, root, _, _, pages, transaction = struct.unpack("<IIIIQQQQQ", body[:56])
        (checksum,) = struct.unpack("<Q", body[56:64])
        known = (magic, version, checksum) == (_MAGIC, _VERSION, _fnv1a(body[:56])) and page_size in _PAGE_SIZES
        # A download that was cut has a valid meta page at its beginning, but fewer pages than that states.
        if known and 0 < pages * page_size <= len(data):
            found.append(_Meta(page_size, root, transaction))
    if not found:
        raise UsageError(f"{name} is not a complete Trivy database", hint="download it again")
    return max(found, key=lambda meta: meta.transaction)
