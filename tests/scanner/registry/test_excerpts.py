"""An excerpt holds what the engine reads, byte by byte, and nothing appears of a layer that was refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from scanner.config import Limits
from scanner.errors import ImageError
from scanner.model.filesystem import FileEntry
from scanner.model.reference import Digest
from scanner.registry.blobs import BlobStore
from scanner.registry.excerpts import EngineFiles, Part, blob_name
from tests.scanner.registry.archives import (
    GZIP,
    archive,
    directory,
    file,
    gnu_long,
    hardlink,
    header,
    pax,
    read,
    symlink,
)

LONG = "a/" * 60 + "text.keep"


def part(entry: FileEntry) -> Part:
    if entry.mode & 0o111:
        return Part.PROGRAM
    return Part.ALL if entry.path.endswith(".keep") else Part.NOTHING


FILES = EngineFiles("1", part, (b"MARK", b"other mark"))


def excerpt(*parts: bytes, **more: object) -> bytes:
    found = io.BytesIO()
    read(archive(*parts), sink=found.write, files=FILES, **more)  # type: ignore[arg-type]
    return found.getvalue()


def program(name: str, content: bytes) -> bytes:
    return file(name, content, mode=0o755)


@pytest.mark.parametrize(
    "kept",
    [
        file("a.keep", b"x"),
        file("a.keep", b"x" * 512),
        file("empty.keep"),
        directory("a"),
        symlink("b", "a"),
        hardlink("b", "a"),
        header("dev/null", "3"),
        file("a/.wh.b"),
        file("a/.wh..wh..opq"),
        gnu_long(LONG.encode()) + file(LONG[:99], b"x"),
        pax(path=LONG) + file("short", b"x"),
        pax("g", comment="x") + file("a.keep", b"x"),
        file("a.keep", b"1") + file("a.keep", b"2"),
        program("p", b"\x7fELF, and a MARK"),
        program("p", b"\x7fELF, other mark" + bytes(2000)),
        program("p", b"MZ"),
        program("p", b"plain"),
    ],
)
def test_what_is_read_is_copied_as_it_was(kept: bytes) -> None:
    if b"\0" + b"1" in kept[150:160]:
        kept = file("a") + kept  # the target of the link
    dropped = file("b", b"y" * 1000) + pax(path="long") + file("c", b"z")
    left = kept.removeprefix(file("a")) if kept.startswith(file("a")) else kept
    assert excerpt(dropped, kept, dropped) == archive(left)


@pytest.mark.parametrize(
    "unread",
    [
        file("a", b"x"),
        file("a"),
        pax(path=LONG.removesuffix("keep")) + file("short", b"x"),
        program("p", b"#!/bin/sh"),
        program("p", b"\x7fELF without one"),
        program("p", b""),
    ],
)
def test_what_is_not_read_is_left_out_with_its_headers(unread: bytes) -> None:
    assert excerpt(file("a.keep", b"x"), unread, directory("d")) == archive(file("a.keep", b"x"), directory("d"))


def test_a_program_that_is_too_large_to_be_held_is_copied_unsearched() -> None:
    large = program("large", b"\x7fELF" + bytes(8 << 20))
    found = excerpt(large, program("small", b"\x7fELF" + bytes(3 << 20)), media_type=GZIP)
    assert found == archive(large)


def test_a_mark_between_two_pieces_is_found() -> None:
    """Pieces of a layer have a megabyte. The mark begins at the end of the first."""
    content = b"\x7fELF".ljust((1 << 20) - 512 - 2, b"x") + b"MARK" + b"y" * 5000
    assert excerpt(program("p", content), media_type=GZIP) == archive(program("p", content))


def test_another_reader_finds_the_same_files() -> None:
    found = excerpt(file("x", b"1"), pax(path="é.keep") + file("s", b"2"), program("p", b"\x7fELF"), directory("d"))
    with tarfile.open(fileobj=io.BytesIO(found)) as opened:
        assert [(m.name, m.size) for m in opened] == [("é.keep", 1), ("d", 0)]


def test_an_index_after_the_end_is_not_copied() -> None:
    """eStargz: it is no entry of the layer."""
    index = file("stargz.index.json", b"{}")
    found = io.BytesIO()
    read(archive(file("a.keep", b"x")) + archive(index), sink=found.write, files=FILES)
    assert found.getvalue() == archive(file("a.keep", b"x"))


@pytest.mark.parametrize("broken", ["diff_id", "digest", "truncated"])
def test_nothing_appears_of_a_layer_that_is_refused(tmp_path: Path, broken: str) -> None:
    store = BlobStore(tmp_path, 1 << 20)
    plain = archive(file("a.keep", b"x"))
    wrong = Digest.of(b"another")
    name = FILES.name(Digest.of(plain))
    change: dict[str, object] = {broken: wrong} if broken != "truncated" else {"transported": plain[:700]}
    with pytest.raises(ImageError), store.writer(name, 1 << 20, verified_by_caller=True) as sink:
        read(plain, sink=sink.write, files=FILES, limits=Limits(), **change)  # type: ignore[arg-type]
    assert not store.has(name)


def test_an_excerpt_has_a_name_of_its_own() -> None:
    layer, other = Digest.of(b"1"), Digest.of(b"2")
    names = {blob_name(layer, None), blob_name(layer, FILES), FILES.name(other), EngineFiles("2", part).name(layer)}
    assert len(names) == 4
    assert blob_name(layer, None) == layer
