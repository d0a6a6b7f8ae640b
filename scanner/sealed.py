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
from hmac import compare_digest, digest
from pathlib import Path

_SEAL = 32
_STALE_SECONDS = 3600


class SealedFiles:
    """Files of one directory by name, written completely and then renamed, shared by all processes.

    The least recently used are removed once all together exceed ``max_bytes``. A failed write costs time, nothing else.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory, self.max_bytes = directory, max_bytes

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
            seal = self._seal(path.name, data)
            partial = self.directory / f".{os.urandom(8).hex()}"
            try:
                with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(seal + data)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
            self._evict()

    def _path(self, name: str) -> Path:
        return self.directory / f"{hashlib.sha256(name.encode()).hexdigest()}.sealed"

    def _seal(self, name: str, data: bytes) -> bytes:
        return digest(self._key(), name.encode() + b"\0" + data, "sha256")

    def _key(self) -> bytes:
        """Return the key. Created by whoever comes first; a link shows only a complete one."""
        path = self.directory / "key"
        with contextlib.suppress(FileNotFoundError):
            return _complete(path.read_bytes())
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self.directory / f".{os.urandom(8).hex()}"
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(os.urandom(_SEAL))
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
        return _complete(path.read_bytes())

    def _evict(self) -> None:
        files = []
        for path in self.directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                if path.suffix == ".sealed":
                    files.append((stat.st_mtime, stat.st_size, path))
                elif path.name != "key" and time.time() - stat.st_mtime > _STALE_SECONDS:  # left by a killed process
                    path.unlink()
        excess = sum(size for _, size, _ in files) - self.max_bytes
        for _, size, path in sorted(files):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size


def _complete(key: bytes) -> bytes:
    """Return the key. Raises OSError for one that was cut: an empty key would seal for anybody."""
    if len(key) != _SEAL:
        raise OSError("the key of the kept files is not complete; remove it")
    return key
