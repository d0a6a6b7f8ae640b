"""The trust state of the command line (what verifiers remember between runs): a file for each key, or nothing."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

from scanner.errors import UsageError

_MAX_STATE = 64 << 20


class DirectoryState:
    """A directory with one file for each key. Files are replaced atomically. See ``TrustState``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _file(self, key: str) -> Path:
        return self._directory / (hashlib.sha256(key.encode()).hexdigest() + ".json")

    def load(self, key: str) -> bytes | None:
        """See ``TrustState.load``.

        Raises UsageError if the directory cannot be read: starting anew would accept a rollback.
        """
        try:
            with self._file(key).open("rb") as file:
                return file.read(_MAX_STATE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"cannot read the trust state in {self._directory}: {error.strerror}") from error

    def save(self, key: str, state: bytes, replacing: bytes | None) -> bool:
        """See ``TrustState.save``. Runs of the command line can overlap, so a lock file serialises them."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (self._directory / ".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if self.load(key) != replacing:
                    return False
                self._write(key, state)
        except OSError as error:
            raise UsageError(f"cannot keep the trust state in {self._directory}: {error.strerror}") from error
        return True

    def _write(self, key: str, state: bytes) -> None:
        import tempfile

        descriptor, name = tempfile.mkstemp(dir=self._directory, prefix=".state-")
        with os.fdopen(descriptor, "wb") as out:
            out.write(state)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(self._file(key))


class NoState:
    """Remembers nothing: every run is the first one, so a rollback cannot be detected."""

    def load(self, key: str) -> bytes | None:
        return None

    def save(self, key: str, state: bytes, replacing: bytes | None) -> bool:
        return True
