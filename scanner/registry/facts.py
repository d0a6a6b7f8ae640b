"""Facts of layers, kept by diff_id: a base layer that many images share is read once.

A pair (transported digest, diff_id) that was verified once is remembered too, because without that an image could claim a
known diff_id for other bytes. Anything unreadable here is a miss, never an answer.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import msgpack

from scanner.model.filesystem import ContentMatch, FileEntry, FileType, LayerFacts, Oddity
from scanner.model.reference import Digest

_FORMAT = 1
_TYPES = tuple(FileType)
_TYPE_INDEX = {kind: index for index, kind in enumerate(_TYPES)}


class FactsCache:
    """Files under one directory, written whole and renamed into place."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def get(self, diff_id: Digest, wants: str, digest: Digest) -> LayerFacts | None:
        """The facts, if these transported bytes were verified to be this diff_id and read with these wants."""
        try:
            if not self._pair(digest, diff_id).exists():
                return None
            return _load(self._path(diff_id, wants).read_bytes(), diff_id)
        except (OSError, ValueError, TypeError, KeyError, IndexError, msgpack.exceptions.UnpackException):
            return None

    def put(self, facts: LayerFacts, wants: str, digest: Digest) -> None:
        """Keep facts that ``read_layer`` has just verified."""
        self._write(self._path(facts.diff_id, wants), _dump(facts))
        self._write(self._pair(digest, facts.diff_id), b"")

    def _path(self, diff_id: Digest, wants: str) -> Path:
        return self.directory / f"{diff_id.hex}-{wants}-{_FORMAT}.facts"

    def _pair(self, digest: Digest, diff_id: Digest) -> Path:
        return self.directory / f"{digest.hex[:64]}-{diff_id.hex[:64]}.pair"

    def _write(self, path: Path, data: bytes) -> None:
        partial = path.with_name(f".{secrets.token_hex(8)}")
        partial.write_bytes(data)
        os.replace(partial, path)


def _dump(facts: LayerFacts) -> bytes:
    """Columns, because one list of 100,000 small lists costs ten times as much to read back."""
    columns = list(
        zip(
            *(
                (e.path, _TYPE_INDEX[e.type], e.mode, e.uid, e.gid, e.size, e.link, e.capability, e.mtime)
                for e in facts.entries
            ),
            strict=True,
        )
    )
    document = {
        "size": facts.uncompressed_size,
        "entries": columns,
        "whiteouts": facts.whiteouts,
        "opaque": facts.opaque,
        "contents": dict(facts.contents),
        "oddities": [(o.reason, o.path, o.detail) for o in facts.oddities],
        "matches": [(m.rule, m.path, m.line, m.redacted) for m in facts.matches],
    }
    packed: bytes = msgpack.packb(document, use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def _load(data: bytes, diff_id: Digest) -> LayerFacts:
    document: dict[str, Any] = msgpack.unpackb(
        data, raw=False, unicode_errors="surrogateescape", use_list=False, strict_map_key=False
    )
    rows = zip(*document["entries"], strict=True) if document["entries"] else ()
    entries = tuple(FileEntry(path, _TYPES[kind], *rest) for path, kind, *rest in rows)
    return LayerFacts(
        diff_id,
        document["size"],
        entries,
        document["whiteouts"],
        document["opaque"],
        document["contents"],
        tuple(Oddity(*row) for row in document["oddities"]),
        tuple(ContentMatch(*row) for row in document["matches"]),
    )
