"""What rpm's databases say of files with privileges, and that a broken or hostile one says nothing."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.model.filesystem import PackagedFile
from scanner.registry.places import looks_like_rpm
from scanner.registry.rpm import Contents, read
from tests.scanner.registry.rpm_databases import berkeley, header, ndb, sqlite

SU = ("usr/bin/su", 0o104755, "AB" * 32)
HEADER = header("util-linux", [("usr/bin/more", 0o100755, "cd" * 32), SU, ("usr/share", 0o042755, "")])
FOUND = PackagedFile("util-linux", "usr/bin/su", 0o4755, "root", "sha256", "ab" * 32)


BERKELEY = (Path(__file__).parent / "data" / "berkeley-5.3.Packages").read_bytes()
DATABASES = [sqlite(HEADER), ndb(HEADER), BERKELEY, berkeley(HEADER), berkeley(HEADER, order=">")]
KINDS = ["sqlite", "ndb", "Berkeley DB", "Berkeley DB of ours", "Berkeley DB of a big-endian machine"]


@pytest.mark.parametrize("database", DATABASES, ids=KINDS)
def test_files_with_privileges_are_told_with_their_package(database: bytes) -> None:
    assert looks_like_rpm(database)
    assert read(database).files == (FOUND,)


def test_packages_are_counted_without_imported_keys() -> None:
    others = [header(name, []) for name in ("bash", "glibc", "gpg-pubkey")]
    for store in (sqlite, ndb, berkeley):
        assert read(store(HEADER, *others)) == Contents((FOUND,), 3)
        assert read(store(HEADER, *others, b"no header")).packages is None
        assert read(store()) == Contents()
    assert read(BERKELEY) == Contents((FOUND,), 3)
    assert read(BERKELEY[:-512]).packages is None


def test_headers_that_overlap_are_read_as_long_as_the_database_is() -> None:
    shared = bytearray(ndb(HEADER, HEADER, *[HEADER] * 18))
    for slot in range(20):  # each names the first header
        shared[32 + 16 * slot : 48 + 16 * slot] = shared[32:48]
    cut = bytes(shared[: 4096 + 2 * len(HEADER)])
    found = read(cut)
    assert found.packages is None
    assert len(found.files) == len(cut) // len(HEADER) < 20


def test_chains_that_are_shared_or_circles_are_read_once() -> None:
    page = 4096
    circle = bytearray(berkeley(HEADER * 40))
    for start in range(2 * page, len(circle), page):
        circle[start + 16 : start + 20] = struct.pack("<I", 2)  # each page is followed by the first
    assert read(bytes(circle)) == Contents()
    shared = bytearray(berkeley(*[HEADER.ljust(5000, b"\0")] * 3))
    for item in range(3):  # each value names the first chain
        at = 2 * page - 17 * item - 12
        shared[at + 4 : at + 8] = struct.pack("<I", 2)
    assert read(bytes(shared)).packages is None


@pytest.mark.parametrize("store", [sqlite, ndb, berkeley])
@pytest.mark.parametrize("broken", [b"", HEADER[:40], HEADER[:-200], struct.pack(">II", 1 << 30, 1 << 30), bytes(64)])
def test_a_broken_header_hides_no_other(store: object, broken: bytes) -> None:
    assert read(store(broken, HEADER)).files == (FOUND,)  # type: ignore[operator]


def test_old_digests_have_their_own_algorithm() -> None:
    (found,) = read(sqlite(header("passwd", [SU], algorithm=1))).files
    assert found.hash_name == "md5"
    assert read(sqlite(header("passwd", [SU], algorithm=99))).files == ()


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE Other (hnum INTEGER PRIMARY KEY, blob BLOB)",
        "CREATE VIEW Packages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS hnum, "
        "CAST(i AS BLOB) AS blob FROM n",
    ],
)
def test_a_schema_of_somebody_else_is_not_run(schema: str) -> None:
    assert read(sqlite(schema=schema)) == Contents()


def test_a_column_that_computes_is_not_read() -> None:
    schema = "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB AS (zeroblob(900000000)))"
    assert read(sqlite(schema=schema, rows="INSERT INTO Packages (hnum) VALUES (1), (2)")) == Contents()


_PAGE, _VALUE = 4096, 2 * 4096 - 17  # of `berkeley`: its page of keys, and the item of the first value


@pytest.mark.parametrize(
    ("place", "written"),
    [
        (20, struct.pack("<I", 1000)),
        (20, struct.pack("<I", 1 << 20)),
        (_PAGE + 20, struct.pack("<H", 0xFFFF)),
        (_PAGE + 28, struct.pack("<H", 4)),
        (_PAGE + 28, struct.pack("<H", 0xFFFF)),
        (_VALUE, b"\x09"),
        (_VALUE, b"\x01"),
        (_VALUE + 4, struct.pack("<I", 99)),
        (_VALUE + 8, struct.pack("<I", 1 << 30)),
        (_VALUE + 8, struct.pack("<I", 10)),
        (2 * _PAGE + 22, struct.pack("<H", 0)),
        (2 * _PAGE + 22, struct.pack("<H", 0xFFFF)),
        (2 * _PAGE + 25, b"\x05"),
    ],
)
def test_a_berkeley_db_that_contradicts_itself_has_no_count(place: int, written: bytes) -> None:
    broken = bytearray(berkeley(HEADER))
    broken[place : place + len(written)] = written
    assert read(bytes(broken)) == Contents()


def test_a_short_header_stands_in_its_page() -> None:
    short = header("bash", [])
    inside = bytearray(berkeley(b"x"))
    inside[_PAGE + 20 : _PAGE + 22] = struct.pack("<H", 2)
    end = _VALUE + 12 - len(short) - 1
    inside[end : end + len(short) + 1] = b"\1" + short
    inside[_PAGE + 28 : _PAGE + 30] = struct.pack("<H", end - _PAGE)
    assert read(bytes(inside)) == Contents((), 1)


@pytest.mark.parametrize(
    ("place", "written"),
    [(4096, b"XlbS"), (4096 + 4, struct.pack("<I", 7)), (4096 + 12, struct.pack("<I", 1 << 30))],
)
def test_a_blob_of_ndb_that_contradicts_its_slot_has_no_count(place: int, written: bytes) -> None:
    broken = bytearray(ndb(HEADER))
    broken[place : place + len(written)] = written
    assert read(bytes(broken)) == Contents()


def test_an_ndb_without_its_first_page_is_empty() -> None:
    assert read(ndb(HEADER)[:200]) == Contents()


@pytest.mark.parametrize(
    ("entry", "written"),
    [
        (struct.pack(">II", 1030, 3), struct.pack(">II", 1030, 4)),
        (struct.pack(">II", 1000, 6), struct.pack(">II", 1000, 4)),
        (struct.pack(">II", 1117, 8), struct.pack(">II", 1117, 3)),
    ],
)
def test_a_tag_of_another_type_is_no_package(entry: bytes, written: bytes) -> None:
    assert HEADER.count(entry) == 1
    assert read(sqlite(HEADER.replace(entry, written))) == Contents()


@pytest.mark.parametrize("tag", [1030, 1116])
def test_a_tag_outside_of_its_header_is_absent(tag: int) -> None:
    at = next(n for n in range(8, len(HEADER), 16) if struct.unpack_from(">I", HEADER, n) == (tag,))
    changed = HEADER[: at + 8] + struct.pack(">i", 1 << 30) + HEADER[at + 12 :]
    assert read(sqlite(changed)).files == ()


@given(st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("database", DATABASES[:3], ids=KINDS[:3])
def test_any_bytes_are_read_to_the_end(database: bytes, data: st.DataObject) -> None:
    changed = bytearray(database)
    for place in data.draw(st.lists(st.integers(0, len(database) - 1), max_size=8)):
        changed[place] = data.draw(st.integers(0, 255))
    read(bytes(changed[: data.draw(st.integers(0, len(database)))]) if data.draw(st.booleans()) else bytes(changed))


def test_more_than_a_distribution_ships_is_cut() -> None:
    many = [(f"usr/bin/{n}", 0o104755, "ab" * 32) for n in range(1500)]
    assert len(read(sqlite(header("p", many), header("q", many))).files) == 1000


def test_records_of_a_hostile_package_are_bounded() -> None:
    """Each path repeats its directory, which the header has once."""
    long = "d" * 100_000
    some = header("p", [*((f"{long}/{n}.egg", 0o100644, "") for n in range(100)), ("usr/x.egg", 0o100644, "")])
    many = header("q", [(f"usr/{n}.egg", 0o100644, "") for n in range(20_100)])
    assert read(sqlite(some)).records == {"usr/x.egg"}
    assert len(read(sqlite(many)).records) == 20_000
