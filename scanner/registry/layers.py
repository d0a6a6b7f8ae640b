"""One streaming pass over one layer: decompress, hash both ways, walk, keep what somebody wants, and judge nothing.

Each layer is decompressed once, here, for the checks and for the engine. The digest of the transported bytes and the diff_id of
the uncompressed tar are both verified: engines verify neither (an image could otherwise show a scanner other files than a
runtime would see).
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import zstandard
from isal import isal_zlib

from scanner.config import Limits
from scanner.errors import ImageError, LimitExceeded
from scanner.model.filesystem import ContentMatch, FileEntry, FileType, LayerFacts, Oddity
from scanner.model.reference import Digest
from scanner.registry.manifest import TAR, TAR_GZIP, TAR_ZSTD, layer_compression
from scanner.registry.tar import TarReader, Visitor, unsafe

_CHUNK = 1 << 20
_SMALL, _PACKAGE_DB, _KEPT = 1 << 20, 16 << 20, 64 << 20
_MAX_ODDITIES = 1000
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"

# What two readers must not disagree about: who the users are, which OS it is, which packages there are.
PACKAGE_DBS = (
    "var/lib/dpkg/status",
    "var/lib/dpkg/status.d/*",
    "lib/apk/db/installed",
    "usr/lib/apk/db/installed",
    "var/lib/rpm/*",
    "usr/lib/sysimage/rpm/*",
    "usr/share/rpm/*",
)
IDENTITY = (
    "etc/os-release",
    "usr/lib/os-release",
    "etc/debian_version",
    "etc/alpine-release",
    "etc/redhat-release",
    "etc/passwd",
    "etc/group",
)
_ALWAYS_WANTED = (
    *IDENTITY,
    "etc/shadow",
    "var/lib/dpkg/status",
    "var/lib/dpkg/status.d/*",
    "lib/apk/db/installed",
    "usr/lib/apk/db/installed",
)
_SENSITIVE = re.compile("|".join(fnmatch.translate(pattern) for pattern in (*PACKAGE_DBS, *IDENTITY)))


class Readable(Protocol):
    """Bytes in order, from wherever."""

    def read(self, size: int = -1, /) -> bytes: ...


class ContentScanner(Protocol):
    """Looks into files as they pass. ``version`` changes when its answers would."""

    version: str

    def wants(self, path: str, size: int) -> bool: ...

    def search(self, path: str, data: bytes) -> list[ContentMatch]: ...


@dataclass(frozen=True)
class ContentWants:
    """Which small files' bytes to keep, and who looks into the others. ``digest`` is part of the facts cache's key."""

    patterns: tuple[str, ...] = ()
    scanner: ContentScanner | None = None
    _match: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        patterns = sorted({*_ALWAYS_WANTED, *self.patterns})
        object.__setattr__(self, "patterns", tuple(patterns))
        object.__setattr__(self, "_match", re.compile("|".join(map(fnmatch.translate, patterns))))

    def keeps(self, path: str) -> bool:
        return self._match.match(path) is not None

    @property
    def digest(self) -> str:
        text = "\n".join((*self.patterns, self.scanner.version if self.scanner else ""))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Facts(Visitor):
    """Collects what a layer holds."""

    def __init__(self, wants: ContentWants) -> None:
        self._wants = wants
        self.entries: list[FileEntry] = []
        self.whiteouts: list[str] = []
        self.opaque: list[str] = []
        self.contents: dict[str, bytes] = {}
        self.oddities: list[Oddity] = []
        self.matches: list[ContentMatch] = []
        self._seen: dict[str, FileType] = {}
        self._links: set[str] = set()
        self._kept = 0

    def entry(self, entry: FileEntry) -> bool:
        directory, _, name = entry.path.rpartition("/")
        if name.startswith(_WHITEOUT):
            self._whiteout(entry, directory, name)
            return False
        self._notice(entry, directory)
        self.entries.append(entry)
        return entry.type is FileType.FILE and (self._keeps(entry) or self._searches(entry))

    def content(self, entry: FileEntry, data: bytes) -> None:
        if self._keeps(entry):
            self._kept += len(data)
            self.contents[entry.path] = data
        if self._searches(entry) and self._wants.scanner is not None:
            self.matches.extend(self._wants.scanner.search(entry.path, data))

    def _keeps(self, entry: FileEntry) -> bool:
        bound = _PACKAGE_DB if _SENSITIVE.match(entry.path) else _SMALL
        return entry.size <= bound and self._kept + entry.size <= _KEPT and self._wants.keeps(entry.path)

    def _searches(self, entry: FileEntry) -> bool:
        scanner = self._wants.scanner
        return scanner is not None and scanner.wants(entry.path, entry.size)

    def _whiteout(self, entry: FileEntry, directory: str, name: str) -> None:
        """OCI image-spec, layer.md#whiteouts. A whiteout that names nothing, or something above itself, is an attack."""
        if name == _OPAQUE:
            self.opaque.append(directory)
            return
        if name.startswith(".wh..wh."):
            return  # aufs' own bookkeeping: no runtime shows it
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in ("", ".", "..") or entry.type not in (FileType.FILE, FileType.HARDLINK):
            raise unsafe("a whiteout that names nothing")
        self.whiteouts.append(f"{directory}/{hidden}" if directory else hidden)

    def _notice(self, entry: FileEntry, directory: str) -> None:
        path, previous = entry.path, self._seen.get(entry.path)
        if previous is not None and not (previous is entry.type is FileType.DIRECTORY):
            if previous is not entry.type or _SENSITIVE.match(path):
                self._odd("duplicate_entry", path, "stands in the layer twice")
        self._seen[path] = entry.type
        if entry.type is FileType.SYMLINK:
            self._links.add(path)
        elif self._links and previous is FileType.SYMLINK:
            self._links.discard(path)
        if self._links and directory and self._through_link(directory):
            raise unsafe(f"a file is written through the link above {path[:200]!r}")
        if entry.type is FileType.HARDLINK and entry.link not in self._seen:
            self._odd("unsafe_archive", path, "a hard link to a file that is not before it in the layer")
        if _SENSITIVE.match(path) and entry.type in (FileType.FIFO, FileType.CHAR_DEVICE, FileType.BLOCK_DEVICE):
            self._odd("unsafe_archive", path, f"is a {entry.type}")
        if not path.isascii() and any(0xDC80 <= ord(c) <= 0xDCFF for c in path):
            self._odd("non_utf8_name", path, "the name is not UTF-8")

    def _through_link(self, directory: str) -> bool:
        while directory:
            if directory in self._links:
                return True
            directory = directory.rpartition("/")[0]
        return False

    def _odd(self, reason: str, path: str, detail: str) -> None:
        if len(self.oddities) < _MAX_ODDITIES:
            self.oddities.append(Oddity(reason, path, detail))

    def finish(self) -> None:
        """A whiteout is for lower layers only; some readers apply it to its own layer too, and then see other files than we do."""
        for path in self.whiteouts:
            if path in self._seen:
                self._odd("unsafe_archive", path, "is deleted and present in one layer")


def read_layer(
    stream: Readable,
    media_type: str,
    *,
    digest: Digest,
    size: int,
    diff_id: Digest,
    limits: Limits,
    wants: ContentWants,
    sink: Callable[[bytes], object] | None = None,
    deadline: float | None = None,
    advance: Callable[[int], None] = lambda size: None,
) -> LayerFacts:
    """Facts of the layer whose transported bytes ``stream`` holds. ``sink`` is given every uncompressed byte.

    ``deadline`` is a ``time.monotonic`` moment. Raises ImageError: digest_mismatch (either digest), malformed_archive,
    malformed_image (media type and bytes disagree), unsafe_archive, limit_exceeded.
    """
    facts = _Facts(wants)
    reader = TarReader(facts, limits)
    source = _Counted(stream, digest, limits.layer_compressed, advance)
    plain, total = hashlib.new(diff_id.algorithm), 0
    for chunk in decompress(source, layer_compression(media_type)):
        total += len(chunk)
        if total > limits.layer_uncompressed:
            raise LimitExceeded(f"the layer is larger than {limits.layer_uncompressed} bytes uncompressed")
        if total > limits.ratio_after and total > limits.ratio * source.size:
            raise LimitExceeded(f"the layer expands more than {limits.ratio} times")
        if deadline is not None and time.monotonic() > deadline:
            raise LimitExceeded("reading the layers took longer than it may", reason="scan_timeout")
        plain.update(chunk)
        reader.feed(chunk)
        if sink is not None:
            sink(chunk)
    reader.close()
    if source.size != size or source.hex != digest.hex:
        raise ImageError(f"the layer's bytes are not those of {digest}", reason="digest_mismatch")
    if plain.hexdigest() != diff_id.hex:
        raise ImageError(f"the layer's uncompressed bytes are not those of diff_id {diff_id}", reason="digest_mismatch")
    facts.finish()
    return LayerFacts(
        diff_id,
        total,
        tuple(facts.entries),
        tuple(facts.whiteouts),
        tuple(facts.opaque),
        facts.contents,
        tuple(facts.oddities),
        tuple(facts.matches),
    )


class _Counted:
    """The transported bytes: counted, bounded and hashed as they are read."""

    def __init__(self, stream: Readable, digest: Digest, limit: int, advance: Callable[[int], None]) -> None:
        self._stream, self._limit, self._advance = stream, limit, advance
        self._hash = hashlib.new(digest.algorithm)
        self.size = 0

    def read(self, size: int = _CHUNK) -> bytes:
        data = self._stream.read(size)
        self.size += len(data)
        if self.size > self._limit:
            raise LimitExceeded(f"the layer is larger than {self._limit} bytes compressed")
        self._hash.update(data)
        self._advance(len(data))
        return data

    @property
    def hex(self) -> str:
        return self._hash.hexdigest()


def decompress(source: _Counted, compression: str) -> Iterator[bytes]:
    """The uncompressed bytes, at most a megabyte at a time however far they expand. Raises ImageError for bytes of another kind."""
    head = source.read()
    actual = TAR_GZIP if head.startswith(_GZIP) else TAR_ZSTD if head.startswith(_ZSTD) else TAR
    if actual != compression:
        raise ImageError(f"the media type says {compression}, the bytes are {actual}: readers would disagree")
    replay = _Replay(head, source)
    if compression == TAR_GZIP:
        yield from _gunzip(replay)
    elif compression == TAR_ZSTD:
        yield from _unzstd(replay)
    else:
        yield from iter(lambda: replay.read(_CHUNK), b"")


class _Replay:
    """The source again from its beginning, after its first bytes were looked at."""

    def __init__(self, head: bytes, source: _Counted) -> None:
        self._head, self._source = head, source

    def read(self, size: int = _CHUNK) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        return self._source.read(size)


def _gunzip(source: _Replay) -> Iterator[bytes]:
    """RFC 1952: members one after the other are one stream; anything else after a member is refused."""
    inflater, rest = isal_zlib.decompressobj(wbits=31), source.read()
    while True:
        try:
            data = inflater.decompress(rest, _CHUNK)
        except isal_zlib.error as error:  # type: ignore[misc]  # it is one; the stubs do not say so
            raise ImageError(f"the layer's gzip data is broken: {error}", reason="malformed_archive") from error
        if data:
            yield data
        if inflater.eof:
            rest = inflater.unused_data
            if len(rest) < len(_GZIP):
                rest += source.read()
            if not rest:
                return
            if not rest.startswith(_GZIP):
                raise ImageError("there is data after the layer's gzip stream", reason="malformed_archive")
            inflater = isal_zlib.decompressobj(wbits=31)
            continue
        rest = inflater.unconsumed_tail
        if not rest and len(data) < _CHUNK:
            rest = source.read()
            if not rest:
                raise ImageError("the layer's gzip data ends too early", reason="malformed_archive")


def _unzstd(source: _Replay) -> Iterator[bytes]:
    """RFC 8878, window at most 128 MiB (what the specification asks decoders to support at most)."""
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(source, read_across_frames=True)  # type: ignore[arg-type]
    try:
        while data := reader.read(_CHUNK):
            yield data
    except zstandard.ZstdError as error:
        raise ImageError(f"the layer's zstd data is broken: {error}", reason="malformed_archive") from error
