"""The uncompressed bytes of a layer, in small pieces however far they expand, and to the end or not at all.

Whatever readers disagree about is refused: bytes of another type than the media type declares, bytes after the end, and
streams that stop in the middle (the zstandard library accepts such an end).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from isal import igzip_lib

from scanner.errors import ImageError
from scanner.registry.manifest import TAR, TAR_GZIP, TAR_ZSTD

_IN, _OUT = 256 << 10, 1 << 20  # few enough bytes for a processor cache, and few enough pieces for threads
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# Bytes (zstd: 128 MiB, what its own tools accept by default): a frame may ask for gigabytes.
_MAX_WINDOW: Final = 1 << 27


class Readable(Protocol):
    """A source of bytes in order."""

    def read(self, size: int = -1, /) -> bytes: ...


def decompress(source: Readable, compression: str) -> Iterator[bytes]:
    """Yield the uncompressed bytes, at most 1 MiB at a time.

    Raises ImageError if the bytes are not of the type ``compression``, or are broken.
    """
    head = b""
    while len(head) < len(_ZSTD) and (more := source.read(_IN)):
        head += more
    actual = compression_of(head)
    if actual != compression:
        raise ImageError(f"the media type declares {compression}, but the content is {actual}")
    replay = _Replay(head, source)
    if compression == TAR_GZIP:
        yield from _gunzip(replay)
    elif compression == TAR_ZSTD:
        yield from _unzstd(replay)
    else:
        yield from iter(lambda: replay.read(_IN), b"")


def compression_of(head: bytes) -> str:
    """Detect the media type by the first four bytes.

    A zstd stream may begin with a skippable frame (RFC 8878 section 3.1.2); container runtimes accept that.
    """
    if head.startswith(_GZIP):
        return TAR_GZIP
    return TAR_ZSTD if head[:4] == _ZSTD or _is_skippable(head[:4]) else TAR


def _is_skippable(magic: bytes) -> bool:
    return len(magic) == 4 and magic[0] & 0xF0 == 0x50 and magic[1:] == b"\x2a\x4d\x18"


class _Replay:
    """A source that returns its first bytes again after they were inspected."""

    def __init__(self, head: bytes, source: Readable) -> None:
        self._head, self._source = head, source

    def read(self, size: int = _IN, /) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return self._source.read(size)


def _broken_stream(what: str) -> ImageError:
    return ImageError(f"the layer's {what}", reason="malformed_archive")


def _gunzip(source: Readable) -> Iterator[bytes]:
    """Decompress gzip (RFC 1952). Consecutive members are one stream; anything else after a member is refused."""
    inflater, data = _member(), source.read(_IN)
    while True:
        try:
            plain = inflater.decompress(data, _OUT)
        except igzip_lib.error as error:  # type: ignore[misc]  # it is one; the stubs do not say so
            raise _broken_stream(f"gzip data is broken: {error}") from error
        data = b""
        if plain:
            yield plain
        if inflater.eof:
            data = inflater.unused_data
            while len(data) < len(_GZIP) and (more := source.read(_IN)):
                data += more
            if not data:
                return
            if not data.startswith(_GZIP):
                raise ImageError("there is data after the layer's gzip stream", reason="malformed_archive")
            inflater = _member()
        elif inflater.needs_input:
            data = source.read(_IN)
            if not data:
                raise _broken_stream("gzip data ends too early")


def _member() -> igzip_lib.IgzipDecompressor:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _unzstd(source: Readable) -> Iterator[bytes]:
    """Decompress zstd (RFC 8878) with a window of at most 128 MiB; the RFC recommends supporting at least 8 MiB."""
    import zstandard  # few layers need it

    frames = _ZstdFrames(source)
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    reader = decompressor.stream_reader(frames, read_size=_IN, read_across_frames=True)  # type: ignore[arg-type]
    try:
        while plain := reader.read(_OUT):
            yield plain
    except zstandard.ZstdError as error:
        raise _broken_stream(f"zstd data is broken: {error}") from error


class _ZstdFrames:
    """Follows the frames and blocks of a zstd stream (RFC 8878 section 3.1), to detect a truncated one."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._header = bytearray()
        self._step, self._need, self._skip = self._magic, 4, 0
        self._checksum = 0

    def read(self, size: int = _IN, /) -> bytes:
        data = self._source.read(size)
        if not data and (self._step != self._magic or self._header or self._skip):
            raise _broken_stream("zstd data ends too early")
        self._follow(data)
        return data

    def _follow(self, data: bytes) -> None:
        position, end = 0, len(data)
        while position < end:
            if self._skip:
                take = min(self._skip, end - position)
                self._skip -= take
            else:
                take = min(self._need - len(self._header), end - position)
                self._header += data[position : position + take]
                if len(self._header) == self._need:
                    header = bytes(self._header)
                    self._header.clear()
                    self._step(header)
            position += take

    def _then(self, step: object, need: int, skip: int = 0) -> None:
        self._step, self._need, self._skip = step, need, skip  # type: ignore[assignment]

    def _magic(self, header: bytes) -> None:
        if header == _ZSTD:
            self._then(self._descriptor, 1)
        elif _is_skippable(header):
            self._then(self._skippable, 4)
        else:
            raise _broken_stream("zstd data is followed by other data")

    def _descriptor(self, header: bytes) -> None:
        flags = header[0]
        single = flags & 0x20
        content_size = (1 if single else 0, 2, 4, 8)[flags >> 6]
        self._checksum = 4 if flags & 4 else 0
        self._then(self._block, 3, (0 if single else 1) + (0, 1, 2, 4)[flags & 3] + content_size)

    def _block(self, header: bytes) -> None:
        value = int.from_bytes(header, "little")
        size = 1 if value >> 1 & 3 == 1 else value >> 3
        if value & 1:
            self._then(self._magic, 4, size + self._checksum)
        else:
            self._then(self._block, 3, size)

    def _skippable(self, header: bytes) -> None:
        self._then(self._magic, 4, int.from_bytes(header, "little"))
