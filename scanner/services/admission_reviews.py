"""Recording reviews of the admission webhook: in batches, beside the answers, so that no pod waits for it.

A review is noted within a second or two. What is lost with a process that is killed is a line on a page, never a
decision. Denials are also written to the audit log, equal ones of one batch in one entry.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import Counter, deque
from collections.abc import Mapping
from functools import partial
from typing import Any

from sqlalchemy.engine import Connection

from scanner.errors import ScannerError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.services.admissions import Answer, Outcome
from scanner.store import admissions, audit
from scanner.store.session import Database

_WAITING = 20_000
_BATCH = 500
_EVERY_SECONDS = 1.0
_AUDITED_IN_A_BATCH = 50


class Recorder:
    """Takes answers from any thread; one thread of its own writes them. Nothing is opened before the first answer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[tuple[Actor, Answer]] = deque(maxlen=_WAITING)
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._started = False
        self._stop = threading.Event()

    def note(self, actor: Actor, answer: Answer) -> None:
        """Remember an answer. A dry run leaves no trace, nor does what concerns no container."""
        if answer.review.dry_run or not answer.images:
            return
        self._waiting.append((actor, answer))
        with self._lock:
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="admission-reviews", daemon=True).start()
                atexit.register(self.close)

    def flush(self) -> None:
        """Write what waits."""
        with self._writing:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                try:
                    self._database.uncrossed(partial(_write, batch=batch))
                except ScannerError:
                    self._waiting.extendleft(reversed(batch))
                    raise

    def close(self) -> None:
        """Write what waits, for the last time."""
        self._stop.set()
        self._flush_or_tell()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_SECONDS):
            self._flush_or_tell()

    def _flush_or_tell(self) -> None:
        try:
            self.flush()
        except ScannerError as error:
            logging.getLogger(__name__).warning("reviews of admission cannot be recorded yet: %s", error)


def _write(session: Connection, batch: list[tuple[Actor, Answer]]) -> None:
    admissions.record(session, [_row(actor, answer) for actor, answer in batch])
    denied: Counter[tuple[Actor, str, str, str, str]] = Counter()
    for actor, answer in batch:
        if answer.outcome is Outcome.DENIED:
            review = answer.review
            what = f"{review.kind} {review.name or '(name to be generated)'}"
            denied[actor, what, review.namespace, review.user, answer.message[:300]] += 1
    for (actor, what, namespace, user, reason), count in denied.most_common(_AUDITED_IN_A_BATCH):
        detail = {"workload": what, "namespace": namespace, "asked_by": user, "reason": reason, "times": count}
        audit.record(session, actor, Action.ADMISSION_DENY, f"{namespace}/{what}", detail=detail)


def _row(actor: Actor, answer: Answer) -> Mapping[str, Any]:
    review = answer.review
    return {
        "token": actor.name,
        "user": review.user,
        "operation": review.operation,
        "kind": review.kind,
        "namespace": review.namespace,
        "name": review.name,
        "mode": str(answer.mode),
        "environment": answer.environment,
        "outcome": str(answer.outcome),
        "images": [dict(each) for each in answer.images[:20]],
        "message": answer.message,
    }
