"""Files that a user names, or that lie where others may write.

Such a path may be a pipe without a writer, a device that never ends or a directory. Read everywhere here, so that no
command waits for ever or fills the memory.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from pathlib import Path
from typing import BinaryIO

from scanner.errors import UsageError

_CHUNK = 1 << 20
_WAIT_SECONDS = 60.0  # for the next bytes of a pipe: ``<(helm template …)`` may need a while


def read_whole(path: Path, limit: int, what: str = "", *, reason: str | None = None) -> bytes:
    """Read a file, pipe or device of at most ``limit`` bytes.

    ``what`` stands before the path in messages ("the policy"). Raises UsageError for a directory, for more bytes than
    ``limit``, for a pipe to which nobody writes, and with the system's message for what cannot be opened.
    """
    name = f"{what} {path}" if what else str(path)
    try:
        # Without O_NONBLOCK, opening a pipe waits for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _unreadable(name, error, reason) from error
    try:
        state = os.fstat(descriptor)
        if stat.S_ISDIR(state.st_mode):
            raise _unreadable(name, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)), reason)
        return _all(descriptor, state, limit, name, reason)
    except OSError as error:
        raise _unreadable(name, error, reason) from error
    finally:
        os.close(descriptor)


def _all(descriptor: int, state: os.stat_result, limit: int, name: str, reason: str | None) -> bytes:
    too_large = UsageError(f"{name} is larger than {_size(limit)}", reason=reason)
    if stat.S_ISREG(state.st_mode) and state.st_size > limit:
        raise too_large
    found, ends = bytearray(), time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            chunk = os.read(descriptor, min(_CHUNK, limit + 1 - len(found)))
        except BlockingIOError:  # a pipe with a writer, but without data yet
            chunk = None
        if chunk:
            found += chunk
            ends = time.monotonic() + _WAIT_SECONDS
            if len(found) > limit:
                raise too_large
        elif chunk is not None and (found or not stat.S_ISFIFO(state.st_mode)):
            return bytes(found)
        elif time.monotonic() >= ends:
            raise UsageError(f"{name}: nothing was written to this pipe", reason=reason)
        elif chunk is None:
            select.select([descriptor], [], [], max(0.0, ends - time.monotonic()))
        else:  # the writer of a named pipe may not have opened it yet
            time.sleep(0.05)


def open_regular(path: Path, what: str = "", *, reason: str | None = None) -> BinaryIO:
    """Open a regular file, for reading at any place. Raises UsageError for a pipe or device, and OSError as ``open``
    does."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        name = f"{what} {path}" if what else str(path)
        raise UsageError(f"{name} is not a regular file", reason=reason, hint="name a file, not a pipe or device")
    return os.fdopen(descriptor, "rb")


def _unreadable(name: str, error: Exception, reason: str | None) -> UsageError:
    return UsageError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}", reason=reason)


def _size(limit: int) -> str:
    return f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
