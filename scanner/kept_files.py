"""Files that this installation writes for itself: each is complete as soon as another process can see it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_STALE_SECONDS = 3600  # a file that is still being written is younger


class KeptFiles:
    """Files with one ``suffix`` in a directory, shared by all processes.

    The least recently used are removed once all together exceed ``max_bytes``. What a killed process left is removed
    after an hour; files with a name in ``others`` stay.
    """

    def __init__(self, directory: Path, suffix: str, max_bytes: int, others: frozenset[str] = frozenset()) -> None:
        self.directory, self.suffix, self.max_bytes, self._others = directory, suffix, max_bytes, others

    def write(self, path: Path, content: bytes) -> None:
        """Write a file of the directory, then remove what is too much. Raises OSError."""
        with _complete_file(self.directory, content) as fresh:
            fresh.replace(path)
        self._evict()

    def _evict(self) -> None:
        files = []
        for path in self.directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                if path.suffix == self.suffix:
                    files.append((stat.st_mtime, stat.st_size, path))
                elif path.name not in self._others and time.time() - stat.st_mtime > _STALE_SECONDS:
                    path.unlink()
        excess = sum(size for _, size, _ in files) - self.max_bytes
        for _, size, path in sorted(files):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size


def write_once(path: Path, content: bytes) -> None:
    """Create a file with this content, unless another process was first: then its content stays. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _complete_file(path.parent, content, is_lasting=True) as fresh, contextlib.suppress(FileExistsError):
        os.link(fresh, path)  # unlike a rename, a link never replaces the file of another process


@contextlib.contextmanager
def _complete_file(directory: Path, content: bytes, *, is_lasting: bool = False) -> Iterator[Path]:
    """A new file (0600) with the whole content. It is removed afterwards if it still has its first name.

    ``is_lasting``: also after a power failure.
    """
    fresh = directory / f".{os.urandom(8).hex()}"
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(content)
            if is_lasting:
                out.flush()
                os.fsync(out.fileno())
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)
