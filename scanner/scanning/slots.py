"""Slots: numbered places of work, each held by one process at a time.

An engine's cache directory belongs to one slot.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAX_SLOTS = 1000


@contextmanager
def claim_slot(directory: Path) -> Iterator[str]:
    """The lowest slot nobody holds. The lock ends with the process, however that ends."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for number in range(_MAX_SLOTS):
        with (directory / f"{number}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield str(number)
            return
    raise RuntimeError(f"more than {_MAX_SLOTS} scans at once in {directory}")
