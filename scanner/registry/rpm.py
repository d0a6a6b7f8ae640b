"""What rpm's database says of the files that its packages ship with privileges: owner, mode and digest.

Two of rpm's kinds of database are read: SQLite (Fedora 33, Enterprise Linux 9 and later) and ndb (SUSE). Both hold a
header for each package: https://rpm-software-management.github.io/rpm/manual/format_header.html. Of Berkeley DB
(Enterprise Linux 8 and earlier) nothing is read: what is not known tolerates nothing.

The database comes from an image: whatever is wrong in it ends the reading of that package, and of nothing else.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from scanner.model.filesystem import PackagedFile

_NAME, _MODES, _DIGESTS, _OWNERS = 1000, 1030, 1035, 1039
_DIRECTORY_INDEXES, _BASE_NAMES, _DIRECTORIES, _ALGORITHM = 1116, 1117, 1118, 5011
_INT16, _INT32, _STRING, _STRINGS = 3, 4, 6, 8
_HASHES = {0: "md5", 1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512"}  # RFC 4880, 9.4
_MOST_PACKAGES, _MOST_TAGS, _MOST_FILES, _LARGEST_HEADER = 20_000, 1000, 500_000, 8 << 20
_MOST_PRIVILEGED = 1000
_STEPS = 5_000_000  # of SQLite's virtual machine: a hostile schema must not compute for ever
_PRIVILEGED = 0o6000


def privileged_files(data: bytes) -> tuple[PackagedFile, ...]:
    """The setuid and setgid files of every package in a database. Never raises; empty where nothing can be read."""
    found: list[PackagedFile] = []
    for number, header in enumerate(_headers(data)):
        if number >= _MOST_PACKAGES or len(found) >= _MOST_PRIVILEGED:
            break
        try:
            found.extend(_privileged(header))
        except (struct.error, ValueError, IndexError, KeyError, OverflowError):
            continue
    return tuple(found[:_MOST_PRIVILEGED])


def _headers(data: bytes) -> Iterator[bytes]:
    if data.startswith(b"SQLite format 3\0"):
        yield from _sqlite(data)
    elif data.startswith(b"RpmP"):
        yield from _ndb(data)


def _sqlite(data: bytes) -> Iterator[bytes]:
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
                if isinstance(header, bytes) and len(header) <= _LARGEST_HEADER:
                    yield header
    except (sqlite3.Error, TypeError):
        return


def _reads_only(action: int, table: str | None, *_: object) -> int:
    """No function, no pragma, no other table: SQLite asks before it prepares a statement."""
    if action == sqlite3.SQLITE_SELECT or (action == sqlite3.SQLITE_READ and table in ("Packages", "sqlite_master")):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _ndb(data: bytes) -> Iterator[bytes]:
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
            continue
        (length,) = struct.unpack_from("<I", head, 12)
        if length <= min(_LARGEST_HEADER, count * 16):
            yield data[start + 16 : start + 16 + length]


def _privileged(header: bytes) -> Iterator[PackagedFile]:
    tags = _tags(header)
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
