"""rpm databases as rpm writes them, with headers of our own making."""

from __future__ import annotations

import sqlite3
import struct
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

SHA256 = 8


def header(
    package: str, files: Sequence[tuple[str, int, str]], *, owner: str = "root", algorithm: int = SHA256
) -> bytes:
    """A package's header. Each of ``files``: path, mode with its type, digest in hexadecimal."""
    directories = list(dict.fromkeys(f"/{path.rpartition('/')[0]}/" for path, _, _ in files))
    indexes = [directories.index(f"/{path.rpartition('/')[0]}/") for path, _, _ in files]
    texts = {
        1035: [digest for _, _, digest in files],
        1039: [owner for _ in files],
        1117: [path.rpartition("/")[2] for path, _, _ in files],
        1118: directories,
    }
    tags: list[tuple[int, int, int, bytes]] = [(1000, 6, 1, package.encode() + b"\0")]
    tags += [(tag, 8, len(values), b"".join(v.encode() + b"\0" for v in values)) for tag, values in texts.items()]
    tags.append((1030, 3, len(files), struct.pack(f">{len(files)}H", *(mode for _, mode, _ in files))))
    tags.append((1116, 4, len(files), struct.pack(f">{len(files)}I", *indexes)))
    tags.append((5011, 4, 1, struct.pack(">I", algorithm)))
    index, store = b"", b""
    for tag, kind, count, data in tags:
        store += bytes(-len(store) % 4)
        index += struct.pack(">IIII", tag, kind, len(store), count)
        store += data
    return struct.pack(">II", len(tags), len(store)) + index + store


def sqlite(
    *headers: bytes,
    schema: str = "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB)",
    rows: str = "SELECT 1",
) -> bytes:
    """rpmdb.sqlite, with the journal mode that rpm gives it."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "rpmdb.sqlite"
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(schema)
            database.execute(rows)
            for one in headers:
                database.execute("INSERT INTO Packages (blob) VALUES (?)", (one,))
            database.commit()
        return file.read_bytes()


def ndb(*headers: bytes) -> bytes:
    """Packages.db: one page of slots, then the blobs."""
    slots, blobs = struct.pack("<4sIIIIIII", b"RpmP", 0, 1, 1, len(headers) + 1, 0, 0, 0), b""
    for number, one in enumerate(headers, 1):
        blob = struct.pack("<4sIII", b"BlbS", number, 0, len(one)) + one
        blob += bytes(-len(blob) % 16)
        slots += struct.pack("<4sIII", b"Slot", number, (4096 + len(blobs)) // 16, len(blob) // 16)
        blobs += blob
    return slots.ljust(4096, b"\0") + blobs


def berkeley(*headers: bytes, order: str = "<") -> bytes:
    """Packages, a hash table of Berkeley DB: its head, one page of keys and values, and the chains of the values."""
    size, room = 4096, 4096 - 26

    def page(number: int, kind: int, following: int = 0, entries: int = 0, free: int = 0) -> bytes:
        return struct.pack(f"{order}8xIIIHHBB", number, 0, following, entries, free, 0, kind)

    items, offsets, overflow, end = b"", [], b"", size
    for number, one in enumerate(headers, 1):
        first = 2 + len(overflow) // size
        parts = [one[at : at + room] for at in range(0, len(one), room)]
        for place, part in enumerate(parts):
            following = first + place + 1 if place + 1 < len(parts) else 0
            overflow += (page(first + place, 7, following, 1, len(part)) + part).ljust(size, b"\0")
        key = b"\1" + struct.pack(f"{order}I", number)
        for item in (key, struct.pack(f"{order}B3xII", 3, first, len(one))):
            items, end = item + items, end - len(item)
            offsets.append(end)
    keys = page(1, 13, entries=len(offsets), free=end) + struct.pack(f"{order}{len(offsets)}H", *offsets)
    keys = keys.ljust(size - len(items), b"\0") + items
    pages = 2 + len(overflow) // size
    head = struct.pack(f"{order}12xIIIBB2xII", 0x061561, 9, size, 0, 8, 0, pages - 1)
    return head.ljust(size, b"\0") + keys + overflow
