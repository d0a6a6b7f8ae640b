"""The lane ``notify``: events become messages, and messages are sent, in threads of their own.

Nothing that scans or answers waits for a receiver, however slow. One thread routes and looks for work; some others
send, each for one channel at a time.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from scanner.config import Secret, Settings, secret_key
from scanner.errors import RemoteError
from scanner.services import notification_delivery
from scanner.store import channels
from scanner.store.session import Database

log = logging.getLogger(__name__)

_IDLE_SECONDS, _WATCH_SECONDS = 1.0, 60.0
_SENDERS = 4  # threads: one slow receiver must not hold up the other channels
_NICENESS = 10  # a tenth of the processor time of a thread that answers or scans, where both want it


@dataclass
class Notifier:
    """Routes and sends notifications until ``stopped`` returns true. ``name`` is the worker's."""

    settings: Settings
    database: Database
    name: str
    stopped: Callable[[], bool]
    _wake: threading.Condition = field(default_factory=threading.Condition)
    _rounds: int = 0

    def threads(self) -> list[threading.Thread]:
        """The threads, not started."""
        senders = [threading.Thread(target=self._send, name=f"notify-{n}", daemon=True) for n in range(_SENDERS)]
        return [threading.Thread(target=self._route, name="notify-route", daemon=True), *senders]

    def _route(self) -> None:
        _give_way()
        watched = float("-inf")
        while not self.stopped():
            began = time.monotonic()
            try:
                if time.monotonic() - watched > _WATCH_SECONDS:
                    watched = time.monotonic()
                    notification_delivery.watch(self.database, self.settings)
                routed = notification_delivery.route(self.database)
                with self.database.read() as session:
                    due = channels.any_due(session)
            except RemoteError as error:
                log.warning("cannot route notifications: %s", error)
                routed, due = 0, False
            except Exception:
                # The boundary of a lane: one that ended here would be missing, unseen, until the process starts again.
                log.exception("routing notifications broke")
                routed, due = 0, False
            if due:
                self._tell()
            # In a burst, others get their turn for as long as a batch took. SQLite's write lock goes to the one that
            # asks at the right moment, which was nearly always this thread; senders, webhooks and scans want it too.
            time.sleep(min(time.monotonic() - began, _IDLE_SECONDS) if routed else _IDLE_SECONDS)

    def _tell(self) -> None:
        with self._wake:
            self._rounds += 1
            self._wake.notify_all()

    def _send(self) -> None:
        _give_way()
        key, seen = secret_key(self.settings), 0
        while not self.stopped():
            seen, former = self._wait(seen), seen
            if seen == former:
                continue
            try:
                while not self.stopped() and self._deliver(key):
                    pass
            except RemoteError as error:
                log.warning("cannot send notifications: %s", error)
            except Exception:
                log.exception("sending notifications broke")  # as in _route

    def _wait(self, seen: int) -> int:
        """Until something is due, or a little while."""
        with self._wake:
            self._wake.wait_for(lambda: self._rounds != seen, _IDLE_SECONDS)
            return self._rounds

    def _deliver(self, key: Secret) -> bool:
        """Send what is due on one channel. False: there is none."""
        tried = notification_delivery.deliver(self.database, self.settings, key, self.name, self.stopped)
        return tried is not None


def _give_way() -> None:
    """Lower the priority of this thread: a burst of messages takes a whole processor, and the gate may need it."""
    if sys.platform == "linux":  # elsewhere this is the priority of the whole process
        os.nice(_NICENESS)
