"""Small files that this installation keeps for itself and believes only if it wrote them.

What is kept (results, compiled patterns) would decide verdicts, and parsers of it need not be robust. So each file is
sealed with a key of this installation: a file that was planted, changed, cut, or copied from another name is absent.
The key is as secret as the rest of the state directory; who can read it can also change the database.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from hmac import compare_digest, digest
from pathlib import Path

from scanner.kept_files import KeptFiles, write_once

_SEAL = 32


class SealedFiles:
    """Files of one directory by name, kept as `KeptFiles` does. A failed write costs time, nothing else."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self._files = KeptFiles(directory, ".sealed", max_bytes, others=frozenset({"key"}))

    def get(self, name: str) -> bytes | None:
        """Return the file, or None if it is missing or its seal is broken. It then counts as used now."""
        path = self._path(name)
        with contextlib.suppress(OSError):
            content = path.read_bytes()
            data = content[_SEAL:]
            if compare_digest(content[:_SEAL], self._seal(path.name, data)):
                os.utime(path)
                return data
        return None

    def put(self, name: str, data: bytes) -> None:
        with contextlib.suppress(OSError):
            path = self._path(name)
            self._files.write(path, self._seal(path.name, data) + data)

    def _path(self, name: str) -> Path:
        return self.directory / f"{hashlib.sha256(name.encode()).hexdigest()}.sealed"

    def _seal(self, name: str, data: bytes) -> bytes:
        return digest(self._key(), name.encode() + b"\0" + data, "sha256")

    def _key(self) -> bytes:
        """Return the key. The first process creates it. Raises OSError for one that was cut."""
        path = self.directory / "key"
        with contextlib.suppress(FileNotFoundError):
            return _complete(path.read_bytes())
        write_once(path, os.urandom(_SEAL))
        return _complete(path.read_bytes())


def _complete(key: bytes) -> bytes:
    """Return the key. Raises OSError for one that was cut: with an empty key, an attacker could make seals."""
    if len(key) != _SEAL:
        raise OSError("the key of the kept files is not complete; remove it")
    return key
