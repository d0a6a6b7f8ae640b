"""The content of an image's layers as facts. No file of an image is ever written to the host's file system.

``LayerFacts``: the result of one pass over one layer (cached by diff_id, because many images share a base). ``Rootfs``:
the file system that a container would see, after applying the layers in order (OCI image-spec, layer.md). Paths are
``str``, decoded as UTF-8 with surrogateescape, relative and normalised: ``etc/passwd``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from enum import StrEnum

from scanner.lazy_dataclasses import dataclass, record
from scanner.model.reference import Digest


class FileType(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    CHAR_DEVICE = "char-device"
    BLOCK_DEVICE = "block-device"
    FIFO = "fifo"


@record
class FileEntry:
    """One entry of a layer. ``mode``: permission bits only (0o7777).

    ``link``: a link's target as written, or a device's ``major:minor``. In a ``Rootfs``, a FILE with a link is a hard
    link with mode, owner and size of its target.
    """

    path: str  # without a leading slash
    type: FileType
    mode: int
    uid: int
    gid: int
    size: int
    link: str = ""
    capability: bytes = b""  # the security.capability xattr (file capabilities), raw
    mtime: int = 0  # seconds since 1970, as the archive states: anything

    @property
    def setuid(self) -> bool:
        return bool(self.mode & 0o4000)

    @property
    def setgid(self) -> bool:
        return bool(self.mode & 0o2000)


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something that no honest builder writes into a layer, and that can make two readers see different file systems.

    ``reason``: a slug such as unsafe_archive, duplicate_entry, package_db_indirect.
    """

    reason: str
    path: str
    detail: str = ""


NOT_SEARCHED = "not_searched"
"""The reason of an `Oddity`: large files that were not searched for secrets."""


@dataclass(frozen=True, slots=True)
class ContentMatch:
    """A secret found by content in a file of a layer.

    ``redacted`` shows its form; the secret itself is never stored.
    """

    rule: str
    path: str
    line: int  # from 1
    redacted: str


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file as a package ships it. ``path`` has no leading slash; ``digest`` is in hexadecimal, of ``hash_name``."""

    package: str
    path: str
    mode: int  # permission bits
    owner: str  # as the package names it
    hash_name: str
    digest: str


@dataclass(frozen=True, slots=True)
class PackageRecord:
    """What a file says by which a package manager of a language records packages: package.json, METADATA, archives.

    ``identity``: name and version, or a digest of records of many packages; equal ones say the same. Empty: unknown.
    ``problem``: what is wrong with it. ``holds``: whether it may record a package.
    """

    identity: str = ""
    problem: str = ""
    holds: bool = False


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """The result of one streaming pass over one layer.

    ``entries``: in archive order; the last duplicate wins when layers are merged. ``whiteouts``: paths that this layer
    deletes from lower ones. ``opaque``: directories whose lower content it hides. ``contents``: content of small files
    that checks or engines need (``ContentWants``), limited in size. ``matches``: secrets found by content.
    ``packaged``: the privileged files that packages ship, by path of the rpm database that lists them.
    ``rpm_packages``: how many packages such a database lists, where that is known. ``records``: of packages of
    languages, by path. ``owned_records``: paths of records that packages of the distribution brought.
    """

    diff_id: Digest
    uncompressed_size: int
    entries: tuple[FileEntry, ...]
    whiteouts: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()
    contents: Mapping[str, bytes] = field(default_factory=dict)
    oddities: tuple[Oddity, ...] = ()  # what is unusual about the archive, such as names that escape it
    matches: tuple[ContentMatch, ...] = ()
    packaged: Mapping[str, tuple[PackagedFile, ...]] = field(default_factory=dict)
    rpm_packages: Mapping[str, int] = field(default_factory=dict)
    records: Mapping[str, PackageRecord] = field(default_factory=dict)
    owned_records: frozenset[str] = frozenset()


@record
class PlacedFile:
    """A file of the merged file system, with the index of its layer.

    ``origin``: layer and path under which its content is stored, if they differ (hard links, entries behind a link).
    """

    entry: FileEntry
    layer: int
    origin: tuple[int, str] | None = None


@dataclass(frozen=True)
class Rootfs:
    """The merged file system.

    ``files``: path -> PlacedFile. ``hidden``: entries that a later layer overwrote or deleted, with that layer's index;
    they are still in the image, with secrets and wasted bytes. ``redirected``: entries written through a link of a
    lower layer: layer, path as written, path in a container. ``misplaced``: deletions below something that is no
    directory: layer, and the path of that file.
    """

    layers: tuple[LayerFacts, ...]
    files: Mapping[str, PlacedFile]
    hidden: tuple[tuple[PlacedFile, int], ...] = ()
    redirected: tuple[tuple[int, str, str], ...] = ()
    misplaced: tuple[tuple[int, str], ...] = ()

    def content(self, path: str) -> bytes | None:
        """Content of a stored file as a container sees it; links are followed within the image, at most 40.

        None otherwise.
        """
        place = self._kept_bytes(path)
        return self.layers[place[0]].contents.get(place[1]) if place else None

    def packaged(self, path: str) -> tuple[PackagedFile, ...]:
        """What the rpm database at ``path`` says of files with privileges; none where there is no such database."""
        place = self._kept_bytes(path)
        return self.layers[place[0]].packaged.get(place[1], ()) if place else ()

    def rpm_packages(self, path: str) -> int | None:
        """How many packages the rpm database at ``path`` lists; None if it was not counted."""
        place = self._kept_bytes(path)
        return self.layers[place[0]].rpm_packages.get(place[1]) if place else None

    def _kept_bytes(self, path: str) -> tuple[int, str] | None:
        """The layer, and the path in it, under which the bytes of a file were kept."""
        resolved = self.resolve(path)
        if resolved is None:
            return None
        placed = self.files[resolved]
        return placed.origin or (placed.layer, resolved)

    def resolve(self, path: str) -> str | None:
        """The path of the file at ``path`` after following links within the image. None if it does not exist."""
        found = self.follow(path)
        return found if found in self.files else None

    def follow(self, path: str) -> str | None:
        """Follow the links in ``path`` within the image (at most 40, otherwise None).

        Missing parts are kept as written.
        """
        pending = [part for part in path.split("/") if part not in ("", ".")][::-1]
        done: list[str] = []
        hops = 0
        while pending:
            part = pending.pop()
            if part == "..":
                if done:
                    done.pop()
                continue
            placed = self.files.get("/".join((*done, part)))
            if placed is None or placed.entry.type is not FileType.SYMLINK:
                done.append(part)
                continue
            hops += 1
            if hops > 40:
                return None
            if placed.entry.link.startswith("/"):
                done = []
            pending.extend(p for p in reversed(placed.entry.link.split("/")) if p not in ("", "."))
        return "/".join(done)

    def __iter__(self) -> Iterator[PlacedFile]:
        return iter(self.files.values())

    @property
    def oddities(self) -> Sequence[tuple[int, Oddity]]:
        """The oddities of all layers, with the layer's index."""
        return [(index, oddity) for index, layer in enumerate(self.layers) for oddity in layer.oddities]
