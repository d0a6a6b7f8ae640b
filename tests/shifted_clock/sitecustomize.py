"""Loaded by every Python process of a run with a shifted clock (``tests/shifted_clock/run``), before anything else.

libfaketime shifts the wall clock alone there: with a shifted monotonic clock, waits with a timeout would last as
long as the shift. Python sleeps until a moment of the monotonic clock, which libfaketime then computes wrongly, so
that sleeping is done by ``select``.
"""

import select
import time


def _sleep(seconds: float) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], seconds)


time.sleep = _sleep
