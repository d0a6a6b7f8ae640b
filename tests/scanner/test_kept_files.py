"""Files that the installation keeps: complete, private, bounded. See also test_sealed.py and registry/test_facts.py."""

from __future__ import annotations

import os
from pathlib import Path

from scanner.kept_files import KeptFiles, write_once


def test_the_first_content_stays(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    write_once(path, b"one")
    write_once(path, b"two")
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path], "nothing else is left"


def test_other_files_of_the_directory_stay_or_go(tmp_path: Path) -> None:
    for name in ("key", ".left"):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (1, 1))
    files = KeptFiles(tmp_path, ".kept", 1 << 20, others=frozenset({"key"}))
    files.write(tmp_path / "a.kept", b"content")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.kept", "key"]
    assert (tmp_path / "a.kept").read_bytes() == b"content"
