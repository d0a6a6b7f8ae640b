"""Where a command line keeps what verifiers remember between runs: a file for each name, or nothing at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from pathlib import Path

from scanner.errors import UsageError

_MAX_STATE = 64 << 20


class DirectoryState:
    """A directory with one file a key. A file is replaced whole or not at all. See ``TrustState``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _file(self, key: str) -> Path:
        return self._directory / (hashlib.sha256(key.encode()).hexdigest() + ".json")

    def load(self, key: str) -> bytes | None:
        """Raises UsageError where the directory cannot be read: forgetting what was seen would let an old state
        pass.
        """
        try:
            with self._file(key).open("rb") as file:
                return file.read(_MAX_STATE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"cannot read the trust state in {self._directory}: {error.strerror}") from error

    def save(self, key: str, state: bytes, replacing: bytes | None) -> bool:
        """See ``TrustState.save``. Runs of the command line may overlap, so they take turns at a lock file."""
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
        descriptor, name = tempfile.mkstemp(dir=self._directory, prefix=".state-")
        with os.fdopen(descriptor, "wb") as out:
            out.write(state)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(self._file(key))


class NoState:
    """Remembers nothing: each run is the first, so no rollback can be seen."""

    def load(self, key: str) -> bytes | None:
        return None

    def save(self, key: str, state: bytes, replacing: bytes | None) -> bool:
        return True
