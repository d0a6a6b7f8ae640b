"""Slots: numbered file locks. A process holds one per concurrent scan; each slot has its own engine caches."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAX_SLOTS = 1000  # files that are tried; more workers do not fit on one machine


@contextmanager
def claim_slot(directory: Path) -> Iterator[str]:
    """Yield the lowest free slot. The operating system releases the lock when the process ends, even if killed."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for number in range(_MAX_SLOTS):
        with (directory / f"{number}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield str(number)
            return
    raise RuntimeError(f"more than {_MAX_SLOTS} concurrent scans in {directory}")
