"""The largest files and directories of a layer: what a person looks for when an image is too large."""

from __future__ import annotations

from scanner.model.filesystem import FileEntry, FileType, LayerFacts
from scanner.model.image import MOST_PATHS, PathSize
from scanner.model.reference import Digest
from scanner.registry import contents
from scanner.registry.rootfs import merge


def entry(path: str, size: int = 0, kind: FileType = FileType.FILE) -> FileEntry:
    return FileEntry(path, kind, 0o644, 0, 0, size)


def test_directories_hold_everything_below_them_and_come_before_their_content() -> None:
    found = contents.largest(
        [
            entry("usr", kind=FileType.DIRECTORY),
            entry("usr/lib/deep/er/big.so", 700),
            entry("usr/lib/small.so", 200),
            entry("etc/passwd", 100),
            entry("usr/link", 5000, FileType.SYMLINK),
        ]
    )
    assert found[:3] == (
        PathSize("usr", 900, 2, True),
        PathSize("usr/lib", 900, 2, True),
        PathSize("usr/lib/deep", 700, 1, True),
    )
    assert PathSize("usr/lib/deep/er/big.so", 700) in found
    assert PathSize("etc", 100, 1, True) in found
    assert not any("link" in item.path for item in found)
    seen: set[str] = {""}
    for item in found:
        assert item.path.rpartition("/")[0] in seen
        seen.add(item.path)


def test_the_number_is_bounded_and_the_largest_win() -> None:
    found = contents.largest([entry(f"d/{n}", 1000 + n) for n in range(300)])
    assert len(found) == MOST_PATHS
    assert found[1] == PathSize("d/299", 1299)


def test_a_layer_without_content() -> None:
    assert contents.largest([]) == ()
    assert contents.largest([entry("empty")]) == ()
    assert contents.count([entry("empty"), entry("d", kind=FileType.DIRECTORY)]) == 1


def test_a_path_written_twice_counts_once() -> None:
    assert contents.largest([entry("a", 50), entry("a", 10)]) == (PathSize("a", 10),)


def test_bytes_that_a_later_layer_hides() -> None:
    base = LayerFacts(Digest.of(b"1"), 0, (entry("cache/x", 40), entry("app", 7)))
    top = LayerFacts(Digest.of(b"2"), 0, (entry("app", 9),), whiteouts=("cache/x",))
    assert contents.hidden_bytes(merge([base, top])) == {0: 47}
