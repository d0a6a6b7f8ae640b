"""A layer's archive without the files that an engine does not read: a tenth of the bytes to store, and to read again.

Entries are copied byte by byte, headers included, in their order. Only regular files are left out, so links,
directories and whiteouts are those of the layer. What is left out is decided by the engine (``EngineFiles``), whose
reasons are tested against its own answers for whole layers.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from scanner.lazy_dataclasses import dataclass
from scanner.model.filesystem import FileEntry, FileType
from scanner.model.reference import Digest
from scanner.registry.tar import BLOCK

_HELD = 8 << 20  # bytes of a program that wait for the decision; a larger one is copied without a search
_ELF, _SCRIPT, _WHITEOUT = b"\x7fELF", b"#!", ".wh."


class Part(Enum):
    """What an engine reads of a regular file. ``PROGRAM``: all of it, if it is a program with one of the marks."""

    NOTHING = 0
    ALL = 1
    PROGRAM = 2


# Reading a member of an enumeration takes ten times as long as reading a global. Each entry of a layer needs them.
_NOTHING, _ALL, _PROGRAM, _FILE = Part.NOTHING, Part.ALL, Part.PROGRAM, FileType.FILE


@dataclass(frozen=True)
class EngineFiles:
    """The files that an engine reads. ``version`` must change with what ``part`` and ``marks`` would answer.

    ``marks``: bytes of which an ELF file must contain one. Programs of other formats are always read, scripts never.
    """

    version: str
    part: Callable[[FileEntry], Part]
    marks: tuple[bytes, ...] = ()

    def name(self, diff_id: Digest) -> Digest:
        """The name of a layer's excerpt in the blob store.

        It is no digest of its content: it stands for this layer, as these rules cut it.
        """
        return Digest.of(f"excerpt {self.version} {diff_id}".encode())


def blob_name(diff_id: Digest, files: EngineFiles | None) -> Digest:
    """The name in the blob store of what an engine gets of a layer. ``files`` None: the whole layer."""
    return files.name(diff_id) if files else diff_id


class Excerpt:
    """Receives the parts of an archive from its reader, and passes on those that the engine reads."""

    def __init__(self, files: EngineFiles, sink: Callable[[bytes | memoryview], object]) -> None:
        self._files, self._sink = files, sink
        self._headers: list[bytes] = []  # of the next entry: names and pax records, then its own
        self._held: list[memoryview] = []  # the content of a program until all of it is there
        self._left = 0
        self._special = self._holding = False

    def header(self, block: bytes) -> None:
        """Read a header. What follows belongs to it, unless ``wants`` is called for an entry."""
        self._headers.append(block)
        self._special = True

    def wants(self, entry: FileEntry, left: int) -> bool:
        """Return whether to pass on the content of an entry whose headers were read: ``left`` bytes with padding."""
        ordinary = entry.type is _FILE and not entry.path.rpartition("/")[2].startswith(_WHITEOUT)
        part = self._files.part(entry) if ordinary else _ALL
        self._left, self._special = left, False
        self._holding = part is _PROGRAM and 0 < left <= _HELD
        if part is _NOTHING or (part is _PROGRAM and not left):
            self._headers.clear()
            return False
        if not self._holding:
            self._pass_headers()
        return left > 0

    def content(self, data: memoryview) -> None:
        """Read the next bytes of a wanted content, or of a name or pax header."""
        if self._special:
            self._headers.append(bytes(data))
        elif self._holding:
            self._held.append(data)
            self._left -= len(data)
            if not self._left:
                self._decide()
        else:
            self._sink(data)

    def close(self) -> None:
        """End the archive."""
        self._sink(bytes(2 * BLOCK))

    def _pass_headers(self) -> None:
        self._sink(b"".join(self._headers))
        self._headers.clear()

    def _decide(self) -> None:
        data = b"".join(self._held)
        self._held.clear()
        foreign = data.startswith(_ELF) and not any(mark in data for mark in self._files.marks)
        if data.startswith(_SCRIPT) or foreign:
            self._headers.clear()
        else:
            self._pass_headers()
            self._sink(data)
