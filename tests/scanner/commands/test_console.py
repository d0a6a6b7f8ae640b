"""Where a command's findings go: a file appears whole, a pipe stays a pipe."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from scanner.commands import _console
from scanner.errors import UsageError


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "report"
    target.write_text("before")
    _console.write("after", target)
    assert target.read_text() == "after\n"
    assert list(tmp_path.iterdir()) == [target]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    """As root, replacing /dev/null by a file breaks the whole machine."""
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    _console.write("words", pipe)
    reader.join(10)
    assert read == ["words\n"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        _console.write("words", tmp_path / "nowhere" / "report")
    with pytest.raises(UsageError, match="cannot write"):
        _console.write("words", tmp_path)


def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "report"
    target.write_text("before")

    def half() -> None:
        with _console.replacing(target) as out:
            out.write(b"half")
            raise RuntimeError("the database went away")

    with pytest.raises(RuntimeError):
        half()
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "report"
    with _console.replacing(target) as first, _console.replacing(target) as second:
        first.write(b"first")
        second.write(b"second, longer")
    assert target.read_bytes() in (b"first", b"second, longer")
