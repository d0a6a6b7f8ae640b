"""The blob store: blobs by digest in one directory, shared by engines and checks, bounded in size.

A blob gets its name only after all bytes were written, synced and verified. The least recently used blobs are removed
first; blobs that a running scan has pinned stay.

A command that ends with its scan does not wait for the disk: its blobs go to a directory that is named after the boot
of the machine. As long as it runs, they are what was written. Whether they reached the disk is asked when another scan
wants one; after a crash of the machine nobody looks there any more.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from scanner.errors import ImageError, LimitExceeded, ScannerError
from scanner.model.reference import Digest

_BUFFER = 256 << 10  # bytes that are written at once: an excerpt is thousands of small pieces
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BlobWriter:
    """Collects and hashes the bytes of one blob. Raises LimitExceeded as soon as they exceed the limit."""

    def __init__(self, file: BinaryIO, digest: Digest, limit: int, *, verify: bool, sync: bool) -> None:
        self._file, self._digest, self._limit, self._sync = file, digest, limit, sync
        self._hash = hashlib.new(digest.algorithm) if verify else None
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        self.size += len(data)
        if self.size > self._limit:
            raise LimitExceeded(f"the blob is larger than the {self._limit} bytes that were declared or allowed")
        if self._hash is not None:
            self._hash.update(data)
        return self._file.write(data)

    def finish(self) -> None:
        """Compare the digest, and sync the bytes to disk if asked. Raises ImageError(reason="digest_mismatch")."""
        if self._hash is not None and self._hash.hexdigest() != self._digest.hex:
            raise ImageError(f"the received bytes do not match {self._digest}", reason="digest_mismatch")
        self._file.flush()
        if self._sync:
            os.fsync(self._file.fileno())


class BlobStore:
    """Files ``directory/<algorithm>/<hex>`` of mode 0600. Safe for several processes on one machine.

    ``lasting``: what is written survives a crash of the machine.
    """

    def __init__(self, directory: Path, max_bytes: int, *, lasting: bool = True) -> None:
        self.directory, self.max_bytes = directory, max_bytes
        boot = boot_of_machine()
        self._unsynced = directory / "unsynced" / boot if boot else None
        self._lasting = lasting or self._unsynced is None
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("sha256", "sha512", "partial", "pins"):
            (directory / name).mkdir(exist_ok=True, mode=0o700)

    def path(self, digest: Digest) -> Path:
        """Path of the blob, whether it exists or not."""
        lasting = self._lasting_path(digest)
        unsynced = self._unsynced_path(digest)
        return unsynced if unsynced and not lasting.exists() and unsynced.exists() else lasting

    def _place(self, digest: Digest) -> Path:
        """Where a new blob goes."""
        unsynced = None if self._lasting else self._unsynced_path(digest)
        if unsynced is None:
            return self._lasting_path(digest)
        for directory in (unsynced.parents[2], unsynced.parents[1], unsynced.parent):
            directory.mkdir(exist_ok=True, mode=0o700)
        return unsynced

    def _lasting_path(self, digest: Digest) -> Path:
        return self.directory / digest.algorithm / digest.hex

    def _unsynced_path(self, digest: Digest) -> Path | None:
        return self._unsynced / digest.algorithm / digest.hex if self._unsynced else None

    def has(self, digest: Digest) -> bool:
        """True if the blob exists, on disk. It then counts as used now."""
        for _ in range(2):
            try:
                os.utime(self._lasting_path(digest))
            except FileNotFoundError:
                if not self._sync(digest):
                    return False
            else:
                return True
        return False

    def _sync(self, digest: Digest) -> bool:
        """Make a blob of this boot a lasting one. False if there is none, or if it could not be written to disk."""
        unsynced = self._unsynced_path(digest)
        if unsynced is None:
            return False
        try:
            with unsynced.open("rb") as file:
                os.fsync(file.fileno())  # also reports writes that failed before
        except FileNotFoundError:
            return False
        except OSError:
            unsynced.unlink(missing_ok=True)
            return False
        # A second name, not a new one: a scan that is using the first one may be about to link it. Eviction removes it.
        with contextlib.suppress(FileExistsError):
            os.link(unsynced, self._lasting_path(digest))
        return True

    def open(self, digest: Digest) -> BinaryIO:
        """Open the blob. Raises KeyError if it does not exist."""
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise KeyError(digest) from None

    @contextmanager
    def writer(self, digest: Digest, limit: int, *, verified_by_caller: bool = False) -> Iterator[BlobWriter]:
        """Write a blob. It appears atomically if the block succeeds and the digest matches; otherwise nothing appears.

        ``verified_by_caller``: the block itself compares the digest and raises on a mismatch (hashing 40 GiB twice
        takes a minute). Raises ImageError(reason="digest_mismatch"), LimitExceeded beyond ``limit`` bytes,
        ScannerError(reason="storage_full").
        """
        partial = self.directory / "partial" / os.urandom(16).hex()
        try:
            with _open_locked(partial) as file:
                writer = BlobWriter(file, digest, limit, verify=not verified_by_caller, sync=self._lasting)
                yield writer
                writer.finish()
                partial.replace(self._place(digest))
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise ScannerError(
                f"the blob store is full: {error.strerror}",
                reason="storage_full",
                retryable=True,
                hint=f"free disk space for {self.directory}, or lower DOCKWARDEN_BLOB_STORE_BYTES",
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def put(self, data: bytes) -> Digest:
        """Store bytes in memory as a blob and return their digest."""
        digest = Digest.of(data)
        if not self.has(digest):
            with self.writer(digest, len(data), verified_by_caller=True) as writer:
                writer.write(data)
        return digest

    @contextmanager
    def pin(self, digests: Iterable[Digest]) -> Iterator[None]:
        """Protect these blobs from eviction while the block runs.

        The pin is a locked file, so it ends with the process even if that is killed.
        """
        name = os.urandom(16).hex()
        partial, pin = self.directory / "partial" / name, self.directory / "pins" / name
        try:
            with _open_locked(partial) as file:
                file.write("\n".join(digests).encode())
                file.flush()
                # A running eviction has not seen the pin: wait until it ends. After the rename, every eviction sees a
                # complete and
                # locked pin.
                with self._lock(fcntl.LOCK_SH):
                    partial.replace(pin)
                yield
        finally:
            partial.unlink(missing_ok=True)
            pin.unlink(missing_ok=True)
            self.evict()

    def evict(self) -> int:
        """Remove the least recently used blobs until the store fits its limit, and files of dead processes.

        Returns the number of bytes freed.
        """
        with self._lock(fcntl.LOCK_EX):
            for path in (self.directory / "partial").iterdir():
                _is_alive(path)
            pinned = self._pinned_digests()
            files = []
            for path in self._blobs(pinned):
                with contextlib.suppress(FileNotFoundError):
                    stat = path.stat()
                    files.append((stat.st_mtime, stat.st_size, path))
            excess = sum(size for _, size, _ in files) - self.max_bytes
            freed = 0
            for _, size, path in sorted(files):
                if freed >= excess:
                    break
                if _name(path) not in pinned:
                    path.unlink(missing_ok=True)
                    freed += size
            return freed

    def remove_unused(self, before: float, *, dry_run: bool = False) -> int:
        """Remove blobs that were last used before ``before`` (seconds since 1970).

        Returns the bytes freed, or to be freed.
        """
        freed = 0
        with self._lock(fcntl.LOCK_EX):
            pinned = self._pinned_digests()
            for path in self._blobs(pinned):
                with contextlib.suppress(FileNotFoundError):
                    found = path.stat()
                    if found.st_mtime >= before or _name(path) in pinned:
                        continue
                    if not dry_run:
                        path.unlink()
                    freed += found.st_size
        return freed

    def _blobs(self, pinned: set[str]) -> Iterator[Path]:
        """Yield every blob once. Blobs that another boot left are removed, and names of what has a lasting one."""
        for algorithm in ("sha256", "sha512"):
            yield from (self.directory / algorithm).iterdir()
        for boot in _entries(self.directory / "unsynced"):
            for path in (*_entries(boot / "sha256"), *_entries(boot / "sha512")):
                if (self.directory / path.parent.name / path.name).exists() or boot != self._unsynced:
                    # Pinned in spite of another boot: by another machine that shares the directory.
                    if _name(path) not in pinned:
                        path.unlink(missing_ok=True)
                else:
                    yield path
            if boot != self._unsynced:
                for directory in (boot / "sha256", boot / "sha512", boot):
                    with contextlib.suppress(OSError):  # not empty
                        directory.rmdir()

    def _pinned_digests(self) -> set[str]:
        """Digests that a running process has pinned."""
        pinned: set[str] = set()
        for path in (self.directory / "pins").iterdir():
            if _is_alive(path):
                with contextlib.suppress(FileNotFoundError):  # the process ended in the meantime
                    pinned.update(path.read_text("ascii").split())
        return pinned

    @contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        with (self.directory / ".lock").open("a") as file:
            fcntl.flock(file, kind)
            yield


@contextmanager
def _open_locked(path: Path) -> Iterator[BinaryIO]:
    """Create a file of mode 0600 that is locked while it is open: the lock proves that its creator is alive."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb", _BUFFER) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:  # 0 links: an eviction removed it between the two calls
                yield file
                return


def boot_of_machine() -> str:
    """Identify the running boot of the machine; empty where there is no such name, as outside Linux."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
    return name if re.fullmatch(r"[0-9a-f-]{36}", name) else ""


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _name(path: Path) -> str:
    """The digest of a blob by its path."""
    return f"{path.parent.name}:{path.name}"


def _is_alive(path: Path) -> bool:
    """True if the creator of a locked file is alive. The file of a dead one is removed."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        path.unlink(missing_ok=True)
    return False
