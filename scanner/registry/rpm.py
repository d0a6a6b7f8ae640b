"""What rpm's database says: how many packages there are, and the owner, mode and digest of their privileged files.

All of rpm's kinds of database are read: SQLite (Fedora 33, Enterprise Linux 9 and later), ndb (SUSE), and Berkeley DB's
hash tables (Enterprise Linux 8, SUSE 12 and earlier). Each holds a header for every package:
https://rpm-software-management.github.io/rpm/manual/format_header.html.

The database comes from an image: whatever is wrong in it ends the reading of that package, and of nothing else.
"""

from __future__ import annotations

import re
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import islice

from scanner.lazy_dataclasses import dataclass
from scanner.model.filesystem import PackagedFile
from scanner.patterns import lazy
from scanner.registry.language_packages import EXTENSIONS, is_record

_NAME, _MODES, _DIGESTS, _OWNERS = 1000, 1030, 1035, 1039  # rpmtag.h and rpmtypes.h of rpm
_DIRECTORY_INDEXES, _BASE_NAMES, _DIRECTORIES, _ALGORITHM = 1116, 1117, 1118, 5011
# rpmtypes.h
_INT16, _INT32, _STRING, _STRINGS = 3, 4, 6, 8
_HASHES = {0: "md5", 1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512"}  # RFC 4880, 9.4
# Bounds for a hostile database, several times those of a full distribution.
_MOST_PACKAGES, _MOST_TAGS, _MOST_FILES, _LARGEST_HEADER = 20_000, 1000, 500_000, 8 << 20
_MOST_PRIVILEGED, _MOST_RECORDS, _LONGEST_DIRECTORY = 1000, 20_000, 4096
# The name of a file that may record packages of a language: only few packages have any.
_EXTENSIONS = sorted(re.escape(extension.encode()) for extension in EXTENSIONS)
# The look-ahead ends most attempts after one letter: a header is full of dots.
_RECORD = lazy(
    rb"\.(?=[%s])(?:%s)\0|METADATA\0|PKG-INFO\0|rock_manifest\0"
    % (b"".join(sorted({extension[:1] for extension in _EXTENSIONS})), b"|".join(_EXTENSIONS))
)
_STEPS = 5_000_000  # of SQLite's virtual machine: a hostile schema must not compute for ever
_PRIVILEGED = 0o6000  # setuid and setgid
_BERKELEY = {b"\x61\x15\x06\x00": "<", b"\x00\x06\x15\x61": ">"}  # DB_HASHMAGIC in both byte orders
_PAGE_HEAD, _HASH_PAGES, _OVERFLOW_PAGE = 26, (2, 13), 7  # P_HASH_UNSORTED, P_HASH; P_OVERFLOW
_IN_PAGE, _OFF_PAGE, _SMALLEST_HEADER = 1, 3, 24  # H_KEYDATA, H_OFFPAGE


@dataclass(frozen=True, slots=True)
class Contents:
    """``packages``: how many the database lists, without imported keys; None if that is not known. ``records``: files
    of packages that record packages of languages.
    """

    files: tuple[PackagedFile, ...] = ()
    packages: int | None = None
    records: frozenset[str] = frozenset()


def read(data: bytes) -> Contents:
    """Read a database. Never raises; what cannot be read is missing, and the packages are not counted then."""
    found: list[PackagedFile] = []
    records: set[str] = set()
    packages, whole, left = 0, True, len(data)
    for number, header in enumerate(_headers(data)):
        left -= len(header or b"")
        # Headers that overlap could hold more than the database: 20,000 slots may name one header of 8 MiB.
        if number >= _MOST_PACKAGES or left < 0:
            whole = False
            break
        if header is None:
            whole = False
            continue
        try:
            tags = _tags(header)
            # Keys that were imported have a header too, but no files; engines do not list them.
            packages += _texts(header, tags[_NAME]) != ["gpg-pubkey"]
            if len(found) < _MOST_PRIVILEGED:
                found.extend(_privileged_files(header, tags))
            if _BASE_NAMES in tags and _RECORD.search(header):
                records.update(islice(_records(header, tags), _MOST_RECORDS - len(records)))
        except (struct.error, ValueError, IndexError, KeyError, OverflowError):
            whole = False
    # A database in which nothing was found may hold what only rpm can read.
    counted = (packages or None) if whole else None
    return Contents(tuple(found[:_MOST_PRIVILEGED]), counted, frozenset(records))


def _headers(data: bytes) -> Iterator[bytes | None]:
    """The header of each package; None for one that cannot be read."""
    if data.startswith(b"SQLite format 3\0"):
        yield from _sqlite(data)
    elif data.startswith(b"RpmP"):
        yield from _ndb(data)
    elif len(data) >= 512 and data[12:16] in _BERKELEY:
        yield from _berkeley(data, _BERKELEY[data[12:16]])


def _sqlite(data: bytes) -> Iterator[bytes | None]:
    # A database in memory has no write-ahead log: the two bytes of the header that ask for one are set back.
    # https://www.sqlite.org/fileformat2.html#file_format_version_numbers
    plain = data[:18] + b"\1\1" + data[20:]
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(plain)
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_HEADER)  # a column may be computed: zeroblob(1e9)
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("PRAGMA cell_size_check = ON")
            database.set_authorizer(_reads_only)
            database.set_progress_handler(lambda: 1, _STEPS)  # ends the statement at the first call
            known = database.execute("SELECT type, rootpage FROM sqlite_master WHERE name = 'Packages'").fetchall()
            if [(kind, page > 0) for kind, page in known] != [("table", True)]:  # no view, no virtual table
                return
            for (header,) in database.execute("SELECT blob FROM Packages ORDER BY hnum"):
                yield header if isinstance(header, bytes) and len(header) <= _LARGEST_HEADER else None
    except (sqlite3.Error, TypeError):
        yield None


def _reads_only(action: int, table: str | None, *_: object) -> int:
    """No function, no pragma, no other table: SQLite asks before it prepares a statement."""
    if action == sqlite3.SQLITE_SELECT or (action == sqlite3.SQLITE_READ and table in ("Packages", "sqlite_master")):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _ndb(data: bytes) -> Iterator[bytes | None]:
    """rpm's lib/backend/ndb/rpmpkg.c: pages of 4096 bytes with slots of 16; a slot names where a package's blob is, in
    units of 16 bytes; the blob begins with a head of 16.
    """
    if len(data) < 4096:
        return
    (pages,) = struct.unpack_from("<I", data, 12)
    end = min(pages * 4096, len(data))
    for offset in range(32, end - 15, 16):
        magic, index, place, count = struct.unpack_from("<4sIII", data, offset)
        if magic != b"Slot" or not place or not count:
            continue
        start = place * 16
        head = data[start : start + 16]
        if len(head) < 16 or head[:4] != b"BlbS" or struct.unpack_from("<I", head, 4)[0] != index:
            yield None
            continue
        (length,) = struct.unpack_from("<I", head, 12)
        fits = length <= min(_LARGEST_HEADER, count * 16)
        yield data[start + 16 : start + 16 + length] if fits else None


def _berkeley(data: bytes, order: str) -> Iterator[bytes | None]:
    """A hash table of Berkeley DB 4.5 to 5.3 (src/dbinc/db_page.h): pages with a head of 26 bytes and the offsets of
    their items, a key and its value in turn. An item begins with its type; a header is usually longer than a page, and
    its item names the first of a chain of overflow pages.
    """
    (size,) = struct.unpack_from(f"{order}I", data, 20)
    if not 512 <= size <= 65536 or size & (size - 1):
        return
    if (struct.unpack_from(f"{order}I", data, 32)[0] + 1) * size != len(data):  # the last page's number
        yield None
    followed: set[int] = set()  # each page belongs to one value: circles and shared chains must not multiply the work
    for start in range(size, len(data) - size + 1, size):
        count, kind = struct.unpack_from(f"{order}H", data, start + 20)[0], data[start + 25]
        if kind not in _HASH_PAGES:
            continue
        if _PAGE_HEAD + 2 * count > size:
            yield None
            continue
        offsets = struct.unpack_from(f"{order}{count}H", data, start + _PAGE_HEAD)
        for number in range(1, count, 2):
            offset, end = offsets[number], offsets[number - 1]  # items grow from the end of the page
            if not _PAGE_HEAD <= offset < end <= size:
                yield None
                continue
            item = data[start + offset : start + end]
            if item[0] == _OFF_PAGE and len(item) >= 12:
                page, length = struct.unpack_from(f"{order}II", item, 4)
                yield _read_chain(data, order, size, page, length, followed)
            elif item[0] != _IN_PAGE or len(item) > _SMALLEST_HEADER:  # shorter: rpm's count of package numbers
                yield item[1:] if item[0] == _IN_PAGE else None


def _read_chain(data: bytes, order: str, size: int, page: int, length: int, followed: set[int]) -> bytes | None:
    """The value in a chain of overflow pages. None if it is cut, or a page was read before."""
    if length > _LARGEST_HEADER:
        return None
    found = bytearray()
    while page and page not in followed and len(found) < length:
        followed.add(page)
        start = page * size
        if start + size > len(data) or data[start + 25] != _OVERFLOW_PAGE:
            return None
        (following,) = struct.unpack_from(f"{order}I", data, start + 16)
        (used,) = struct.unpack_from(f"{order}H", data, start + 22)
        if not 0 < used <= size - _PAGE_HEAD:
            return None
        found += data[start + _PAGE_HEAD : start + _PAGE_HEAD + used]
        page = following
    return bytes(found) if len(found) == length else None


def _privileged_files(header: bytes, tags: Mapping[int, _Tag]) -> Iterator[PackagedFile]:
    modes = _numbers(header, tags.get(_MODES), _INT16)
    places = [number for number, mode in enumerate(modes) if mode & _PRIVILEGED and mode & 0o170000 == 0o100000]
    if not places:
        return
    (package,) = _texts(header, tags[_NAME])
    names, directories = _texts(header, tags[_BASE_NAMES]), _texts(header, tags[_DIRECTORIES])
    indexes = _numbers(header, tags[_DIRECTORY_INDEXES], _INT32)
    digests, owners = _texts(header, tags[_DIGESTS]), _texts(header, tags[_OWNERS])
    hash_name = _HASHES[next(iter(_numbers(header, tags.get(_ALGORITHM), _INT32)), 0)]
    for place in places:
        path = directories[indexes[place]] + names[place]
        yield PackagedFile(
            package, path.lstrip("/"), modes[place] & 0o7777, owners[place], hash_name, digests[place].lower()
        )


def _records(header: bytes, tags: Mapping[int, _Tag]) -> Iterator[str]:
    """The paths of a package's files that record packages of languages."""
    names, directories = _texts(header, tags[_BASE_NAMES]), _texts(header, tags[_DIRECTORIES])
    for name, index in zip(names, _numbers(header, tags[_DIRECTORY_INDEXES], _INT32), strict=True):
        # One directory of megabytes, with all files in it, would be copied for each of them.
        if name.rpartition(".")[2] in EXTENSIONS and len(directories[index]) <= _LONGEST_DIRECTORY:
            path = (directories[index] + name).lstrip("/")
            if is_record(path, name):
                yield path


@dataclass(frozen=True, slots=True)
class _Tag:
    kind: int
    start: int  # in the header
    count: int


def _tags(header: bytes) -> dict[int, _Tag]:
    """The index of a header as the database keeps it: without the magic bytes of a package file."""
    count, size = struct.unpack_from(">II", header)
    store = 8 + 16 * count
    if count > _MOST_TAGS or store + size > len(header):
        raise ValueError("the header is cut")
    found: dict[int, _Tag] = {}
    for number in range(count):
        tag, kind, offset, items = struct.unpack_from(">IIiI", header, 8 + 16 * number)
        if 0 <= offset < size and items <= _MOST_FILES:
            found.setdefault(tag, _Tag(kind, store + offset, items))
    return found


def _numbers(header: bytes, tag: _Tag | None, kind: int) -> tuple[int, ...]:
    if tag is None:
        return ()
    if tag.kind != kind:
        raise ValueError("a number of another size")
    return struct.unpack_from(f">{tag.count}{'H' if kind == _INT16 else 'I'}", header, tag.start)


def _texts(header: bytes, tag: _Tag) -> list[str]:
    if tag.kind not in (_STRING, _STRINGS):
        raise ValueError("not a text")
    parts = header[tag.start :].split(b"\0", tag.count)
    if len(parts) <= tag.count:
        raise ValueError("the texts are cut")
    return [part.decode("utf-8", "surrogateescape") for part in parts[: tag.count]]
