"""Work directories: one for each task, removed when it ends, and by the next process if its owner was killed.

A layout for an engine contains hard links to blobs, so the leftovers of a killed process would keep them on disk for
ever. Every directory and file here is locked by its owner. The lock ends with the process, so an unlocked path has no
owner.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanner.config import Settings


@contextmanager
def work_directory(settings: Settings, prefix: str) -> Iterator[Path]:
    """Create a directory under ``settings.work_dir`` and yield its absolute path. It is removed after the block."""
    import tempfile

    parent = _parent(settings)
    while True:
        work = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=parent))
        try:
            descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # another process removed it already
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if work.exists():  # otherwise another process removed it between the two calls
                try:
                    yield work
                finally:
                    _remove(work)
                return
        finally:
            os.close(descriptor)


def sweep(settings: Settings) -> int:
    """Remove what killed processes left behind. Returns the number of directories and files removed."""
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
    except OSError:  # an unreadable directory or a socket: neither can be locked
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
    """Remove a tree, also if an engine removed the permissions of its directories."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    import shutil

    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        with contextlib.suppress(OSError):
            path.chmod(0o700)
        for directory, names, _ in os.walk(path):
            # Before the walk descends, because it passes over a directory that it cannot read. Never by a symbolic
            # link: that would change a directory elsewhere.
            for inner in (Path(directory, name) for name in names):
                with contextlib.suppress(OSError):
                    if not inner.is_symlink():
                        inner.chmod(0o700)
        shutil.rmtree(path, ignore_errors=True)
