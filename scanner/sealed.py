"""Small files that this installation keeps for itself and believes only if it wrote them.

What is kept (results, compiled patterns) would decide verdicts, and parsers of it need not be robust. So each file is
sealed with a key of this installation: a file that was planted, changed, cut, or copied from another name is absent.
The key is as secret as the rest of the state directory; who can read it can also change the database.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from hmac import compare_digest, digest
from pathlib import Path

from scanner.kept_files import KeptFiles, write_once

# Bytes of the HMAC-SHA256 before each file.
_SEAL = 32
_MAX_DERIVED = 1 << 20
_SETTLED_SECONDS = 2


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

    def about(self, question: str, file: Path, find: Callable[[], bytes]) -> bytes:
        """Return what ``find`` says about a file of this machine, remembered until the file changes.

        A changed file has another inode, size or time. What was found about a file that changed a moment ago is not
        remembered: a second change within the same tick of the clock would not show. Raises OSError if the file cannot
        be examined, and what ``find`` raises.
        """
        before = file.stat()
        name = f"{question} {file.absolute()} {_state(before)}"
        known = self.get(name)
        if known is not None:
            return known
        found = find()
        changed = max(before.st_mtime, before.st_ctime)
        if _state(file.stat()) == _state(before) and time.time() - changed > _SETTLED_SECONDS:
            self.put(name, found)
        return found

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


def derived_files(home: Path) -> SealedFiles:
    """Return what this installation derived from its own files: small, and cheap to make again."""
    return SealedFiles(home / "derived", _MAX_DERIVED)


def _state(stat: os.stat_result) -> tuple[int, ...]:
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _complete(key: bytes) -> bytes:
    """Return the key. Raises OSError for one that was cut: with an empty key, an attacker could make seals."""
    if len(key) != _SEAL:
        raise OSError("the key of the kept files is not complete; remove it")
    return key
