"""Leases on rows of the queue, for scans and jobs.

A claim sets the lease's end and increments the fence. Every later write must match the fence, so a worker that was
paused beyond its lease cannot overwrite the work of its successor. Only the database's clock is used: clocks of workers
may differ.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from scanner.errors import LeaseLost
from scanner.model.scan import Progress, ScanState
from scanner.store.session import epoch, moment

# Tries that failed, and workers that died: an image that kills its worker must stop coming back.
ATTEMPTS, LOSSES = 3, 5
GIVEN_UP = "given up: its workers died repeatedly"
ACTIVE = tuple(state.value for state in ScanState if not state.terminal)
_BACK_OFF = (10.0, 60.0, 300.0)  # seconds before the next attempt
HANDED_BACK = {"reason": "handed_back", "message": "returned by a worker that shut down"}
_GRACE = 2.0  # seconds after its end before a lease is taken, because renewals may be delayed
_MOST_RETRY_AFTER = 3600.0  # seconds: a scan must not wait for years because a registry's header says so
LONGEST_PAUSE = _MOST_RETRY_AFTER * 1.2  # seconds, with the jitter
# Seconds. A lease that lasts longer was written before the clock was set back. A longer DOCKWARDEN_LEASE_SECONDS is cut
# to this as well, which its worker does not notice: heartbeats are much more frequent.
_LONGEST_LEASE = 900.0


@dataclass(frozen=True)
class Leases:
    """A table with leases: its columns include ``id``, ``state``, ``stage``, ``progress``, ``fence``,
    ``lease_until``.
    """

    table: sa.Table

    def take(
        self, session: Connection, ready: sa.Select[Any], worker: str, seconds: float, **values: Any
    ) -> RowMapping | None:
        """Claim the first row that ``ready`` (a query of ids) finds.

        None: there is none, or another worker claimed it.
        """
        columns = self.table.c
        chosen = ready.limit(1)
        if session.dialect.name != "sqlite":
            chosen = chosen.with_for_update(skip_locked=True)
        taken = session.execute(
            self.table.update()
            # "=", not IN: PostgreSQL may evaluate the subquery of IN for every row, and each evaluation would lock
            # another.
            .where(columns.id == chosen.scalar_subquery(), columns.state == ScanState.QUEUED)
            .values(
                state=ScanState.RUNNING,
                fence=columns.fence + 1,
                worker=worker,
                lease_until=epoch(session) + seconds,
                started_at=sa.func.coalesce(columns.started_at, moment(session)),
                progress=None,
                reason="",
                message="",
                **values,
            )
            .returning(*columns)
        ).first()
        return taken._mapping if taken else None

    def write(self, session: Connection, identifier: str, fence: int, **values: Any) -> None:
        """Update a claimed row. Raises LeaseLost if the fence does not match."""
        columns = self.table.c
        held = sa.and_(columns.id == identifier, columns.fence == fence, columns.state == ScanState.RUNNING)
        if session.execute(self.table.update().where(held).values(**values)).rowcount != 1:
            raise LeaseLost("another worker has taken over")

    def renew(
        self, session: Connection, identifier: str, fence: int, seconds: float, progress: Progress | None = None
    ) -> None:
        """Renew the lease and record the progress. Raises LeaseLost: stop at once and write nothing."""
        values: dict[str, Any] = {"lease_until": epoch(session) + seconds}
        if progress is not None:
            values |= {"stage": progress.stage, "progress": progress_json(progress)}
        self.write(session, identifier, fence, **values)

    def hand_back(self, session: Connection, identifier: str, fence: int, **values: Any) -> None:
        """Return a row to the queue without counting an attempt. Raises LeaseLost."""
        now = epoch(session)
        self.write(
            session, identifier, fence, state=ScanState.QUEUED, lease_until=None, next_at=now, **HANDED_BACK, **values
        )

    def end(
        self,
        session: Connection,
        identifier: str,
        fence: int,
        state: ScanState,
        reason: str,
        message: str,
        **values: Any,
    ) -> None:
        """Set a terminal state. Raises LeaseLost."""
        self.write(
            session,
            identifier,
            fence,
            state=state,
            reason=reason,
            message=message[:1000],
            lease_until=None,
            finished_at=moment(session),
            **values,
        )

    def wait(
        self,
        session: Connection,
        identifier: str,
        fence: int,
        attempt: int,
        reason: str,
        message: str,
        retry_after: float | None,
        **values: Any,
    ) -> None:
        """Record that ``attempt`` failed temporarily and schedule the next one. Raises LeaseLost."""
        self.write(
            session,
            identifier,
            fence,
            state=ScanState.RETRY_WAIT,
            attempt=attempt,
            next_at=epoch(session) + pause(attempt, retry_after),
            lease_until=None,
            reason=reason,
            message=message[:1000],
            **values,
        )

    def cancel(
        self, session: Connection, which: sa.ColumnElement[bool], reason: str, message: str
    ) -> Sequence[sa.Row[str, int]]:
        """Cancel unfinished rows and take them from their workers. Returns id and fence of each."""
        values = {"state": ScanState.CANCELLED, "reason": reason, "message": message}
        return self._take_away(session, sa.and_(which, self.table.c.state.in_(ACTIVE)), True, values)

    def give_up(
        self, session: Connection, now: float, which: sa.ColumnElement[bool], reason: str, message: str
    ) -> Sequence[sa.Row[str, int]]:
        """End unfinished rows as dead. Returns id and fence of each."""
        # A row can be given up for its age while its worker lives. Only an expired lease is counted as a lost worker.
        lost = sa.case((self.expired(now), 1), else_=0)
        values = {"state": ScanState.DEAD, "lost": self.table.c.lost + lost, "reason": reason, "message": message}
        return self._take_away(session, sa.and_(which, self.table.c.state.in_(ACTIVE)), True, values)

    def give_up_lost(self, session: Connection, now: float) -> Sequence[sa.Row[str, int]]:
        """End rows that lost `LOSSES` workers: they probably crash them. Returns id and fence of each."""
        often = sa.and_(self.expired(now), self.table.c.lost + 1 >= LOSSES)
        return self.give_up(session, now, often, "worker_lost", GIVEN_UP)

    def put_back(self, session: Connection, now: float, **values: Any) -> Sequence[sa.Row[str, int]]:
        """Requeue rows whose worker died. Returns id and fence of each."""
        vanished = {"reason": "worker_lost", "message": "its worker died", "lost": self.table.c.lost + 1}
        queued = {"state": ScanState.QUEUED, "next_at": now}
        return self._take_away(session, self.expired(now), False, {**vanished, **queued, **values})

    def wake(self, session: Connection, now: float, **values: Any) -> list[str]:
        """Queue rows whose retry is due. Returns their ids."""
        columns = self.table.c
        waited = sa.and_(columns.state == ScanState.RETRY_WAIT, columns.next_at <= now)
        woken = self.table.update().where(waited).values(state=ScanState.QUEUED, **values).returning(columns.id)
        return list(session.execute(woken).scalars())

    def mend_times(self, session: Connection, now: float, longest_wait: float) -> None:
        """Correct times that only a clock which was set back since explains.

        Otherwise a row would wait, and a dead worker keep its lease, for as long as the clock was set back.
        ``longest_wait``: seconds that a queued row may have to wait.
        """
        columns = self.table.c
        for state, longest in ((ScanState.QUEUED, longest_wait), (ScanState.RETRY_WAIT, LONGEST_PAUSE)):
            too_far = sa.and_(columns.state == state, columns.next_at > now + longest)
            session.execute(self.table.update().where(too_far).values(next_at=now))
        # Not ended at once: a living worker renews it.
        too_long = sa.and_(columns.state == ScanState.RUNNING, columns.lease_until > now + _LONGEST_LEASE)
        session.execute(self.table.update().where(too_long).values(lease_until=now + _LONGEST_LEASE))

    def _take_away(
        self, session: Connection, which: sa.ColumnElement[bool], ended: bool, values: Mapping[str, Any]
    ) -> Sequence[sa.Row[str, int]]:
        columns = self.table.c
        # The new fence is what stops the former worker: it may still run, and every later write of it must fail.
        always: dict[str, Any] = {"fence": columns.fence + 1, "lease_until": None}
        if ended:
            always["finished_at"] = moment(session)
        taken = self.table.update().where(which).values(**always, **values).returning(columns.id, columns.fence)
        return session.execute(taken).all()

    def expired(self, now: float) -> sa.ColumnElement[bool]:
        return sa.and_(self.table.c.state == ScanState.RUNNING, self.table.c.lease_until < now - _GRACE)


def progress_json(progress: Progress) -> Mapping[str, Any]:
    """Return the progress as JSON values for a row."""
    return {"message": progress.message[:300], "done": progress.done, "total": progress.total}


def pause(attempt: int, retry_after: float | None) -> float:
    """Return the seconds to wait before attempt ``attempt`` + 1, with jitter so that retries do not coincide."""
    # A registry's Retry-After is hostile input.
    wait = max(_BACK_OFF[min(attempt - 1, len(_BACK_OFF) - 1)], min(retry_after or 0.0, _MOST_RETRY_AFTER))
    return wait * random.uniform(0.8, 1.2)


def try_lock(session: Connection, key: int) -> bool:
    """Try to take an advisory lock until the end of the transaction. Always True on SQLite, which has one writer."""
    if session.dialect.name == "sqlite":
        return True
    return bool(session.execute(sa.select(sa.func.pg_try_advisory_xact_lock(key))).scalar_one())
