"""What rpm's databases say of files with privileges, and that a broken or hostile one says nothing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.model.filesystem import PackagedFile
from scanner.registry.places import looks_like_rpm
from scanner.registry.rpm import privileged_files
from tests.scanner.registry.rpm_databases import header, ndb, sqlite

SU = ("usr/bin/su", 0o104755, "AB" * 32)
HEADER = header("util-linux", [("usr/bin/more", 0o100755, "cd" * 32), SU, ("usr/share", 0o042755, "")])
FOUND = PackagedFile("util-linux", "usr/bin/su", 0o4755, "root", "sha256", "ab" * 32)


@pytest.mark.parametrize("database", [sqlite(HEADER), ndb(HEADER)], ids=["sqlite", "ndb"])
def test_files_with_privileges_are_told_with_their_package(database: bytes) -> None:
    assert looks_like_rpm(database)
    assert privileged_files(database) == (FOUND,)


@pytest.mark.parametrize("store", [sqlite, ndb])
@pytest.mark.parametrize("broken", [b"", HEADER[:40], HEADER[:-200], struct.pack(">II", 1 << 30, 1 << 30), bytes(64)])
def test_a_broken_header_hides_no_other(store: object, broken: bytes) -> None:
    assert privileged_files(store(broken, HEADER)) == (FOUND,)  # type: ignore[operator]


def test_old_digests_have_their_own_algorithm() -> None:
    (found,) = privileged_files(sqlite(header("passwd", [SU], algorithm=1)))
    assert found.hash_name == "md5"
    assert privileged_files(sqlite(header("passwd", [SU], algorithm=99))) == ()


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE Other (hnum INTEGER PRIMARY KEY, blob BLOB)",
        "CREATE VIEW Packages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS hnum, "
        "CAST(i AS BLOB) AS blob FROM n",
    ],
)
def test_a_schema_of_somebody_else_is_not_run(schema: str) -> None:
    assert privileged_files(sqlite(schema=schema)) == ()


def test_a_column_that_computes_is_not_read() -> None:
    schema = "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB AS (zeroblob(900000000)))"
    assert privileged_files(sqlite(schema=schema, rows="INSERT INTO Packages (hnum) VALUES (1), (2)")) == ()


@given(st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("database", [sqlite(HEADER), ndb(HEADER)], ids=["sqlite", "ndb"])
def test_any_bytes_are_read_to_the_end(database: bytes, data: st.DataObject) -> None:
    changed = bytearray(database)
    for place in data.draw(st.lists(st.integers(0, len(database) - 1), max_size=8)):
        changed[place] = data.draw(st.integers(0, 255))
    privileged_files(
        bytes(changed[: data.draw(st.integers(0, len(database)))]) if data.draw(st.booleans()) else bytes(changed)
    )


def test_more_than_a_distribution_ships_is_cut() -> None:
    many = [(f"usr/bin/{n}", 0o104755, "ab" * 32) for n in range(1500)]
    assert len(privileged_files(sqlite(header("p", many), header("q", many)))) == 1000
