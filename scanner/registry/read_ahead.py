"""Reading a layer in three threads: one fetches and decompresses, one hashes and stores, and the caller examines.

Decompressing, hashing and writing release the interpreter's lock, so the three run at the same time. Between them are
channels of a few pieces, so a layer of any size needs the same memory.

The result is that of one thread after the other. A failure reaches the caller after all pieces before it, and never
gets lost: the caller ends normally only after the other two did.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

_T = TypeVar("_T")
_PIECES = 4  # in a channel; each has up to a megabyte


class _Channel:
    """Pieces on their way from one thread to another. Either side may close it."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._closed = False

    def put(self, piece: bytes) -> bool:
        """Append a piece, after waiting for room. False: nobody reads the channel any more."""
        with self._changed:
            while len(self._pieces) >= _PIECES and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._pieces.append(piece)
            self._changed.notify()
            return True

    def close(self) -> None:
        """End the channel. What it holds can still be read."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                while not self._pieces and not self._closed:
                    self._changed.wait()
                if not self._pieces:
                    return
                piece = self._pieces.popleft()
                self._changed.notify()
            yield piece


@contextmanager
def read_ahead(pieces: Iterator[bytes], also: Callable[[bytes], object]) -> Iterator[Iterator[bytes]]:
    """Yield the pieces, which a thread reads ahead. Another thread passes each of them to ``also``.

    When the block ends normally, ``also`` has seen every piece. What either of them raises is raised here. When the
    block ends, both threads have ended; one that waits for a slow source ends with its next piece.
    """
    examined, stored = _Channel(), _Channel()

    def read() -> bool:
        try:
            return all(examined.put(piece) and stored.put(piece) for piece in pieces)
        finally:
            examined.close()
            stored.close()

    def store() -> None:
        try:
            for piece in stored:
                also(piece)
        finally:
            stored.close()

    def finish() -> None:
        complete = reading.result()  # raises what the source raised
        storing.result()
        if not complete:
            raise RuntimeError("a layer was not read to its end")

    def examine() -> Iterator[bytes]:
        yield from examined
        if not reading.result():
            finish()

    with ThreadPoolExecutor(2, "layer") as threads:
        reading = start(threads, read)
        storing = start(threads, store)
        try:
            yield examine()
            examined.close()
            finish()
        finally:
            examined.close()
            stored.close()


def start(threads: ThreadPoolExecutor, work: Callable[[], _T]) -> Future[_T]:
    """Start work in a thread, in the context of the caller: traces belong to the same scan."""
    return threads.submit(contextvars.copy_context().run, work)
