"""Reading a layer in three threads: everything arrives in order, every failure is raised, no thread is left."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Iterator

import pytest

from scanner.config import Limits
from scanner.errors import ImageError, RemoteError
from scanner.model.reference import Digest
from scanner.registry import layers
from scanner.registry.layers import ContentWants, read_layer
from scanner.registry.read_ahead import read_ahead
from tests.scanner.registry.archives import GZIP, PLAIN, ZSTD, archive, file, pack, read

PIECES = [bytes([number]) for number in range(50)]
LARGE = archive(*(file(f"data/{number}", random.Random(number).randbytes(700_000)) for number in range(6)))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def failing(pieces: list[bytes], error: Exception) -> Iterator[bytes]:
    yield from pieces
    raise error


def test_everything_arrives_on_both_sides() -> None:
    stored: list[bytes] = []
    with read_ahead(iter(PIECES), stored.append) as pieces:
        assert list(pieces) == PIECES
    assert stored == PIECES


def test_a_failure_of_the_source_comes_after_the_pieces_before_it() -> None:
    seen: list[bytes] = []
    with (
        pytest.raises(ImageError, match="broken"),
        read_ahead(failing(PIECES, ImageError("broken")), lambda piece: None) as pieces,
    ):
        seen.extend(iter(pieces.__next__, None))
    assert seen == PIECES


@pytest.mark.parametrize("last", [0, 20, 49])
def test_a_failure_of_the_store_is_raised(last: int) -> None:
    def store(piece: bytes) -> None:
        if piece == PIECES[last]:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"), read_ahead(iter(PIECES), store) as pieces:
        for _ in pieces:
            pass


def fail(pieces: Iterator[bytes], message: str) -> None:
    next(pieces)
    raise ImageError(message)


def test_a_failure_of_the_reader_ends_both_threads() -> None:
    with pytest.raises(ImageError), read_ahead(iter(PIECES * 100), lambda piece: None) as pieces:
        fail(pieces, "unsafe")


def test_the_failure_of_the_reader_counts_although_the_source_failed_further_on() -> None:
    source = failing(PIECES, ImageError("further on"))
    with pytest.raises(ImageError, match="here"), read_ahead(source, lambda piece: None) as pieces:
        fail(pieces, "here")


def test_a_reader_that_stops_early_has_not_read_the_layer() -> None:
    with (
        pytest.raises(RuntimeError, match="not read to its end"),
        read_ahead(iter(PIECES), lambda piece: None) as pieces,
    ):
        next(pieces)


@pytest.mark.parametrize("media_type", [PLAIN, GZIP, ZSTD], ids=["plain", "gzip", "zstd"])
def test_a_large_layer_has_the_facts_of_a_small_one(media_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(pack(LARGE, media_type)) > layers._READ_AHEAD
    stored: list[bytes] = []
    told: list[int] = []
    threaded = read(LARGE, media_type=media_type, sink=stored.append, advance=told.append)
    monkeypatch.setattr(layers, "_READ_AHEAD", 1 << 40)
    assert read(LARGE, media_type=media_type) == threaded
    assert b"".join(stored) == LARGE
    assert sum(told) == len(pack(LARGE, media_type))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"digest": Digest.of(b"other")}, "digest_mismatch"),
        ({"diff_id": Digest.of(b"other")}, "digest_mismatch"),
        ({"size": 4_000_000}, "digest_mismatch"),
        ({"limits": Limits(layer_uncompressed=3_000_000)}, "limit_exceeded"),
        ({"limits": Limits(layer_entries=3)}, "limit_exceeded"),
    ],
)
def test_a_large_layer_is_verified_and_limited(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        read(LARGE, media_type=GZIP, **change)  # type: ignore[arg-type]
    assert caught.value.reason == reason


def test_a_large_layer_that_cannot_be_stored_is_an_error() -> None:
    def full(piece: bytes) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        read(LARGE, media_type=GZIP, sink=full)


def test_a_broken_connection_is_no_malformed_image() -> None:
    """The archive is malformed at its beginning, and the bytes would be compared with the digest: they never came."""
    sent = pack(b"x" * 512 + LARGE, GZIP)

    class Broken(io.BytesIO):
        failed = False

        def read(self, size: int | None = -1, /) -> bytes:
            piece = super().read(size)
            if not piece and not self.failed:
                self.failed = True
                raise RemoteError("the registry closed the connection", reason="registry_unavailable")
            return piece

    with pytest.raises(RemoteError):
        read_layer(
            Broken(sent[: len(sent) // 2]),
            GZIP,
            digest=Digest.of(sent),
            size=len(sent),
            diff_id=Digest.of(LARGE),
            limits=Limits(),
            wants=ContentWants(),
        )
