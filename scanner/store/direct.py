"""Queries that bypass SQLAlchemy, for the few paths whose cost is mostly its own (benchmarks/gate.py, webhooks.py)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from scanner.store.session import Database


class Direct:
    """Runs statements on one driver connection per thread in autocommit: no pool, no BEGIN and ROLLBACK around them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._own = threading.local()

    def one(self, statements: Mapping[str, str], values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the first row of a SELECT, which is given by dialect.

        Raises RemoteError if a second attempt on a new connection fails, too, with a reason as ``Database.session``.
        """
        dialect = self._database.engine.dialect
        driver: Any = dialect.dbapi
        broken = (
            driver.OperationalError,
            driver.InterfaceError,
            sa.exc.OperationalError,
            # PostgreSQL's for a column that another version's schema does not have; SQLite's is an OperationalError.
            driver.ProgrammingError,
        )
        try:
            return self._one(statements[dialect.name], values)
        except broken:  # the database may have restarted since the last query of this thread
            self._forget()
        try:
            return self._one(statements[dialect.name], values)
        except broken as error:
            self._forget()
            raise self._database.explain(error) from error

    def _one(self, statement: str, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
        cursor = self.cursor()
        cursor.execute(statement, values)
        row: tuple[Any, ...] | None = cursor.fetchone()
        cursor.fetchone()  # exhaust it: an unfinished SELECT keeps its read snapshot open in SQLite
        return row

    @property
    def shared(self) -> bool:
        """Return whether all threads use the same connection: an SQLite database in memory has only this one."""
        return isinstance(self._database.engine.pool, StaticPool)

    def cursor(self) -> Any:
        """Return this thread's cursor, opened at its first query."""
        if getattr(self._own, "cursor", None) is None:
            engine = self._database.engine
            pooled = engine.raw_connection()
            connection: Any = pooled.driver_connection
            # Never detached: closing the only connection of an SQLite database in memory would delete the database.
            if self.shared:
                return connection.cursor()
            pooled.detach()
            if engine.dialect.name == "postgresql":
                # A SELECT outside of a transaction. Otherwise PostgreSQL would keep the first one open, with its
                # snapshot, for as long as the thread lives.
                connection.autocommit = True
            self._own.cursor = connection.cursor()
        return self._own.cursor

    def _forget(self) -> None:
        cursor, self._own.cursor = getattr(self._own, "cursor", None), None
        if cursor is not None:
            cursor.connection.close()
