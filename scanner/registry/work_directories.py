"""Work directories: one for each piece of work, removed with it, and by the next process where its owner was killed.

A layout for an engine holds hard links to blobs: what a killed process left would pin them for ever. So every
directory and file here is locked by its owner. The lock ends with the process, however that ends, and whatever is
not locked belongs to nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanner.config import Settings


@contextmanager
def work_directory(settings: Settings, prefix: str) -> Iterator[Path]:
    """A new directory under ``settings.work_dir``, by its absolute path. It is gone after the block."""
    parent = _parent(settings)
    while True:
        work = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=parent))
        try:
            descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # swept away already
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if work.exists():  # else somebody swept it away between the two calls
                try:
                    yield work
                finally:
                    _remove(work)
                return
        finally:
            os.close(descriptor)


def sweep(settings: Settings) -> int:
    """Remove what killed processes left. Returns how many directories and files that were."""
    removed = 0
    with contextlib.suppress(FileNotFoundError):
        for path in settings.work_dir.iterdir():
            removed += _sweep_one(path)
    return removed


def _sweep_one(path: Path) -> bool:
    if path.is_symlink():
        path.unlink(missing_ok=True)
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:  # a directory that its owner made unreadable, or a socket: nobody holds it open for us to find
        _remove(path)
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        _remove(path)
        return True
    finally:
        os.close(descriptor)


def _parent(settings: Settings) -> Path:
    parent = settings.work_dir.absolute()
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return parent


def _remove(path: Path) -> None:
    """Everything below, whatever an engine did to its modes."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        for directory, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                Path(directory).chmod(0o700)
        shutil.rmtree(path, ignore_errors=True)
