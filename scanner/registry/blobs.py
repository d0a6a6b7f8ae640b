"""The blob store: bytes by digest under one directory, shared by engines and checks, bounded in size.

A blob appears under its name only after every byte was written, synced and found to be what the name says. The least
recently used go first; what a running scan has pinned stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from scanner.errors import ImageError, LimitExceeded
from scanner.model.reference import Digest

_STALE_SECONDS = 24 * 3600


class BlobWriter:
    """Collects bytes, hashing as they come. Raises LimitExceeded as soon as they are more than was allowed."""

    def __init__(self, file: BinaryIO, algorithm: str, limit: int) -> None:
        self._file, self._hash, self._limit = file, hashlib.new(algorithm), limit
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        self.size += len(data)
        if self.size > self._limit:
            raise LimitExceeded(f"more than the {self._limit} bytes that were announced or allowed")
        self._hash.update(data)
        return self._file.write(data)

    @property
    def hex(self) -> str:
        return self._hash.hexdigest()


class BlobStore:
    """``directory/<algorithm>/<hex>``, files of mode 0600. Safe for several processes on one machine."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory, self.max_bytes = directory, max_bytes
        for name in ("sha256", "sha512", "partial", "pins"):
            (directory / name).mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self.directory / digest.algorithm / digest.hex

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here; if so it counts as used now."""
        try:
            os.utime(self.path(digest))
        except FileNotFoundError:
            return False
        return True

    def open(self, digest: Digest) -> BinaryIO:
        """The blob's bytes. Raises KeyError when it is not here."""
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise KeyError(digest) from None

    @contextmanager
    def writer(self, digest: Digest, limit: int) -> Iterator[BlobWriter]:
        """Write a blob. On leaving without an error its digest is checked and it appears, atomically; otherwise nothing does.

        Raises ImageError(reason="digest_mismatch") for other bytes than ``digest`` names, LimitExceeded beyond ``limit``.
        """
        partial = self.directory / "partial" / secrets.token_hex(16)
        try:
            with partial.open("xb") as file:
                os.fchmod(file.fileno(), 0o600)
                writer = BlobWriter(file, digest.algorithm, limit)
                yield writer
                if writer.hex != digest.hex:
                    raise ImageError(f"the bytes received are not those of {digest}", reason="digest_mismatch")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path(digest))
        finally:
            partial.unlink(missing_ok=True)

    def put(self, data: bytes) -> Digest:
        """Store bytes we have in hand."""
        digest = Digest.of(data)
        if not self.has(digest):
            with self.writer(digest, len(data)) as writer:
                writer.write(data)
        return digest

    @contextmanager
    def pin(self, digests: Iterable[Digest]) -> Iterator[None]:
        """Keep these from being evicted while the block runs. The pin is a locked file: it ends with the process, however that ends."""
        name = self.directory / "pins" / secrets.token_hex(16)
        with name.open("x") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write("\n".join(digests))
            file.flush()
            try:
                yield
            finally:
                name.unlink(missing_ok=True)
        self.evict()

    def evict(self) -> int:
        """Remove the least recently used blobs until the store fits its bound. Returns the bytes freed."""
        pinned = self._pinned()
        self._sweep_partials()
        files = []
        for path in (*(self.directory / "sha256").iterdir(), *(self.directory / "sha512").iterdir()):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                files.append((stat.st_mtime, stat.st_size, path))
        excess = sum(size for _, size, _ in files) - self.max_bytes
        freed = 0
        for _, size, path in sorted(files):
            if freed >= excess:
                break
            if f"{path.parent.name}:{path.name}" not in pinned:
                path.unlink(missing_ok=True)
                freed += size
        return freed

    def _pinned(self) -> set[str]:
        """Digests that a living process holds; pins of dead ones are removed."""
        pinned: set[str] = set()
        for path in (self.directory / "pins").iterdir():
            with contextlib.suppress(FileNotFoundError), path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    pinned.update(file.read().split())
                else:
                    # A pin that its owner has made but not locked yet is younger than a second.
                    if time.time() - os.fstat(file.fileno()).st_mtime > 1:
                        path.unlink(missing_ok=True)
        return pinned

    def _sweep_partials(self) -> None:
        for path in (self.directory / "partial").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
