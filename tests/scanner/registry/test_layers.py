"""One pass over one layer: both digests, every limit, what is kept, and what is odd."""

from __future__ import annotations

import gzip
import io
import random
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest
import zstandard

from scanner.config import Limits
from scanner.errors import ImageError, LimitExceeded
from scanner.model.filesystem import ContentMatch, LayerFacts
from scanner.model.reference import Digest
from scanner.registry.layers import ContentWants, read_layer
from tests.scanner.registry.archives import (
    GZIP,
    PLAIN,
    SMALL,
    ZSTD,
    archive,
    directory,
    file,
    hardlink,
    header,
    pack,
    pax,
    read,
    symlink,
)

NOISE = random.Random(1).randbytes(300_000)
LAYER = archive(directory("etc"), file("etc/passwd", b"root:x:0:0::/:/bin/sh\n"), file("big", NOISE))
ALL = pytest.mark.parametrize("media_type", [PLAIN, GZIP, ZSTD], ids=["plain", "gzip", "zstd"])


def refused(action: Callable[[], LayerFacts]) -> str:
    with pytest.raises(ImageError) as caught:
        action()
    assert str(caught.value).isprintable()
    return caught.value.reason


def oddities(*parts: bytes, wants: ContentWants | None = None) -> list[tuple[str, str]]:
    return [(o.reason, o.path) for o in read(archive(*parts), wants=wants).oddities]


@ALL
def test_reads_every_compression(media_type: str) -> None:
    seen: list[bytes] = []
    told: list[int] = []
    facts = read(LAYER, media_type=media_type, sink=seen.append, advance=told.append)
    assert b"".join(seen) == LAYER
    assert max(map(len, seen)) <= 1 << 20
    assert sum(told) == len(pack(LAYER, media_type))
    assert facts.uncompressed_size == len(LAYER)
    assert facts.diff_id == Digest.of(LAYER)
    assert [e.path for e in facts.entries] == ["etc", "etc/passwd", "big"]
    assert facts.contents == {"etc/passwd": b"root:x:0:0::/:/bin/sh\n"}


@ALL
def test_both_digests_are_compared(media_type: str) -> None:
    other = Digest.of(b"other")
    assert refused(lambda: read(LAYER, media_type=media_type, digest=other)) == "digest_mismatch"
    assert refused(lambda: read(LAYER, media_type=media_type, diff_id=other)) == "digest_mismatch"


@ALL
@pytest.mark.parametrize("size", [-1, 1])
def test_the_announced_size_is_compared(media_type: str, size: int) -> None:
    sent = pack(LAYER, media_type)
    assert refused(lambda: read(LAYER, media_type=media_type, size=len(sent) + size)) == "digest_mismatch"


def test_no_more_is_read_than_was_announced() -> None:
    class Endless:
        given = 0

        def read(self, size: int = -1, /) -> bytes:
            self.given += size
            return bytes(size)

    stream = Endless()
    with pytest.raises(ImageError) as caught:
        read_layer(
            stream,
            PLAIN,
            digest=Digest.of(b""),
            size=300_000,
            diff_id=Digest.of(b""),
            limits=Limits(),
            wants=ContentWants(),
        )
    assert caught.value.reason == "digest_mismatch"
    assert stream.given < 1 << 20


def test_sha512_is_as_good() -> None:
    import hashlib

    diff_id = Digest("sha512:" + hashlib.sha512(LAYER).hexdigest())
    assert read(LAYER, diff_id=diff_id).diff_id == diff_id
    assert refused(lambda: read(LAYER + bytes(512), diff_id=diff_id)) == "digest_mismatch"


@ALL
def test_bytes_changed_on_the_way_are_not_the_images_fault(media_type: str) -> None:
    sent = pack(LAYER, media_type)
    broken = sent[:150] + b"\xff\0\xff" + sent[153:]
    assert (
        refused(lambda: read(LAYER, media_type=media_type, transported=broken, digest=Digest.of(sent)))
        == "digest_mismatch"
    )


@pytest.mark.parametrize(
    ("media_type", "transported"),
    [
        (GZIP, LAYER),
        (PLAIN, pack(LAYER, GZIP)),
        (PLAIN, pack(LAYER, ZSTD)),
        (ZSTD, pack(LAYER, GZIP)),
        (GZIP, pack(LAYER, ZSTD)),
    ],
)
def test_media_type_and_bytes_must_agree(media_type: str, transported: bytes) -> None:
    assert refused(lambda: read(LAYER, media_type=media_type, transported=transported)) == "malformed_image"


def test_layers_that_are_none() -> None:
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    assert refused(lambda: read(LAYER, media_type=foreign)) == "foreign_layer_refused"
    assert (
        refused(lambda: read(LAYER, media_type="application/vnd.oci.image.layer.v1.tar+encrypted"))
        == "unsupported_media_type"
    )


def _members() -> bytes:
    return b"".join(gzip.compress(LAYER[at : at + 5000]) for at in range(0, len(LAYER), 5000))


_GZIP = gzip.compress(LAYER)
_FRAME = zstandard.ZstdCompressor(write_checksum=True).compress
_ZSTD = _FRAME(LAYER)
_SKIPPED = struct.pack("<II", 0x184D2A55, 7) + b"7 bytes"


@pytest.mark.parametrize(
    "transported", [_members(), _GZIP, gzip.compress(b"") + _GZIP, gzip.compress(LAYER, 0), _GZIP + gzip.compress(b"")]
)
def test_gzip_members_are_one_stream(transported: bytes) -> None:
    assert len(read(LAYER, media_type=GZIP, transported=transported).entries) == 3


@pytest.mark.parametrize(
    "transported",
    [
        _ZSTD,
        _FRAME(LAYER[:999]) + _FRAME(LAYER[999:]),
        _ZSTD + _SKIPPED,
        _FRAME(LAYER[:9]) + _SKIPPED + _FRAME(b"") + _FRAME(LAYER[9:]),
        zstandard.ZstdCompressor(write_content_size=False).compress(LAYER),
    ],
)
def test_zstd_frames_are_one_stream(transported: bytes) -> None:
    assert len(read(LAYER, media_type=ZSTD, transported=transported).entries) == 3


@pytest.mark.parametrize(
    ("media_type", "transported"),
    [
        (GZIP, _GZIP[:-1]),
        (GZIP, _GZIP[:-9]),
        (GZIP, _GZIP[:100]),
        (GZIP, _GZIP[:-8] + struct.pack("<I", zlib.crc32(LAYER) ^ 1) + _GZIP[-4:]),
        (GZIP, _GZIP + b"\0"),
        (GZIP, _GZIP + b"\x1f"),
        (GZIP, _GZIP + b"garbage"),
        (GZIP, _GZIP + gzip.compress(b"x")[:12]),
        (ZSTD, _ZSTD[:-1]),
        (ZSTD, _ZSTD[:-4]),
        (ZSTD, _ZSTD[:5]),
        (ZSTD, _ZSTD[:1000]),
        (ZSTD, _ZSTD + b"garbage"),
        (ZSTD, _ZSTD + b"\x28"),
        (ZSTD, _ZSTD + _SKIPPED[:-1]),
        (ZSTD, _ZSTD[:-4] + b"\0\0\0\0"),
    ],
)
def test_streams_that_stop_or_go_on_are_refused(media_type: str, transported: bytes) -> None:
    assert refused(lambda: read(LAYER, media_type=media_type, transported=transported)) == "malformed_archive"


def test_a_window_larger_than_memory_is_refused() -> None:
    plain = archive(file("a"))
    for exponent, readable in ((17, True), (18, False)):
        frame = b"\x28\xb5\x2f\xfd\0" + bytes([exponent << 3]) + (len(plain) << 3 | 1).to_bytes(3, "little") + plain
        if readable:
            assert read(plain, media_type=ZSTD, transported=frame).entries
        else:
            assert refused(lambda: read(plain, media_type=ZSTD, transported=frame)) == "malformed_archive"  # noqa: B023


@pytest.mark.parametrize("media_type", [GZIP, ZSTD])
def test_a_bomb_ends_early(media_type: str) -> None:
    bomb = archive(file("zeros", bytes(900 << 10)), *(file(f"z{i}", bytes(900 << 10)) for i in range(7)))
    seen: list[int] = []
    action = lambda: read(bomb, media_type=media_type, limits=SMALL, sink=lambda data: seen.append(len(data)))  # noqa: E731
    assert refused(action) == "limit_exceeded"
    assert sum(seen) < 1 << 20


@pytest.mark.parametrize(
    ("limits", "parts"),
    [
        (replace(SMALL, layer_uncompressed=4096), (file("a", bytes(5000)),)),
        (replace(SMALL, layer_compressed=1000), (file("a", NOISE),)),
        (replace(SMALL, file_size=100), (file("a", bytes(101)),)),
        (replace(SMALL, layer_entries=2), (file("a"), file("b"), file("c"))),
        (replace(SMALL, path_depth=2), (file("a/b/c"),)),
        (replace(SMALL, path_length=5), (file("abcdef"),)),
    ],
)
def test_every_limit_holds(limits: Limits, parts: tuple[bytes, ...]) -> None:
    assert refused(lambda: read(archive(*parts), limits=limits)) == "limit_exceeded"


def test_time_is_bounded_even_where_nothing_comes_out() -> None:
    """A gigabyte of empty gzip members yields no byte to count."""
    empty = gzip.compress(b"")

    class Endless:
        def read(self, size: int = -1, /) -> bytes:
            return empty * (size // len(empty))

    with pytest.raises(LimitExceeded) as caught:
        read_layer(
            Endless(),
            GZIP,
            digest=Digest.of(b""),
            size=1 << 32,
            diff_id=Digest.of(b""),
            limits=Limits(),
            wants=ContentWants(),
            deadline=time.monotonic() + 0.2,
        )
    assert caught.value.reason == "scan_timeout"


def test_wanted_files_are_kept_and_others_not() -> None:
    wants = ContentWants(("etc/app.conf", "**/sshd_config", "opt/*.txt", "**/.docker/config.json"))
    paths = [
        "etc/app.conf",
        "x/etc/app.conf",
        "sshd_config",
        "a/b/sshd_config",
        "sshd_config.d/x",
        "opt/a/b.txt",
        ".docker/config.json",
        "root/.docker/config.json",
        "etc/passwd",
        "nix/store/x/etc/passwd",
    ]
    facts = read(archive(*(file(path, b"x") for path in paths)), wants=wants)
    assert set(facts.contents) == set(paths) - {"x/etc/app.conf", "sshd_config.d/x"}


def test_the_digest_of_wants_says_what_was_wanted() -> None:
    class Scanner:
        version = "1"

        def wants(self, path: str, size: int) -> bool:
            return True

        def search(self, path: str, data: bytes) -> list[ContentMatch]:
            return [ContentMatch("x", path, 1, "…")] if b"secret" in data else []

        def may_match(self, stretch: bytes | memoryview) -> bool:
            return b"secret" in bytes(stretch)

        def goes_by_patterns(self, path: str, head: bytes) -> bool:
            return True

        def large(self, path: str, size: int) -> None:
            return None

    digests = {
        w.digest for w in (ContentWants(), ContentWants(("a",)), ContentWants(("b",)), ContentWants(("a",), Scanner()))
    }
    assert len(digests) == 4
    assert ContentWants(("b", "a")).digest == ContentWants(("a", "b", "a")).digest
    facts = read(
        archive(file("a", b"a secret"), file("b", b"none"), file("etc/passwd", b"secret")),
        wants=ContentWants((), Scanner()),
    )
    assert [m.path for m in facts.matches] == ["a", "etc/passwd"]
    assert "etc/passwd" in facts.contents


def test_a_file_too_large_to_keep_is_said_to_be() -> None:
    parts = (file("etc/wanted", bytes((1 << 20) + 1)), file("etc/passwd", bytes((1 << 20) + 1)))
    facts = read(archive(*parts), wants=ContentWants(("etc/wanted",)))
    assert [(o.reason, o.path) for o in facts.oddities] == [("limit_exceeded", "etc/wanted")]
    assert set(facts.contents) == {"etc/passwd"}


def test_a_second_file_never_leaves_the_first_ones_bytes() -> None:
    facts = read(archive(file("etc/passwd", b"first"), symlink("etc/passwd", "/x")))
    assert facts.contents == {}
    assert read(archive(file("etc/passwd", b"first"), file("etc/passwd", b"second"))).contents == {
        "etc/passwd": b"second"
    }


def test_whiteouts_and_opaque_directories() -> None:
    facts = read(archive(file("a/.wh.b"), file(".wh.c"), file("d/.wh..wh..opq"), file("e")))
    assert (facts.whiteouts, facts.opaque) == (("a/b", "c"), ("d",))
    assert [e.path for e in facts.entries] == ["e"]
    assert facts.oddities == ()


@pytest.mark.parametrize(
    "part",
    [
        file(".wh."),
        file("a/.wh.."),
        file("a/.wh..."),
        file("a/.wh..wh.x"),
        file("a/.wh.b", b"data"),
        directory("a/.wh.b"),
        symlink("a/.wh.b", "c"),
        file("a/.wh..wh..opq", b"data"),
        file(".wh.a/b"),
    ],
)
def test_whiteouts_that_are_tricks(part: bytes) -> None:
    assert refused(lambda: read(archive(part))) == "unsafe_archive"


@pytest.mark.parametrize(
    "parts",
    [
        (symlink("x", "/etc"), file("x/passwd")),
        (symlink("x", "y"), file("x/a/b/c")),
        (symlink("a", "b"), symlink("b", "a"), file("a/x")),
        (symlink("d", ".."), symlink("d/e", "..")),
    ],
)
def test_writing_through_a_link_is_refused(parts: tuple[bytes, ...]) -> None:
    assert refused(lambda: read(archive(*parts))) == "unsafe_archive"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((file("etc/passwd", b"1"), file("etc/passwd", b"2")), [("duplicate_entry", "etc/passwd")]),
        (
            (file("app/package-lock.json"), file("app/package-lock.json")),
            [("duplicate_entry", "app/package-lock.json")],
        ),
        ((file("x"), symlink("x", "y")), [("duplicate_entry", "x")]),
        ((file("x"), directory("x")), [("duplicate_entry", "x")]),
        ((file("x"), file("x/y")), [("duplicate_entry", "x")]),
        ((file("x/y/z"), symlink("x", "q")), [("duplicate_entry", "x")]),
        ((file("x/y/z"), file("x/y")), [("duplicate_entry", "x/y")]),
        ((file("x"), file("x")), []),
        ((directory("x"), directory("x")), []),
        ((hardlink("x", "y"), file("y")), [("unsafe_archive", "x")]),
        ((directory("y"), hardlink("x", "y")), [("unsafe_archive", "x")]),
        ((file("y"), hardlink("x", "y")), []),
        ((header("dev/mem", "3", device=(1, 1)),), [("unsafe_archive", "dev/mem")]),
        ((header("dev/sda", "4", device=(8, 0)),), [("unsafe_archive", "dev/sda")]),
        ((header("lib/apk", "3", device=(0, 0)),), [("unsafe_archive", "lib/apk")]),
        ((header("dev/null", "3", device=(1, 3)), header("dev/tty1", "3", device=(4, 1))), []),
        ((header("var/lib/dpkg/status", "6"),), [("unsafe_archive", "var/lib/dpkg/status")]),
        ((header("run/fifo", "6"),), []),
        ((file("a/.wh.x"), file("a/x")), [("unsafe_archive", "a/x")]),
        ((file("a/x/y"), file("a/.wh.x")), [("unsafe_archive", "a/x")]),
        ((file(b"caf\xe9"),), [("non_utf8_name", "caf\udce9")]),
        ((file("var/lib/rpm/Packages", b"no database"),), [("malformed_image", "var/lib/rpm/Packages")]),
        (
            (file("usr/lib/sysimage/rpm/rpmdb.sqlite", b"SQLite format 3\0" + bytes(100)),),
            [("malformed_image", "usr/lib/sysimage/rpm/rpmdb.sqlite")],
        ),
    ],
)
def test_oddities(parts: tuple[bytes, ...], expected: list[tuple[str, str]]) -> None:
    assert oddities(*parts) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"SQLite format 3\0\x10\0\2\2\0\x40\x20\x20" + bytes(76),
        b"RpmP" + bytes(8) + (1).to_bytes(4, "little") + bytes(4080),
        bytes(12) + b"\x61\x15\x06\0" + (9).to_bytes(4, "little") + (4096).to_bytes(4, "little") + bytes(4072),
    ],
)
def test_rpm_databases_of_each_kind_are_known(data: bytes) -> None:
    assert oddities(file("var/lib/rpm/Packages", data)) == []


def test_oddities_are_bounded() -> None:
    assert len(oddities(*(header(f"d{i}", "4") for i in range(1100)))) == 1000


def test_facts_hold_file_capabilities() -> None:
    facts = read(archive(pax(SCHILY__xattr__security__capability=b"\1\0\0\2"), file("bin/ping", mode=0o4755)))
    assert facts.entries[0].capability == b"\1\0\0\2"
    assert facts.entries[0].setuid


def test_an_empty_layer_is_a_layer() -> None:
    assert read(bytes(1024)).entries == ()
    assert read(b"").entries == ()


def test_the_reader_needs_no_large_reads() -> None:
    class Dripping(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(1)

    sent = pack(archive(file("etc/passwd", b"x")), GZIP)
    facts = read_layer(
        Dripping(sent),
        GZIP,
        digest=Digest.of(sent),
        size=len(sent),
        diff_id=Digest.of(archive(file("etc/passwd", b"x"))),
        limits=Limits(),
        wants=ContentWants(),
    )
    assert facts.contents == {"etc/passwd": b"x"}


SKIPPABLE = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"words"


def test_zstd_may_begin_with_a_skippable_frame() -> None:
    frames = zstandard.ZstdCompressor().compress(LAYER)
    seen: list[bytes] = []
    facts = read(LAYER, media_type=ZSTD, transported=SKIPPABLE + frames + SKIPPABLE, sink=seen.append)
    assert b"".join(seen) == LAYER
    assert facts.uncompressed_size == len(LAYER)


def test_a_skippable_frame_in_a_layer_that_says_it_is_plain() -> None:
    """Container runtimes look at the bytes and decompress; a tar reader would find a file of that name."""
    assert refused(lambda: read(LAYER, transported=SKIPPABLE + LAYER)) == "malformed_image"


def stargz(*after: bytes) -> bytes:
    """A layer as eStargz writes it: every file in a gzip member of its own, the index in another behind the end, an
    empty one as footer.
    """
    footer = gzip.compress(b"", mtime=0)
    return gzip.compress(archive(file("a", b"x"))) + b"".join(gzip.compress(part) for part in after) + footer


TOC = file("stargz.index.json", b'{"version": 1, "entries": []}')


def test_an_estargz_layer() -> None:
    plain = archive(file("a", b"x")) + TOC + bytes(1024)
    facts = read(plain, media_type=GZIP, transported=stargz(TOC + bytes(1024)))
    assert [entry.path for entry in facts.entries] == ["a"]
    within = file("a", b"x") + TOC + bytes(1024)  # as others write it: before the end, an entry like any other
    assert [entry.path for entry in read(within).entries] == ["a", "stargz.index.json"]


@pytest.mark.parametrize(
    "after",
    [
        file("b", b"x") + bytes(1024),
        TOC + file("b", b"x") + bytes(1024),
        TOC + TOC + bytes(1024),
        TOC + bytes(1024) + file("b", b"x"),
        file("sub/stargz.index.json", b"{}"),
        symlink("stargz.index.json", "/etc/shadow"),
        pax(path="etc/passwd") + TOC,
    ],
)
def test_behind_the_end_stands_nothing_but_the_index(after: bytes) -> None:
    assert refused(lambda: read(archive(file("a", b"x")) + after)) == "unsafe_archive"


def test_an_index_behind_one_zero_block_or_cut_off() -> None:
    assert refused(lambda: read(file("a", b"x") + bytes(512) + TOC + bytes(1024))) == "unsafe_archive"
    assert refused(lambda: read(archive(file("a", b"x")) + TOC[:600])) == "malformed_archive"
