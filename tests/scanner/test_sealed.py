"""Kept files: only what this installation wrote under this name is believed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import time_machine

from scanner.sealed import SealedFiles

DATA = b"a result"


@pytest.fixture
def kept(tmp_path: Path) -> SealedFiles:
    files = SealedFiles(tmp_path / "kept", 1 << 20)
    files.put("one", DATA)
    return files


def sealed(files: SealedFiles) -> list[Path]:
    return sorted(files.directory.glob("*.sealed"))


def test_what_was_put_is_found_by_every_process(kept: SealedFiles) -> None:
    assert SealedFiles(kept.directory, 1).get("one") == DATA
    assert kept.get("two") is None
    assert SealedFiles(kept.directory / "other", 1).get("one") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: content[:16],
        lambda content: b"",
        lambda content: content + b"\0",
        lambda content: content[:-1] + b"!",
        lambda content: bytes(32) + content[32:],
        lambda content: content[32:],
    ],
)
def test_a_changed_file_is_absent(kept: SealedFiles, change: object) -> None:
    (path,) = sealed(kept)
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    assert kept.get("one") is None


def test_a_planted_file_is_absent(kept: SealedFiles, tmp_path: Path) -> None:
    """A file of another installation, and one of ours under another name."""
    (path,) = sealed(kept)
    foreign = SealedFiles(tmp_path / "foreign", 1 << 20)
    foreign.put("one", b"clean")
    path.write_bytes(sealed(foreign)[0].read_bytes())
    assert kept.get("one") is None
    kept.put("one", DATA)
    kept.put("two", b"clean")
    one, two = (kept._path(name) for name in ("one", "two"))
    two.replace(one)
    assert kept.get("one") is None


@pytest.mark.parametrize("key", [b"", b"short", bytes(33)])
def test_without_a_whole_key_nothing_is_believed_or_written(kept: SealedFiles, key: bytes) -> None:
    (kept.directory / "key").write_bytes(key)
    assert kept.get("one") is None
    kept.put("two", DATA)
    assert len(sealed(kept)) == 1


def test_files_are_private(kept: SealedFiles) -> None:
    assert {path.stat().st_mode & 0o777 for path in kept.directory.iterdir()} == {0o600}


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    kept = SealedFiles(tmp_path / "kept", 3 * (32 + 100))
    for number, name in enumerate("abc"):
        kept.put(name, bytes(100))
        os.utime(kept._path(name), (number, number))
    left_over = kept.directory / ".left"
    left_over.write_bytes(b"")
    os.utime(left_over, (1, 1))
    assert kept.get("a") is not None  # used again
    kept.put("d", bytes(100))
    assert [name for name in "abcd" if kept.get(name) is not None] == ["a", "c", "d"]
    assert not left_over.exists()


def test_a_fresh_partial_file_of_another_process_stays(kept: SealedFiles) -> None:
    partial = kept.directory / ".partial"
    partial.write_bytes(b"")
    os.utime(partial, (time.time(), time.time()))
    kept.put("two", DATA)
    assert partial.exists()


def test_a_directory_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"a file")
    files = SealedFiles(tmp_path / "kept", 1)
    files.put("one", DATA)
    assert files.get("one") is None


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"first")
    return path


def test_what_was_found_about_a_file_is_remembered_until_it_changes(kept: SealedFiles, program: Path) -> None:
    asked: list[bytes] = []

    def find() -> bytes:
        asked.append(program.read_bytes())
        return asked[-1]

    with time_machine.travel(time.time() + 60):
        for _ in range(2):
            assert kept.about("content", program, find) == b"first"
        assert SealedFiles(kept.directory, 1 << 20).about("content", program, find) == b"first"
        assert asked == [b"first"]
        assert kept.about("size", program, lambda: b"5") == b"5", "another question"
        program.write_bytes(b"other")
        assert kept.about("content", program, find) == b"other"
        # Replaced by a file with the same size and times, as a package manager can.
        stat, fresh = program.stat(), program.with_name("fresh")
        fresh.write_bytes(b"third")
        os.utime(fresh, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        fresh.replace(program)
        assert kept.about("content", program, find) == b"third"


def test_a_file_that_changed_a_moment_ago_is_asked_about_again(kept: SealedFiles, program: Path) -> None:
    """It can change again within the same tick of the clock."""
    changed = program.stat().st_ctime
    with time_machine.travel(changed + 1, tick=False):
        assert kept.about("content", program, lambda: b"one") == b"one"
        assert kept.about("content", program, lambda: b"two") == b"two"


def test_a_file_that_changes_while_it_is_read_is_not_remembered(kept: SealedFiles, program: Path) -> None:
    def find() -> bytes:
        program.write_bytes(b"changed")
        return b"half of each"

    with time_machine.travel(time.time() + 60):
        kept.about("content", program, find)
        assert kept.about("content", program, lambda: b"whole") == b"whole"


def test_a_planted_answer_about_a_file_is_not_believed(kept: SealedFiles, program: Path) -> None:
    with time_machine.travel(time.time() + 60):
        former = set(sealed(kept))
        kept.about("content", program, lambda: b"first")
        (path,) = set(sealed(kept)) - former
        path.write_bytes(path.read_bytes().replace(b"first", b"clean"))
        assert kept.about("content", program, lambda: b"asked again") == b"asked again"
