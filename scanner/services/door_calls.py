"""Records the calls of doors (see `doors`) in batches, on a thread of its own, so that no pod and no pull waits for it.

A call is written within two seconds. If the process is killed, lines of the page Enforcement are lost, but no
decision. Denials are also written to the audit log; equal denials of one batch share one entry.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from sqlalchemy.engine import Connection

from scanner.errors import ScannerError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.store import admissions, audit
from scanner.store.session import Database

# If the database is down, the oldest calls are dropped: memory must not grow without limit.
_WAITING = 20_000
# Rows of one transaction.
_BATCH = 500
_EVERY_SECONDS = 1.0  # calls are written together: one transaction for each would slow the answers
# Clients retry a denied request many times a minute. The limit keeps one workload from flooding the audit log.
_AUDITED_IN_A_BATCH = 50


@dataclass(frozen=True)
class Call:
    """One request to an enforcement point and its outcome, for the page Enforcement.

    ``door``: ``kubernetes``, ``registry``, ``docker`` or ``harbor``. ``namespace``: the namespace, registry or host.
    Calls with the ``outcome`` ``denied`` are also written to the audit log.
    """

    door: str
    user: str
    operation: str  # such as CREATE or pull
    kind: str
    namespace: str
    name: str
    mode: str  # whether a denial was enforced
    environment: str
    outcome: str
    images: tuple[Mapping[str, str], ...]  # container, image and what was decided
    message: str


class Recorder:
    """Queues calls from any thread and writes them on its own thread, which the first call starts."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[tuple[Actor, Call]] = deque(maxlen=_WAITING)
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._started = False
        self._stop = threading.Event()

    def note(self, actor: Actor, call: Call | None) -> None:
        """Queue a call. None is ignored."""
        if call is None:
            return
        self._waiting.append((actor, call))
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="door-calls", daemon=True).start()
                # The thread is a daemon and ends with the process. This writes what it has not written yet.
                atexit.register(self.close)

    def flush(self) -> None:
        """Write all queued calls. Raises ScannerError if the database refuses; the batch stays queued."""
        with self._writing:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                try:
                    self._database.uncrossed(partial(_write, batch=batch))
                except ScannerError:
                    # Back to the front, in the old order, so that the page lists calls in the order in which they
                    # were made.
                    self._waiting.extendleft(reversed(batch))
                    raise

    def close(self) -> None:
        """Stop the thread and write all queued calls."""
        self._stop.set()
        self._flush_or_log()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_SECONDS):
            self._flush_or_log()

    def _flush_or_log(self) -> None:
        try:
            self.flush()
        except ScannerError as error:
            logging.getLogger(__name__).warning("enforcement calls cannot be recorded yet: %s", error)


def _write(session: Connection, batch: list[tuple[Actor, Call]]) -> None:
    admissions.record(session, [_row(actor, call) for actor, call in batch])
    denied: Counter[tuple[Actor, Call]] = Counter()
    for actor, call in batch:
        if call.outcome == "denied":
            # Without the images, retries of one workload are equal even if its tag was moved between them.
            denied[actor, replace(call, images=(), message=call.message[:300])] += 1
    for (actor, call), count in denied.most_common(_AUDITED_IN_A_BATCH):
        what = f"{call.kind} {call.name or '(name to be generated)'}"
        detail: dict[str, Any] = {
            "door": call.door,
            "workload": what,
            "namespace": call.namespace,
            "asked_by": call.user,
        }
        detail |= {"reason": call.message, "times": count}
        action = Action.PULL_DENY if call.door == "registry" else Action.ADMISSION_DENY
        audit.record(session, actor, action, f"{call.namespace}/{what}", detail=detail)


def _row(actor: Actor, call: Call) -> Mapping[str, Any]:
    return asdict(call) | {"token": actor.name, "images": [dict(each) for each in call.images[:20]]}
