"""Rows that a worker holds for a while: a claim takes a lease and raises the fence, every later write carries the fence.

What scans and jobs have in common. Leases are moved by the database's clock only; a worker that lost its lease changes nothing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from scanner.errors import LeaseLost
from scanner.model.scan import Progress, ScanState
from scanner.store.session import epoch, moment

ATTEMPTS, LOSSES = 3, 5
_BACK_OFF = (10.0, 60.0, 300.0)
HANDED_BACK = {"reason": "handed_back", "message": "its worker was told to stop, and gave it back"}
_GRACE = 2.0  # a lease is given up a little later than it ends: the worker's own clock may lag


@dataclass(frozen=True)
class Leases:
    """One table of such rows: ``id``, ``state``, ``stage``, ``progress``, ``fence``, ``worker``, ``lease_until`` are its columns."""

    table: sa.Table

    def take(
        self, session: Connection, ready: sa.Select[Any], worker: str, seconds: float, **values: Any
    ) -> RowMapping | None:
        """Take the row that ``ready`` (one id, limited to 1) finds, unless another takes it at this moment. None: there is none."""
        columns = self.table.c
        chosen = ready.limit(1)
        if session.dialect.name != "sqlite":
            chosen = chosen.with_for_update(skip_locked=True)
        taken = session.execute(
            self.table.update()
            # "=", not IN: PostgreSQL may run a subquery of IN again for every row, and each run would lock and take one more.
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
