"""The strict tar reader: what it reads, Python's and Go's read alike; what they read differently, it refuses."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.config import Limits
from scanner.errors import ImageError, LimitExceeded
from scanner.model.filesystem import FileEntry, FileType
from scanner.registry.tar import TarReader, Visitor
from tests.scanner.registry.archives import (
    END,
    GNU,
    POSIX,
    archive,
    base256,
    directory,
    file,
    gnu_long,
    hardlink,
    header,
    pax,
    record,
    sealed,
    symlink,
)

_KINDS = {
    FileType.FILE: tarfile.REGTYPE,
    FileType.HARDLINK: tarfile.LNKTYPE,
    FileType.SYMLINK: tarfile.SYMTYPE,
    FileType.CHAR_DEVICE: tarfile.CHRTYPE,
    FileType.BLOCK_DEVICE: tarfile.BLKTYPE,
    FileType.DIRECTORY: tarfile.DIRTYPE,
    FileType.FIFO: tarfile.FIFOTYPE,
}


class Collector(Visitor):
    """Wants every file's content."""

    def __init__(self) -> None:
        self.found: list[tuple[FileEntry, bytes]] = []

    def entry(self, entry: FileEntry) -> bool:
        self.found.append((entry, b""))
        return True

    def content(self, entry: FileEntry, data: bytes) -> None:
        self.found[-1] = (entry, data)


def listed(data: bytes, *, step: int = 1 << 20, limits: Limits | None = None) -> list[tuple[FileEntry, bytes]]:
    collector = Collector()
    reader = TarReader(collector, limits or Limits())
    for position in range(0, len(data), step):
        reader.feed(data[position : position + step])
    reader.close()
    assert reader.offset == len(data)
    return collector.found


def only(data: bytes) -> FileEntry:
    ((entry, _),) = listed(data)
    return entry


_part = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=40
)
_path = st.lists(_part.filter(lambda p: p not in (".", "..")), min_size=1, max_size=8).map("/".join)
_member = st.tuples(
    _path,
    st.sampled_from(list(_KINDS)),
    st.binary(max_size=1500),
    st.integers(0, 0o7777),
    st.integers(0, 2**31),
    _path,
    st.integers(-(2**33), 2**33),
)


@given(
    st.lists(_member, max_size=6),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.sampled_from([1, 100, 511, 512, 513, 4096, 1 << 20]),
)
@settings(deadline=None, max_examples=80)
def test_reads_what_others_write(members: list[tuple[object, ...]], form: int, step: int) -> None:
    buffer, expected = io.BytesIO(), []
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for path, kind, data, mode, uid, link, mtime in members:
            info = tarfile.TarInfo(str(path))
            info.type, info.mode, info.uid, info.mtime = _KINDS[kind], mode, uid, mtime  # type: ignore[index,assignment]
            is_link = kind in (FileType.SYMLINK, FileType.HARDLINK)
            info.linkname = str(link) if is_link else ""
            info.size = len(data) if kind is FileType.FILE else 0  # type: ignore[arg-type]
            try:
                tar.addfile(info, io.BytesIO(data) if info.size else None)  # type: ignore[arg-type]
            except ValueError:
                continue  # ustar cannot hold everything
            target = info.linkname or ("0:0" if str(kind).endswith("device") else "")
            expected.append((path, kind, mode, uid, info.size, target, mtime, data if info.size else b""))
    found = [
        (e.path, e.type, e.mode, e.uid, e.size, e.link, e.mtime, data)
        for e, data in listed(buffer.getvalue(), step=step)
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("./a/b", "a/b"),
        ("/etc/passwd", "etc/passwd"),
        ("a//b/./c", "a/b/c"),
        (".hidden", ".hidden"),
        ("..x/y", "..x/y"),
    ],
)
def test_paths_are_normalised(name: str, path: str) -> None:
    assert only(archive(file(name))).path == path


def test_the_root_directory_has_no_name() -> None:
    assert only(archive(directory("./"))).path == ""


def test_names_that_are_not_utf8_survive() -> None:
    assert only(archive(file(b"caf\xe9"))).path.encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_long_names_of_both_kinds() -> None:
    long = "d/" * 90 + "x" * 120
    assert only(archive(pax(path=long), file("short"))).path == long
    assert only(archive(gnu_long(long.encode()), file("short", magic=GNU))).path == long
    assert only(archive(gnu_long(long.encode(), "K"), header("s", "2", link="t", magic=GNU))).link == long
    assert only(archive(file("name", prefix=b"p/q"))).path == "p/q/name"
    assert only(archive(file("name", prefix=b"", magic=GNU, fields={345: b"14000000000\0"}))).path == "name"


def test_pax_records_override_the_header() -> None:
    entry = only(
        archive(
            pax(size="3", uid="5000000000", gid="7", SCHILY__xattr__security__capability=b"\1\0\0\2\n\0"),
            header("f") + b"abc" + bytes(509),
        )
    )
    assert (entry.size, entry.uid, entry.gid, entry.capability) == (3, 5_000_000_000, 7, b"\1\0\0\2\n\0")
    assert listed(archive(file("a"), file("b")))[1][0].capability == b""


def test_sizes_in_base_256() -> None:
    assert only(archive(header("f", fields={124: base256(5, 12)}) + b"12345" + bytes(507))).size == 5


def test_devices_say_which() -> None:
    assert only(archive(header("dev/mem", "3", device=(1, 1)))).link == "1:1"


def test_a_comment_for_the_whole_archive_is_harmless() -> None:
    assert only(archive(pax("g", comment="0123abcd"), file("f"))).path == "f"


_BAD_CHECKSUM = bytearray(file("f", b"x"))
_BAD_CHECKSUM[0] ^= 1
_BIG = {124: base256(1 << 61, 12)}
_NEGATIVE = {124: base256(-512, 12)}
REFUSED = {
    "checksum": (archive(bytes(_BAD_CHECKSUM)), "malformed_archive"),
    "hidden behind a bad checksum": (archive(file("a"), bytes(_BAD_CHECKSUM), file("b")), "malformed_archive"),
    "size negative": (archive(header("f", fields=_NEGATIVE)), "malformed_archive"),
    "size 2 EiB": (archive(header("f", fields=_BIG)), "limit_exceeded"),
    "size 8 EiB": (archive(header("f", fields={124: b"\x80" + b"\xff" * 11})), "malformed_archive"),
    "size no number": (archive(header("f", fields={124: b"12x45678901\0"})), "malformed_archive"),
    "size with a sign": (archive(header("f", fields={124: b"-0000000001\0"})), "malformed_archive"),
    "size after a space": (archive(header("f", fields={124: b"1 2\0\0\0\0\0\0\0\0\0"})), "malformed_archive"),
    "mtime absurd": (archive(header("f", fields={136: b"\xc0" + bytes(11)})), "malformed_archive"),
    "parent": (archive(file("../x")), "unsafe_archive"),
    "parent inside": (archive(file("a/../x")), "unsafe_archive"),
    "parent by pax": (archive(pax(path="a/.."), file("x")), "unsafe_archive"),
    "file without a name": (archive(file("")), "unsafe_archive"),
    "file named root": (archive(file("./")), "unsafe_archive"),
    "file with a slash": (archive(file("a/")), "unsafe_archive"),
    "hard link to parent": (archive(hardlink("x", "../y")), "unsafe_archive"),
    "hard link absolute": (archive(hardlink("x", "/etc/shadow")), "unsafe_archive"),
    "hard link with data": (archive(file("x", b"data", "1", link="y")), "unsafe_archive"),
    "directory with data": (archive(file("x", file("hidden"), "5")), "unsafe_archive"),
    "symlink with data": (archive(file("x", bytes(512), "2", link="y")), "unsafe_archive"),
    "pipe with data": (archive(file("x", bytes(512), "6")), "unsafe_archive"),
    "symlink without target": (archive(symlink("x", "")), "malformed_archive"),
    "type 7": (archive(file("x", b"data", "7")), "unsafe_archive"),
    "type of a vendor": (archive(file("x", b"data", "V")), "unsafe_archive"),
    "sparse, old": (archive(file("x", b"data", "S", magic=GNU)), "unsafe_archive"),
    "sparse, pax": (archive(pax(GNU__sparse__realsize="8589934592"), file("x")), "unsafe_archive"),
    "global header": (archive(pax("g", path="etc/passwd"), file("x")), "unsafe_archive"),
    "global header in between": (archive(pax(path="a"), pax("g", comment="c"), file("b")), "unsafe_archive"),
    "two pax headers": (archive(pax(path="a"), pax(size="0"), file("b")), "unsafe_archive"),
    "two long names": (archive(gnu_long(b"a"), gnu_long(b"b"), file("c", magic=GNU)), "unsafe_archive"),
    "pax and long name": (archive(pax(path="a"), gnu_long(b"b"), file("c", magic=GNU)), "unsafe_archive"),
    "pax record twice": (
        archive(file("p", record(b"path", b"a") + record(b"path", b"b"), "x"), file("c")),
        "unsafe_archive",
    ),
    "empty pax path": (archive(pax(path=""), file("visible")), "unsafe_archive"),
    "empty long name": (archive(gnu_long(b""), file("visible", magic=GNU)), "unsafe_archive"),
    "NUL in a pax path": (archive(pax(path="a\0b"), file("c")), "malformed_archive"),
    "NUL in a link": (archive(pax(linkpath="a\0b"), symlink("c", "d")), "malformed_archive"),
    "pax size negative": (archive(pax(size="-1"), file("c")), "malformed_archive"),
    "pax length lies": (archive(file("p", b"99 path=a\n", "x"), file("c")), "malformed_archive"),
    "pax length 0": (archive(file("p", b"0 path=a\n", "x"), file("c")), "malformed_archive"),
    "pax without newline": (archive(file("p", b"8 path=a", "x"), file("c")), "malformed_archive"),
    "pax without key": (archive(file("p", b"5 =a\n", "x"), file("c")), "malformed_archive"),
    "overlay attribute": (archive(pax(SCHILY__xattr__trusted__overlay__opaque="y"), directory("d")), "unsafe_archive"),
    "ustar of another version": (archive(file("x", prefix=b"p", magic=b"ustar\x0099")), "unsafe_archive"),
    "star": (archive(file("x", prefix=b"p" * 150, fields={508: b"tar\0"})), "unsafe_archive"),
    "GNU time that is a name": (archive(file("x", magic=GNU, prefix=b"etc")), "unsafe_archive"),
    "data after the end": (archive(file("a")) + archive(file("b")), "unsafe_archive"),
    "data after one zero block": (file("a") + bytes(512) + file("b") + END, "unsafe_archive"),
    "ends in a header": (file("a")[:300], "malformed_archive"),
    "ends in data": (file("a", b"x" * 2000)[:1024], "malformed_archive"),
    "ends after a pax header": (archive(pax(path="a")), "malformed_archive"),
    "ends after a harmless pax header": (pax(mtime="1"), "malformed_archive"),
    "path too long": (archive(pax(path="x" * 4096), file("a")), "limit_exceeded"),
    "path too deep": (archive(pax(path="d/" * 128 + "f"), file("a")), "limit_exceeded"),
    "link too long": (archive(pax(linkpath="x" * 4096), symlink("a", "b")), "limit_exceeded"),
    "special header too large": (archive(header("p", "x", (1 << 20) + 1)), "limit_exceeded"),
    "pax records": (
        archive(file("p", b"".join(record(b"k%d" % i, b"") for i in range(1001)), "x"), file("a")),
        "limit_exceeded",
    ),
    "xattrs": (archive(pax(SCHILY__xattr__user__x=b"x" * 65537), file("a")), "limit_exceeded"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=list(REFUSED))
@pytest.mark.parametrize("step", [1 << 20, 500])
def test_refuses(data: bytes, reason: str, step: int) -> None:
    with pytest.raises(ImageError) as caught:
        listed(data, step=step)
    assert caught.value.reason == reason
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_counts_entries() -> None:
    with pytest.raises(LimitExceeded):
        listed(archive(*(file(f"f{i}") for i in range(4))), limits=replace(Limits(), layer_entries=3))


def test_an_archive_needs_no_end_marker() -> None:
    assert [e.path for e, _ in listed(file("a", b"1"))] == ["a"]
    assert listed(b"") == []
    assert listed(archive(file("a")) + bytes(9 * 512 + 100))


@given(st.binary(max_size=2000), st.integers(0, 511), st.integers(0, 255), st.sampled_from([POSIX, GNU]))
@settings(deadline=None, max_examples=300)
def test_nothing_but_our_errors(noise: bytes, position: int, value: int, magic: bytes) -> None:
    block = bytearray(file("name", b"data", magic=magic))
    block[position] = value
    for data in (noise, sealed(bytes(block[:512])) + bytes(block[512:]) + noise):
        assert refusal(data) in ("", "malformed_archive", "unsafe_archive", "limit_exceeded")


def refusal(data: bytes) -> str:
    try:
        listed(data)
    except ImageError as error:
        return error.reason
    return ""


_GO = """package main
import ("archive/tar"; "bytes"; "encoding/binary"; "encoding/json"; "fmt"; "io"; "os")
func main() {
	in, _ := io.ReadAll(os.Stdin)
	for len(in) > 0 {
		n := binary.BigEndian.Uint32(in)
		t := tar.NewReader(bytes.NewReader(in[4 : 4+n]))
		in = in[4+n:]
		found, failed := [][]string{}, ""
		for {
			h, err := t.Next()
			if err == io.EOF { break }
			data, bad := []byte{}, err
			if err == nil { data, bad = io.ReadAll(t) }
			if bad != nil { failed = bad.Error(); break }
			if h.Typeflag == 'g' { continue }
			name, mode := fmt.Sprintf("%x", h.Name), fmt.Sprintf("%o", h.Mode & 07777)
			entry := []string{name, string(h.Typeflag), h.Linkname, mode, fmt.Sprint(h.Uid), fmt.Sprintf("%x", data)}
			found = append(found, entry)
		}
		json.NewEncoder(os.Stdout).Encode(map[string]any{"found": found, "failed": failed})
	}
}
"""


@pytest.fixture(scope="module")
def go_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("go") is None:
        pytest.skip(
            "Go is not installed: apt-get install golang-go, to compare with archive/tar, which engines and "
            "runtimes use"
        )
    place = tmp_path_factory.mktemp("go")
    (place / "main.go").write_text(_GO)
    subprocess.run(["go", "build", "-o", place / "reader", place / "main.go"], check=True)
    return place / "reader"


def _pieces() -> st.SearchStrategy[bytes]:
    name = st.sampled_from(["a", "a/b", "./c", "d/", "/e", "x//y", "é", ""])
    magic = st.sampled_from([POSIX, POSIX, GNU, bytes(8), b"ustar\x0001"])
    value = st.sampled_from([b"\xff" * 8, b"tar\0", b"  12 ", b"\x80" + bytes(7) + b"\5", b"1\x002", b"abc"])
    return st.one_of(
        st.builds(
            lambda n, d, k, m, p: file(n, d, k, magic=m, prefix=p),
            name,
            st.binary(max_size=600),
            st.sampled_from("000\07V"),
            magic,
            st.sampled_from([b"", b"", b"pre"]),
        ),
        st.builds(
            lambda n, k, s, m: header(n, k, s, magic=m, link="t"),
            name,
            st.sampled_from("123456"),
            st.sampled_from([0, 0, 0, 5, 512]),
            magic,
        ),
        st.builds(
            lambda k, p, s: pax(k, path=p, size=s),
            st.sampled_from("xxg"),
            st.sampled_from(["p", "", "p/", "p\0q"]),
            st.sampled_from(["0", "5", "600", "-1", ""]),
        ),
        st.builds(lambda k: pax(k, mtime="1.5", comment="c", uid="7"), st.sampled_from("xg")),
        st.builds(gnu_long, st.sampled_from([b"long/name", b"", b"n" * 300]), st.sampled_from("LK")),
        st.builds(
            lambda o, v: file("f", b"q" * 10, fields={o: v}),
            st.sampled_from([100, 108, 124, 136, 329, 337, 345, 357, 500, 508]),
            value,
        ),
        st.just(bytes(512)),
    )


def test_what_is_accepted_go_reads_alike(go_reader: Path) -> None:
    """Engines and runtimes read layers with Go's archive/tar: an archive that we read otherwise would show them
    another image.
    """
    collected: list[bytes] = []

    @given(st.lists(_pieces(), min_size=1, max_size=4), st.sampled_from([END, END, b""]))
    @settings(deadline=None, max_examples=400, database=None, derandomize=True)
    def collect(pieces: list[bytes], end: bytes) -> None:
        collected.append(b"".join(pieces) + end)

    collect()
    stream = b"".join(struct.pack(">I", len(data)) + data for data in collected)
    lines = subprocess.run([go_reader], input=stream, capture_output=True, check=True).stdout.splitlines()
    accepted = 0
    for data, line in zip(collected, lines, strict=True):
        theirs = json.loads(line)
        try:
            ours = listed(data)
        except ImageError:
            continue
        if not theirs["failed"]:
            accepted += 1
            assert [_ours(*item) for item in ours] == [_theirs(*item) for item in theirs["found"]]
    assert accepted > 25


def _ours(entry: FileEntry, data: bytes) -> tuple[str, bytes, str, int, int, bytes]:
    link = entry.link if entry.type in (FileType.SYMLINK, FileType.HARDLINK) else ""
    return entry.path, _KINDS[entry.type], link, entry.mode, entry.uid, data


def _theirs(name: str, kind: str, link: str, mode: str, uid: str, data: str) -> tuple[str, bytes, str, int, int, bytes]:
    path = bytes.fromhex(name).decode("utf-8", "surrogateescape")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/".join(parts), kind.encode(), link if kind in "12" else "", int(mode, 8), int(uid), bytes.fromhex(data)
