"""Rows that a worker holds for a while: a claim takes a lease and raises the fence, every later write carries the
fence.

What scans and jobs have in common. Leases are moved by the database's clock only; a worker that lost its lease
changes nothing.
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

ATTEMPTS, LOSSES = 3, 5
GIVEN_UP = "given up: its workers vanished again and again"
ACTIVE = tuple(state.value for state in ScanState if not state.terminal)
_BACK_OFF = (10.0, 60.0, 300.0)
HANDED_BACK = {"reason": "handed_back", "message": "its worker was told to stop, and gave it back"}
_GRACE = 2.0  # a lease is given up a little later than it ends: the worker's own clock may lag


@dataclass(frozen=True)
class Leases:
    """One table of such rows: ``id``, ``state``, ``stage``, ``progress``, ``fence``, ``worker``, ``lease_until`` are
    its columns.
    """

    table: sa.Table

    def take(
        self, session: Connection, ready: sa.Select[Any], worker: str, seconds: float, **values: Any
    ) -> RowMapping | None:
        """Take the row that ``ready`` (one id, limited to 1) finds, unless another takes it at this moment.

        None: there is none.
        """
        columns = self.table.c
        chosen = ready.limit(1)
        if session.dialect.name != "sqlite":
            chosen = chosen.with_for_update(skip_locked=True)
        taken = session.execute(
            self.table.update()
            # "=", not IN: PostgreSQL may run a subquery of IN again for every row, and each run would lock and take one
            # more.
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
        """A write under the fence. Raises LeaseLost when the row is somebody else's by now."""
        columns = self.table.c
        held = sa.and_(columns.id == identifier, columns.fence == fence, columns.state == ScanState.RUNNING)
        if session.execute(self.table.update().where(held).values(**values)).rowcount != 1:
            raise LeaseLost("this belongs to another worker now")

    def renew(
        self, session: Connection, identifier: str, fence: int, seconds: float, progress: Progress | None = None
    ) -> None:
        """Keep the lease, and say how far it is. Raises LeaseLost: stop at once, and write nothing."""
        values: dict[str, Any] = {"lease_until": epoch(session) + seconds}
        if progress is not None:
            values |= {"stage": progress.stage, "progress": noted(progress)}
        self.write(session, identifier, fence, **values)

    def hand_back(self, session: Connection, identifier: str, fence: int, **values: Any) -> None:
        """Put it back into the queue, without fault, for another worker to take at once. Raises LeaseLost."""
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
        """It came to an end. Raises LeaseLost."""
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
        """Attempt number ``attempt`` failed in a way that may pass: another begins after a pause. Raises LeaseLost."""
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
        """End those that have not ended; raising the fence takes them from their workers.

        Returns id and fence of each.
        """
        values = {"state": ScanState.CANCELLED, "reason": reason, "message": message}
        return self._take_away(session, sa.and_(which, self.table.c.state.in_(ACTIVE)), True, values)

    def give_up(
        self, session: Connection, now: float, which: sa.ColumnElement[bool], reason: str, message: str
    ) -> Sequence[sa.Row[str, int]]:
        """End those that nothing else will end. Returns id and fence of each."""
        lost = sa.case((self.expired(now), 1), else_=0)
        values = {"state": ScanState.DEAD, "lost": self.table.c.lost + lost, "reason": reason, "message": message}
        return self._take_away(session, sa.and_(which, self.table.c.state.in_(ACTIVE)), True, values)

    def give_up_lost(self, session: Connection, now: float) -> Sequence[sa.Row[str, int]]:
        """End those that lose every worker. Returns id and fence of each."""
        often = sa.and_(self.expired(now), self.table.c.lost + 1 >= LOSSES)
        return self.give_up(session, now, often, "worker_lost", GIVEN_UP)

    def put_back(self, session: Connection, now: float, **values: Any) -> Sequence[sa.Row[str, int]]:
        """Into the queue with those whose worker vanished. Returns id and fence of each."""
        vanished = {"reason": "worker_lost", "message": "its worker vanished", "lost": self.table.c.lost + 1}
        queued = {"state": ScanState.QUEUED, "next_at": now}
        return self._take_away(session, self.expired(now), False, {**vanished, **queued, **values})

    def wake(self, session: Connection, now: float, **values: Any) -> list[str]:
        """Into the queue with those that have waited long enough. Returns their ids."""
        columns = self.table.c
        waited = sa.and_(columns.state == ScanState.RETRY_WAIT, columns.next_at <= now)
        woken = self.table.update().where(waited).values(state=ScanState.QUEUED, **values).returning(columns.id)
        return list(session.execute(woken).scalars())

    def _take_away(
        self, session: Connection, which: sa.ColumnElement[bool], ended: bool, values: Mapping[str, Any]
    ) -> Sequence[sa.Row[str, int]]:
        columns = self.table.c
        always: dict[str, Any] = {"fence": columns.fence + 1, "lease_until": None}
        if ended:
            always["finished_at"] = moment(session)
        taken = self.table.update().where(which).values(**always, **values).returning(columns.id, columns.fence)
        return session.execute(taken).all()

    def expired(self, now: float) -> sa.ColumnElement[bool]:
        return sa.and_(self.table.c.state == ScanState.RUNNING, self.table.c.lease_until < now - _GRACE)


def noted(progress: Progress) -> Mapping[str, Any]:
    """Progress as a row keeps it."""
    return {"message": progress.message[:300], "done": progress.done, "total": progress.total}


def pause(attempt: int, retry_after: float | None) -> float:
    """How long to wait before attempt ``attempt`` + 1, in seconds."""
    wait = max(_BACK_OFF[min(attempt - 1, len(_BACK_OFF) - 1)], min(retry_after or 0.0, 3600.0))
    return wait * random.uniform(0.8, 1.2)


def locked(session: Connection, key: int) -> bool:
    """Whether this transaction alone does something. On SQLite a writing transaction always is alone."""
    if session.dialect.name == "sqlite":
        return True
    return bool(session.execute(sa.select(sa.func.pg_try_advisory_xact_lock(key))).scalar_one())
