"""Wait for a scan while its caller waits: limited in time and in the number of threads that wait."""

from __future__ import annotations

import time

from scanner.store import scans
from web.resources import resources
from web.security import shutdown_event

_FIRST_POLL, _LAST_POLL = 0.1, 1.0  # seconds: short at first, because many scans are answered from stored evidence


def wait_for_end(scan_id: str, seconds: float, projects: frozenset[str] | None) -> scans.ScanView:
    """Return the scan when it has ended; or as it is, when time is over, the process ends, or too many wait already."""
    ends, pause = time.monotonic() + seconds, _FIRST_POLL
    waiting = seconds > 0 and resources().waiters.acquire(blocking=False)
    try:
        while True:
            with resources().database.read() as session:
                scan = scans.get(session, scan_id, projects)
            if scan.state.terminal or not waiting or time.monotonic() + pause > ends or shutdown_event().wait(pause):
                return scan
            pause = min(pause * 1.5, _LAST_POLL)
    finally:
        if waiting:
            resources().waiters.release()
