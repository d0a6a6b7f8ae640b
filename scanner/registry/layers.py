"""One streaming pass over one layer: decompress, hash twice, walk the tar, and keep what checks and engines need.

Each layer is decompressed once, here. The digest of the transported bytes and the diff_id of the uncompressed tar are
both verified. Engines verify neither, so an image could show a scanner other files than a runtime would see.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from functools import partial
from typing import Protocol

from scanner.config import Limits
from scanner.errors import ImageError, LimitExceeded, ScannerError
from scanner.lazy_dataclasses import dataclass
from scanner.model.filesystem import (
    NOT_SEARCHED,
    ContentMatch,
    FileEntry,
    FileType,
    LayerFacts,
    Oddity,
    PackagedFile,
    PackageRecord,
)
from scanner.model.reference import Digest
from scanner.registry import language_packages, rpm
from scanner.registry.decompress import Readable, decompress
from scanner.registry.excerpts import EngineFiles, Excerpt
from scanner.registry.manifest import TAR, layer_compression
from scanner.registry.places import (
    APK_REPOSITORIES,
    APPLICATION,
    DPKG_SUMS,
    IDENTITY,
    PACKAGE_TEXTS,
    RED_HAT_BUILD,
    RPM_DATABASES,
    is_list_of_files,
    is_sensitive,
    is_usual_device,
    looks_like_rpm,
)
from scanner.registry.read_ahead import read_ahead
from scanner.registry.tar import TarReader, Visitor, unsafe

# Bytes: of a file that is kept, of a package database, and of all kept files of a layer.
_SMALL, _PACKAGE_DB, _KEPT = 1 << 20, 16 << 20, 64 << 20
_MAX_ODDITIES, _MAX_MATCHES = 1000, 10_000
_HEAD = 16  # bytes by which a scanner knows files that it searches otherwise
_STRETCH = 128 << 10  # bytes of a piece that are searched at once
_READ_AHEAD = 1 << 20  # compressed bytes of a layer for which threads pay
_MAX_SEARCHED = 4 << 30  # bytes of large files in a layer: seconds with Hyperscan, half a minute with RE2
# Globals, which are found faster than members of an enumeration: each entry of a layer asks for them.
_FILE, _DIRECTORY = FileType.FILE, FileType.DIRECTORY
_OWNED = 4 << 20  # characters of paths: the lists of a layer could name any number
_RECORDS = language_packages.EXTENSIONS | {DPKG_SUMS.removeprefix(".")}
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
# Written into layers by aufs. They hide nothing, and today's runtimes treat them as plain files.
_AUFS = frozenset((".wh..wh.aufs", ".wh..wh.orph", ".wh..wh.plnk"))


class ContentScanner(Protocol):
    """Searches the content of files as they pass. ``version`` must change if its results would change."""

    version: str

    def wants(self, path: str, size: int) -> bool: ...

    def search(self, path: str, data: bytes) -> list[ContentMatch]: ...

    def may_match(self, stretch: bytes | memoryview) -> bool:
        """Return whether a pattern matches in a stretch of a layer, in which are many files with their headers.

        A pattern that matches in a file matches in a stretch that has all of it.
        """

    def goes_by_patterns(self, path: str, head: bytes) -> bool:
        """Return whether ``search`` finds something in this file only if a pattern matches. ``head``: 16 bytes."""

    def large(self, path: str, size: int) -> LargeFile | None:
        """Return what searches a file in pieces; None if ``wants`` decides about the file, or nothing is to search."""


class LargeFile(Protocol):
    """The search of a file that is read in pieces."""

    def feed(self, data: memoryview, /) -> None: ...

    def matches(self) -> list[ContentMatch]:
        """End the file and return what was found in it."""


@dataclass(frozen=True)
class ContentWants:
    """Which small files to keep, and what searches the others. ``digest`` is part of the key of the facts cache.

    Patterns are fnmatch patterns for the whole path (``*`` matches slashes); a leading ``**/`` matches any depth, also
    none.
    """

    patterns: tuple[str, ...] = ()
    scanner: ContentScanner | None = None
    _exact: frozenset[str] = field(init=False, repr=False, compare=False)  # whole paths
    _names: frozenset[str] = field(init=False, repr=False, compare=False)  # file names in any directory
    _match: re.Pattern[str] = field(init=False, repr=False, compare=False)  # all other patterns as one expression

    def __post_init__(self) -> None:
        build = (f"{directory}*.json" for directory in RED_HAT_BUILD)
        always = (*IDENTITY, APK_REPOSITORIES, *PACKAGE_TEXTS, *build, "*/etc/passwd", "*/etc/group", "etc/shadow")
        patterns = sorted({*always, *self.patterns})
        exact: set[str] = set()
        names: set[str] = set()
        globs: list[str] = []
        for pattern in patterns:
            # Most patterns name one file. A set answers for each of 100,000 entries faster than one large expression.
            tail = pattern.removeprefix("**/")
            if not set(tail) & set("*?["):
                (exact if tail == pattern else names).add(tail)
            else:
                globs.extend({pattern, tail})
        nested = {name for name in names if "/" in name}
        globs.extend(form for name in nested for form in (name, f"*/{name}"))
        object.__setattr__(self, "patterns", tuple(patterns))
        object.__setattr__(self, "_exact", frozenset(exact))
        object.__setattr__(self, "_names", frozenset(names - nested))
        object.__setattr__(self, "_match", re.compile("|".join(map(fnmatch.translate, sorted(globs)))))

    def keeps(self, path: str, name: str) -> bool:
        """True if the file at ``path`` must be kept; ``name`` is the last part of the path."""
        return path in self._exact or name in self._names or self._match.match(path) is not None

    @property
    def digest(self) -> str:
        text = "\n".join((*self.patterns, self.scanner.version if self.scanner else ""))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class _FileSearch:
    """Passes a file in pieces to the scanner and its matches to the facts."""

    def __init__(self, file: LargeFile, matched: Callable[[Iterable[ContentMatch], str], None], path: str) -> None:
        self._file, self._add_matches, self._path = file, matched, path
        self.feed = file.feed

    def close(self) -> None:
        self._add_matches(self._file.matches(), self._path)


class _ArchiveRecord:
    """Reads the record of an archive of Java, and passes its pieces on to what searches it for secrets."""

    def __init__(self, keep: Callable[[PackageRecord], None], search: _FileSearch | None) -> None:
        self._reader, self._keep, self._search = language_packages.ArchiveReader(), keep, search

    def feed(self, data: memoryview, /) -> None:
        self._reader.feed(data)
        if self._search is not None:
            self._search.feed(data)

    def close(self) -> None:
        self._keep(self._reader.record())
        if self._search is not None:
            self._search.close()


class _Facts(Visitor):
    """Collects the facts of a layer."""

    def __init__(self, wants: ContentWants) -> None:
        self._wants = wants
        self.entries: list[FileEntry] = []
        self.whiteouts: list[str] = []
        self.opaque: list[str] = []
        self.contents: dict[str, bytes] = {}
        self.oddities: list[Oddity] = []
        self.matches: list[ContentMatch] = []
        self.packaged: dict[str, tuple[PackagedFile, ...]] = {}
        self.rpm_packages: dict[str, int] = {}
        self.records: dict[str, PackageRecord] = {}
        self.owned_records: set[str] = set()
        self._owned_left = _OWNED
        self._seen: dict[str, FileType] = {}
        self._above: set[str] = set()  # all directories above any entry, also those without an entry of their own
        self._directory = ""
        self._kept = self._searched = 0
        self._keep = self._search = self._only_search = self._record = False
        self._piece, self._searched_to, self._has_match = b"", 0, False
        self._large: _FileSearch | _ArchiveRecord | None = None
        self._unsearched: list[FileEntry] = []

    def entry(self, entry: FileEntry) -> bool:
        path, kind = entry.path, entry.type
        directory, _, name = path.rpartition("/")
        # Entries of one directory follow each other: its parents are checked once.
        if directory != self._directory:
            self._descend(directory)
            self._directory = directory
        if name.startswith(_WHITEOUT) and name not in _AUFS:
            self._whiteout(entry, directory, name)
            return False
        self._check_entry(entry, name)
        self.entries.append(entry)
        if kind is not _FILE:
            return False
        self._keep = self._keeps(entry, name)
        scanner = self._wants.scanner
        self._search = scanner is not None and scanner.wants(path, entry.size)
        large = None if self._search or scanner is None else scanner.large(path, entry.size)
        self._large = self._in_pieces(entry, large)
        database = path in RPM_DATABASES and entry.size <= _PACKAGE_DB
        self._record = name.rpartition(".")[2] in _RECORDS and self._records(entry, name)
        self._only_search = not self._keep and not database
        return self._keep or self._search or self._record or database

    def is_idle(self, entry: FileEntry, piece: bytes, start: int) -> bool:
        if self._record:
            self._read_record(entry, memoryview(piece)[start : start + entry.size])
            if self._only_search and not self._search:
                return True
        # One search of a stretch costs less than those of its ten files. In 99 of 100 stretches is nothing.
        scanner, end = self._wants.scanner, start + entry.size
        if not self._only_search or scanner is None or entry.size > _STRETCH:
            return False
        if piece is not self._piece or end > self._searched_to:
            self._piece, self._searched_to = piece, start + _STRETCH
            self._has_match = scanner.may_match(memoryview(piece)[start : start + _STRETCH])
        return not self._has_match and scanner.goes_by_patterns(entry.path, piece[start : start + _HEAD])

    def pieces(self, entry: FileEntry) -> _FileSearch | _ArchiveRecord | None:
        return self._large

    def _records(self, entry: FileEntry, name: str) -> bool:
        """Return whether the content says which packages of languages are installed, and is to be read as a whole.

        An archive that is too large for that is read in pieces (``_large``).
        """
        path = entry.path
        if name.endswith(DPKG_SUMS):
            return entry.size <= _SMALL and is_list_of_files(path)
        if not language_packages.is_record(path, name) or not language_packages.is_readable(name):
            return False
        if entry.size > language_packages.LARGEST and language_packages.is_archive(name):
            search = self._large if isinstance(self._large, _FileSearch) else None
            self._large = _ArchiveRecord(partial(self.records.__setitem__, path), search)
        return entry.size <= language_packages.LARGEST

    def _read_record(self, entry: FileEntry, data: bytes | memoryview) -> None:
        self._record = False
        if entry.path.endswith(DPKG_SUMS):
            self._add_owned(language_packages.recorded_files(bytes(data)))
        else:
            self.records[entry.path] = language_packages.read_record(entry.path, data)

    def _add_owned(self, paths: Iterable[str]) -> None:
        """Add records that the distribution's packages brought. Those beyond the limit count as brought by others."""
        for path in paths:
            if len(path) > self._owned_left:
                return
            self._owned_left -= len(path)
            self.owned_records.add(path)

    def _in_pieces(self, entry: FileEntry, file: LargeFile | None) -> _FileSearch | None:
        if file is None:
            return None
        self._searched += entry.size
        if self._searched <= _MAX_SEARCHED:
            return _FileSearch(file, self._add_matches, entry.path)
        self._unsearched.append(entry)
        return None

    def content(self, entry: FileEntry, data: bytes) -> None:
        if self._record:
            self._read_record(entry, data)
        if self._keep:
            self._kept += len(data)
            self.contents[entry.path] = data
        if self._search and self._wants.scanner is not None:
            self._add_matches(self._wants.scanner.search(entry.path, data), entry.path)
        # Kept as a whole for another reason, and still searched as the large file that it is.
        if self._large is not None:
            self._large.feed(memoryview(data))
            self._large.close()
        if entry.path in RPM_DATABASES:
            if not looks_like_rpm(data):
                self._add_oddity("malformed_image", entry.path, "is not a package database of a supported format")
            else:
                found = rpm.read(data)
                self._add_owned(sorted(found.records))
                if found.files:
                    self.packaged[entry.path] = found.files
                if found.packages:
                    self.rpm_packages[entry.path] = found.packages

    def _keeps(self, entry: FileEntry, name: str) -> bool:
        path = entry.path
        if not self._wants.keeps(path, name):
            return False
        bound = _PACKAGE_DB if is_sensitive(path) else _SMALL
        if entry.size <= bound and self._kept + entry.size <= _KEPT:
            return True
        # A missing file and an unread file must not look the same: one is a fact, the other is unknown.
        self._add_oddity("limit_exceeded", path, f"is too large to be examined ({entry.size} bytes)")
        self.contents.pop(path, None)
        return False

    def _add_matches(self, matches: Iterable[ContentMatch], path: str) -> None:
        for match in matches:
            if len(self.matches) == _MAX_MATCHES:
                self._add_oddity("limit_exceeded", path, f"and other files contain more than {_MAX_MATCHES} secrets")
                return
            self.matches.append(match)

    def _whiteout(self, entry: FileEntry, directory: str, name: str) -> None:
        """Record a whiteout (OCI image-spec, layer.md#whiteouts).

        A whiteout that has no name, has content, or names a parent directory is an attack.
        """
        if entry.type not in (FileType.FILE, FileType.HARDLINK) or entry.size:
            raise unsafe(f"a whiteout that is not an empty file: {entry.path[:200]!r}")
        if name == _OPAQUE:
            self.opaque.append(directory)
            return
        hidden = name.removeprefix(_WHITEOUT)
        if hidden in ("", ".", "..") or hidden.startswith(_WHITEOUT):
            raise unsafe("a whiteout without a name")
        self.whiteouts.append(f"{directory}/{hidden}" if directory else hidden)

    def _descend(self, directory: str) -> None:
        """Record the directories above an entry, also those without an entry of their own."""
        while directory and directory not in self._above:
            kind = self._seen.get(directory)
            # A runtime that follows the link would write the file outside the root file system.
            if kind is FileType.SYMLINK:
                raise unsafe(f"a file is written through the link {directory[:200]!r}")
            parent, _, name = directory.rpartition("/")
            if name.startswith(_WHITEOUT) and name not in _AUFS:
                raise unsafe(f"a whiteout with files in it: {directory[:200]!r}")
            if kind is not None and kind is not FileType.DIRECTORY:
                self._add_oddity("duplicate_entry", directory, f"is a {kind} and a directory")
            self._above.add(directory)
            directory = parent

    def _check_entry(self, entry: FileEntry, name: str) -> None:
        path, kind = entry.path, entry.type
        previous = self._seen.get(path)
        if previous is not None:
            self._check_duplicate(path, name, previous, kind)
        elif kind is not _DIRECTORY and path in self._above:
            self._add_oddity("duplicate_entry", path, f"is a directory and a {kind}")
        self._seen[path] = kind
        if kind is _FILE or kind is _DIRECTORY:
            pass
        elif kind is FileType.HARDLINK:
            target = self._seen.get(entry.link)
            if target is None or target is FileType.DIRECTORY:
                self._add_oddity(
                    "unsafe_archive", path, "is a hard link to a file that does not precede it in the layer"
                )
        elif kind is FileType.CHAR_DEVICE or kind is FileType.BLOCK_DEVICE:
            if not is_usual_device(entry):
                self._add_oddity("unsafe_archive", path, f"is a {kind} {entry.link}")
        elif kind is FileType.FIFO and is_sensitive(path):
            self._add_oddity("unsafe_archive", path, "is a pipe")
        if not path.isascii() and any(0xDC80 <= ord(c) <= 0xDCFF for c in path):
            self._add_oddity("non_utf8_name", path, "has a name that is not UTF-8")

    def _check_duplicate(self, path: str, name: str, previous: FileType, kind: FileType) -> None:
        """Handle a repeated entry: the last one counts, as in runtimes.

        It is reported if an engine may have used the other one (Trivy's choice is random).
        """
        if previous is kind is FileType.DIRECTORY:
            return
        self.contents.pop(path, None)
        self.packaged.pop(path, None)
        self.rpm_packages.pop(path, None)
        self.records.pop(path, None)
        if previous is not kind or is_sensitive(path) or APPLICATION.search(name):
            self._add_oddity("duplicate_entry", path, "is in the layer twice")

    def _add_oddity(self, reason: str, path: str, detail: str) -> None:
        if len(self.oddities) < _MAX_ODDITIES:
            self.oddities.append(Oddity(reason, path, detail))

    def finish(self) -> None:
        """Report whiteouts of entries in the same layer.

        A whiteout applies to lower layers only. Some readers also apply it to its own layer, and then see other files.
        """
        for path in self.whiteouts:
            if path in self._seen or path in self._above:
                self._add_oddity("unsafe_archive", path, "is deleted and present in the same layer")
        if self._unsearched:
            # One for all, whatever else was noted: a file that was not searched must not look like one without secrets.
            size = sum(entry.size for entry in self._unsearched)
            detail = f"and other files, {len(self._unsearched)} in all with {size} bytes, were not searched for secrets"
            self.oddities.append(Oddity(NOT_SEARCHED, self._unsearched[0].path, detail))


def read_layer(
    stream: Readable,
    media_type: str,
    *,
    digest: Digest,
    size: int,
    diff_id: Digest,
    limits: Limits,
    wants: ContentWants,
    sink: Callable[[bytes | memoryview], object] | None = None,
    files: EngineFiles | None = None,
    deadline: float | None = None,
    advance: Callable[[int], object] | None = None,
) -> LayerFacts:
    """Read the facts of a layer from its transported bytes. ``sink`` receives all uncompressed bytes, or with
    ``files`` the excerpt that an engine reads.

    ``deadline``: a time.monotonic() value. ``advance``: called with the number of bytes read. Raises ImageError:
    digest_mismatch (either digest, or the size), malformed_archive, malformed_image (media type and content disagree),
    unsafe_archive, limit_exceeded.
    """
    facts, compression = _Facts(wants), layer_compression(media_type)
    source = _TransportedBytes(stream, digest, size, limits, deadline)
    excerpt = Excerpt(files, sink) if files is not None and sink is not None else None
    reader = TarReader(facts, limits, excerpt)
    plain, told = hashlib.new(diff_id.algorithm), 0
    hashed = compression != TAR or digest.algorithm != diff_id.algorithm  # otherwise both digests cover the same bytes
    kept = [*([plain.update] if hashed else ()), *([sink] if sink is not None and excerpt is None else ())]
    alone = size < _READ_AHEAD
    try:
        with (_in_turn if alone else read_ahead)(_uncompressed(source, compression, limits), _each(kept)) as pieces:
            for piece in pieces:
                if advance is not None and source.size > told:
                    advance(source.size - told)
                    told = source.size
                reader.feed(piece)
        reader.close()
        if excerpt is not None:
            excerpt.close()
    except ImageError as error:
        if error.reason.startswith("malformed"):
            source.verify()  # bytes that were changed in transit are not the image's fault
        raise
    source.verify()
    if advance is not None and source.size > told:
        advance(source.size - told)
    if (plain.hexdigest() if hashed else source.hex) != diff_id.hex:
        raise ImageError(f"the uncompressed layer does not match its diff_id {diff_id}", reason="digest_mismatch")
    # After the digests: a layer with other bytes than promised has no facts.
    facts.finish()
    return LayerFacts(
        diff_id,
        reader.offset,
        tuple(facts.entries),
        tuple(facts.whiteouts),
        tuple(facts.opaque),
        facts.contents,
        tuple(facts.oddities),
        tuple(facts.matches),
        facts.packaged,
        facts.rpm_packages,
        facts.records,
        frozenset(facts.owned_records),
    )


def _uncompressed(source: _TransportedBytes, compression: str, limits: Limits) -> Iterator[bytes]:
    """Yield the uncompressed bytes. Raises LimitExceeded before the piece that exceeds a limit."""
    total = 0
    for piece in decompress(source, compression):
        total += len(piece)
        if total > limits.layer_uncompressed:
            raise LimitExceeded(f"the layer is larger than {limits.layer_uncompressed} bytes uncompressed")
        if total > limits.ratio_after and total > limits.ratio * source.size:
            raise LimitExceeded(f"the layer expands more than {limits.ratio} times")
        yield piece


def _each(sinks: Sequence[Callable[[bytes], object]]) -> Callable[[bytes], object]:
    """Return a function that passes a piece to all sinks."""

    def receive(piece: bytes) -> None:
        for sink in sinks:
            sink(piece)

    return receive


@contextmanager
def _in_turn(pieces: Iterator[bytes], also: Callable[[bytes], object]) -> Iterator[Iterator[bytes]]:
    """What ``read_ahead`` does, without threads: these would cost more than a small layer."""

    def examine() -> Iterator[bytes]:
        for piece in pieces:
            also(piece)
            yield piece

    yield examine()


class _TransportedBytes:
    """The transported bytes: counted, limited in size and time, and hashed as they are read."""

    def __init__(self, stream: Readable, digest: Digest, size: int, limits: Limits, deadline: float | None) -> None:
        if size > limits.layer_compressed:
            raise LimitExceeded(f"the layer is larger than {limits.layer_compressed} bytes compressed")
        self._stream, self._digest, self._announced = stream, digest, size
        self._deadline = deadline
        self._hash = hashlib.new(digest.algorithm)
        self._failure: ScannerError | None = None
        self.size = 0

    def read(self, size: int = 1 << 17, /) -> bytes:
        if self._failure is not None:
            raise self._failure
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise LimitExceeded("reading the layers took too long", reason="scan_timeout")
        try:
            data = self._stream.read(size)
        except ScannerError as error:
            # Verification reads on: the end of a broken connection must not look like the end of the layer.
            self._failure = error
            raise
        self.size += len(data)
        if self.size > self._announced:
            raise self._mismatch()
        self._hash.update(data)
        return data

    def verify(self) -> None:
        """Read the rest and compare size and digest. Raises ImageError(reason="digest_mismatch")."""
        while self.read():
            pass
        if self.size != self._announced or self.hex != self._digest.hex:
            raise self._mismatch()

    def _mismatch(self) -> ImageError:
        return ImageError(f"the layer does not match its digest {self._digest}", reason="digest_mismatch")

    @property
    def hex(self) -> str:
        return self._hash.hexdigest()
