"""What a person names may be a pipe, a device or a directory: read within bounds, or refused."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from scanner import files
from scanner.errors import UsageError
from scanner.files import open_regular, read_whole


@pytest.mark.parametrize("size", [0, 1, 4096])
def test_a_file_is_read_whole(tmp_path: Path, size: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * size)
    assert read_whole(file, 4096) == b"x" * size


@pytest.mark.parametrize("name", ["large", "/dev/zero", "/dev/urandom"])
def test_more_than_the_limit_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "large").write_bytes(b"x" * 4097)
    with pytest.raises(UsageError, match=r"the policy .* is larger than 4 KiB"):
        read_whole(tmp_path / name, 4096, "the policy")


@pytest.mark.parametrize(
    ("name", "why"), [("directory", "directory"), ("nothing", "No such file"), ("a\0b", "null byte")], ids=repr
)
def test_what_cannot_be_read(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(UsageError, match=f"cannot read .*{why}"):
        read_whole(tmp_path / name, 10)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    """``--policy <(…)``: the writer may open the pipe later than the reader, and write in parts."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb", buffering=0) as out:
            for _ in range(3):
                out.write(b"x" * 100_000)

    writer = threading.Thread(target=write)
    writer.start()
    assert read_whole(pipe, 1 << 20) == b"x" * 300_000
    writer.join()


def test_a_pipe_without_a_writer_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_WAIT_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="nothing was written to this pipe"):
        read_whole(tmp_path / "pipe", 10)
    silent = os.open(tmp_path / "pipe", os.O_RDWR)  # a writer that says nothing
    with pytest.raises(UsageError, match="nothing was written to this pipe"):
        read_whole(tmp_path / "pipe", 10)
    os.close(silent)


def test_only_a_regular_file_is_opened_for_reading_at_any_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(UsageError, match="is not a regular file"):
            open_regular(place)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    (tmp_path / "file").write_bytes(b"whole")
    with open_regular(tmp_path / "file") as file:
        assert file.seek(2) == 2
        assert file.read() == b"ole"
