"""A cache of layer facts: a base layer that many images share is read once.

The key contains the transported digest beside the diff_id. The pair was verified, while a diff_id alone is a claim: an
image could name a known diff_id for other bytes. Anything unreadable in the cache is a miss, never an answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import astuple
from pathlib import Path
from typing import Any

from scanner.kept_files import KeptFiles
from scanner.model.filesystem import ContentMatch, FileEntry, FileType, LayerFacts, Oddity, PackagedFile, PackageRecord
from scanner.model.reference import Digest

_FORMAT = 6  # increase it when the layer reader would report other facts for the same bytes
_TYPES = tuple(FileType)
_TYPE_INDEX = {kind: index for index, kind in enumerate(_TYPES)}
# Bytes of the SHA-256 before each entry: a file that was cut by a crash is read as absent.
_CHECKSUM = 32
# Of the whole cache; the oldest entries go.
_MAX_BYTES = 1 << 30


class FactsCache:
    """Files in one directory, kept as `KeptFiles` does."""

    def __init__(self, directory: Path, max_bytes: int = _MAX_BYTES) -> None:
        self.directory = directory
        self._files = KeptFiles(directory, ".facts", max_bytes)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def get(self, diff_id: Digest, wants: str, digest: Digest) -> LayerFacts | None:
        """Return the facts, if these transported bytes were verified to have this diff_id and were read with
        ``wants``.
        """
        import msgpack

        path = self._path(diff_id, wants, digest)
        try:
            data = path.read_bytes()
            if hashlib.sha256(data[_CHECKSUM:]).digest() != data[:_CHECKSUM]:
                return None
            os.utime(path)
            return _load(data[_CHECKSUM:], diff_id)
        except (OSError, ValueError, TypeError, KeyError, IndexError, msgpack.exceptions.UnpackException):
            return None

    def put(self, facts: LayerFacts, wants: str, digest: Digest) -> None:
        """Store facts that ``read_layer`` has just verified. A failed write costs time, not the scan."""
        data = _dump(facts)
        with contextlib.suppress(OSError):
            self._files.write(self._path(facts.diff_id, wants, digest), hashlib.sha256(data).digest() + data)

    def _path(self, diff_id: Digest, wants: str, digest: Digest) -> Path:
        key = hashlib.sha256(f"{_FORMAT} {diff_id} {digest} {wants}".encode()).hexdigest()
        return self.directory / f"{key}.facts"


def _dump(facts: LayerFacts) -> bytes:
    """Serialise by column: a list of 100,000 small lists takes ten times as long to read."""
    import msgpack

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
        "packaged": {path: [astuple(file) for file in files] for path, files in facts.packaged.items()},
        "rpm_packages": dict(facts.rpm_packages),
        "records": {path: (r.identity, r.problem, r.holds) for path, r in facts.records.items()},
        "owned": tuple(facts.owned_records),
    }
    packed: bytes = msgpack.packb(document, use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def _load(data: bytes, diff_id: Digest) -> LayerFacts:
    import msgpack

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
        {path: tuple(PackagedFile(*row) for row in rows) for path, rows in document["packaged"].items()},
        document["rpm_packages"],
        {path: PackageRecord(*row) for path, row in document["records"].items()},
        frozenset(document["owned"]),
    )
