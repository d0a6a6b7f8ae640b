"""What the layers of an image hold, as facts: no file of an image ever touches the host's file system.

``LayerFacts`` is what one pass over one layer found (cached by diff_id: a base shared by many images is read once);
``Rootfs`` is the file system that a container would see after applying the layers in order (OCI image-spec, layer.md).
Paths are ``str`` decoded as UTF-8 with surrogateescape, relative, without a leading slash, normalised: ``etc/passwd``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from scanner.model.reference import Digest


class FileType(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    CHAR_DEVICE = "char-device"
    BLOCK_DEVICE = "block-device"
    FIFO = "fifo"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One entry of a layer. ``mode`` holds the permission bits only (0o7777).

    ``link`` is a link's target as written, of a device its ``major:minor``; in a ``Rootfs`` a FILE with a link is a
    hard link, whose mode, owner and size are those of the file that it names.
    """

    path: str
    type: FileType
    mode: int
    uid: int
    gid: int
    size: int
    link: str = ""
    capability: bytes = b""  # the security.capability xattr (file capabilities), raw
    mtime: int = 0

    @property
    def setuid(self) -> bool:
        return bool(self.mode & 0o4000)

    @property
    def setgid(self) -> bool:
        return bool(self.mode & 0o2000)


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something in a layer that no honest builder writes, and that could make two readers see two file systems.

    ``reason`` is one of the vocabulary slugs (unsafe_archive, duplicate_entry, package_db_indirect, …).
    """

    reason: str
    path: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ContentMatch:
    """A secret recognised by content in a file of a layer.

    The secret itself is never kept: ``redacted`` shows its shape.
    """

    rule: str
    path: str
    line: int
    redacted: str


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file as a package ships it. ``path`` has no leading slash; ``digest`` is in hexadecimal, of ``hash_name``."""

    package: str
    path: str
    mode: int
    owner: str
    hash_name: str
    digest: str


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """Everything that one streaming pass found in one layer.

    ``entries`` in archive order, last of duplicates wins when merged; ``whiteouts`` are the paths this layer deletes
    from those below it; ``opaque`` the directories whose lower content it hides; ``contents`` the bytes of small
    files that somebody wanted (see ``wanted``), capped; ``matches`` secrets by content. ``packaged``: what each rpm
    database, by its path, says of the files with privileges that its packages ship.
    """

    diff_id: Digest
    uncompressed_size: int
    entries: tuple[FileEntry, ...]
    whiteouts: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()
    contents: Mapping[str, bytes] = field(default_factory=dict)
    oddities: tuple[Oddity, ...] = ()
    matches: tuple[ContentMatch, ...] = ()
    packaged: Mapping[str, tuple[PackagedFile, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """A file of the merged file system, and the index of the layer it lives in.

    ``origin``: the layer and path under which its bytes were kept, where these are others (hard links, entries
    behind a link).
    """

    entry: FileEntry
    layer: int
    origin: tuple[int, str] | None = None


@dataclass(frozen=True)
class Rootfs:
    """The merged file system.

    ``files`` maps path -> PlacedFile; ``hidden`` are entries that a later layer overwrote or deleted (still in the
    image: secrets and wasted bytes live there), with the index of the layer that hid them; ``redirected`` are
    entries that a layer wrote through a link of a layer below it: layer, path as written, path where a container
    finds it.
    """

    layers: tuple[LayerFacts, ...]
    files: Mapping[str, PlacedFile]
    hidden: tuple[tuple[PlacedFile, int], ...] = ()
    redirected: tuple[tuple[int, str, str], ...] = ()

    def content(self, path: str) -> bytes | None:
        """Bytes of a wanted file as a container would see it: links followed within the image (at most 40), else
        None.
        """
        place = self._kept(path)
        return self.layers[place[0]].contents.get(place[1]) if place else None

    def packaged(self, path: str) -> tuple[PackagedFile, ...]:
        """What the rpm database at ``path`` says of files with privileges; none where there is no such database."""
        place = self._kept(path)
        return self.layers[place[0]].packaged.get(place[1], ()) if place else ()

    def _kept(self, path: str) -> tuple[int, str] | None:
        """The layer, and the path in it, under which the bytes of a file were kept."""
        resolved = self.resolve(path)
        if resolved is None:
            return None
        placed = self.files[resolved]
        return placed.origin or (placed.layer, resolved)

    def resolve(self, path: str) -> str | None:
        """The path of the file that ``path`` names after following links inside the image; None if it does not
        exist.
        """
        found = self.follow(path)
        return found if found in self.files else None

    def follow(self, path: str) -> str | None:
        """Where ``path`` leads: links followed inside the image (at most 40, else None), parts that do not exist
        kept as written.
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
        """Every layer's oddities with the layer's index."""
        return [(index, oddity) for index, layer in enumerate(self.layers) for oddity in layer.oddities]
