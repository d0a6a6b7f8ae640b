"""The database: one engine, transactions, migrations. Faults of the database are ours to name, never SQLAlchemy's to show."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import StaticPool

from scanner.errors import RemoteError, ScannerError, UsageError

_BUSY_MILLISECONDS = 15_000


class Database:
    """SQLite or PostgreSQL, by URL. Opens nothing until it is first used."""

    def __init__(self, url: str) -> None:
        try:
            self._url = make_url(url)
        except ArgumentError as error:
            raise UsageError(
                "the database URL cannot be read", hint="sqlite:///FILE or postgresql+psycopg://…"
            ) from error
        if self._url.drivername in ("postgresql", "postgres"):
            self._url = self._url.set(drivername="postgresql+psycopg")
        if self._url.get_backend_name() not in ("sqlite", "postgresql"):
            raise UsageError(f"no support for {self._url.get_backend_name()}", hint="use SQLite or PostgreSQL")

    @property
    def is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @cached_property
    def engine(self) -> Engine:
        if not self.is_sqlite:
            return sa.create_engine(self._url, pool_pre_ping=True, pool_size=8, max_overflow=16)
        file = self._url.database
        if file and file != ":memory:":
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            engine = sa.create_engine(self._url)
        else:
            engine = sa.create_engine(self._url, poolclass=StaticPool, connect_args={"check_same_thread": False})
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A transaction: committed when the block ends, rolled back when it raises.

        On SQLite it takes the write lock at once, so that nothing has to be tried again later. Raises
        RemoteError(reason="db_unavailable") when the database does not answer.
        """
        with self._guarded(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: on SQLite it waits for no writer."""
        with self._guarded(), self.engine.connect().execution_options(dockwarden_read=True) as connection:
            yield connection

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except ScannerError:
            raise
        except (OperationalError, InterfaceError) as error:
            raise _unavailable() from error
        except DBAPIError as error:
            if error.connection_invalidated:
                raise _unavailable() from error
            raise

    def upgrade(self, revision: str = "head") -> str:
        """Run migrations. Returns the revision the database is at then."""
        with self._guarded():
            command.upgrade(self._alembic(), revision)
        return self.revision() or ""

    def downgrade(self, revision: str) -> None:
        with self._guarded():
            command.downgrade(self._alembic(), revision)

    def revision(self) -> str | None:
        """The revision the database is at; None for one that was never migrated."""
        with self._guarded(), self.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def check_head(self) -> None:
        """Raises UsageError(reason="db_not_at_head") unless the schema is this version's."""
        head = ScriptDirectory.from_config(self._alembic()).get_current_head()
        if self.revision() != head:
            message = "the database's schema is not this version's"
            raise UsageError(message, reason="db_not_at_head", hint="dockwarden db upgrade")

    def _alembic(self) -> Config:
        config = Config()
        config.set_main_option("script_location", str(_migrations()))
        config.attributes["engine"] = self.engine
        return config


def _migrations() -> Path:
    """The migrations, which are a package beside ours in a checkout and in a wheel alike."""
    import migrations

    assert migrations.__file__
    return Path(migrations.__file__).parent


def _unavailable() -> RemoteError:
    return RemoteError(
        "the database does not answer", reason="db_unavailable", hint="check DOCKWARDEN_DATABASE_URL and that it runs"
    )


def _prepare_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves: see _begin_sqlite
    for pragma in (
        f"busy_timeout = {_BUSY_MILLISECONDS}",
        "journal_mode = WAL",
        "synchronous = NORMAL",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get("dockwarden_read")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def epoch(connection: Connection) -> float:
    """The database's clock, in seconds since 1970: the only clock that moves leases."""
    if connection.dialect.name == "sqlite":
        return float(connection.execute(sa.text("SELECT (julianday('now') - 2440587.5) * 86400.0")).scalar_one())
    return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def moment(connection: Connection) -> datetime:
    """The database's clock as a moment."""
    return datetime.fromtimestamp(epoch(connection), UTC)
