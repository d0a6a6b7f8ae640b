"""The database: one engine, transactions, migrations.

Faults of the database are ours to name, never SQLAlchemy's to show.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.pool import StaticPool

from scanner.config import Secret, Settings, audit_key, keep_private
from scanner.errors import ConflictError, RemoteError, ScannerError, UsageError

T = TypeVar("T")

AUDIT_KEY = "dockwarden_audit_key"  # an execution option: what the audit log's entries are chained with

# A web process has some fifty threads, of which few hold a connection for long: none must wait for one that a slow
# export has.
_POOL: dict[str, Any] = {"pool_size": 8, "max_overflow": 32}
_BUSY_MILLISECONDS = 15_000
_PAUSES = (0.2, 1.0, 3.0, 6.0)  # a PostgreSQL that restarts is back within them
_CONFLICT = "db_conflict"
_CONFLICT_TRIES, _CONFLICT_PAUSE = 8, 0.05  # seconds, doubled and spread at each try


class Database:
    """SQLite or PostgreSQL, by URL. Opens nothing until it is first used."""

    def __init__(self, url: str, audit_key: Secret | None = None) -> None:
        self._options = {AUDIT_KEY: audit_key} if audit_key else {}
        try:
            self._url = make_url(url)
            if not 0 < (self._url.port or 5432) < 65536:
                raise ValueError("there is no such port")
        except (ArgumentError, ValueError) as error:
            raise UsageError(
                "the database URL (DOCKWARDEN_DATABASE_URL) cannot be read",
                hint="sqlite:///FILE or postgresql+psycopg://…",
            ) from error
        if self._url.drivername in ("postgresql", "postgres"):
            self._url = self._url.set(drivername="postgresql+psycopg")
        if self._url.get_backend_name() not in ("sqlite", "postgresql"):
            raise UsageError(f"no support for {self._url.get_backend_name()}", hint="use SQLite or PostgreSQL")

    @classmethod
    def of(cls, settings: Settings) -> Database:
        """The database of an installation, whose audit log is chained with the installation's key."""
        if settings.embedded:
            keep_private(settings.home)
        return cls(settings.database, audit_key(settings))

    @property
    def is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @cached_property
    def engine(self) -> Engine:
        if not self.is_sqlite:
            return sa.create_engine(self._url, pool_pre_ping=True, execution_options=self._options, **_POOL)
        file = self._url.database
        if file and file != ":memory:":
            _make_private(Path(file))
            engine = sa.create_engine(self._url, execution_options=self._options, **_POOL)
        else:
            engine = sa.create_engine(
                self._url,
                poolclass=StaticPool,
                connect_args={"check_same_thread": False},
                execution_options=self._options,
            )
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A transaction: committed when the block ends, rolled back when it raises.

        On SQLite it takes the write lock at once, so that nothing has to be tried again later. Raises
        RemoteError(reason="db_unavailable") when the database does not answer, ConflictError when another
        transaction recorded the same unique thing at the same moment.
        """
        with self._guarded(), self.engine.begin() as connection, self._discarding(connection):
            yield connection

    def transact(self, work: Callable[[Connection], T]) -> T:
        """``work`` in a transaction, again from its start while the database is away for a moment or ended it over a
        deadlock.

        For what must not be lost to a database that restarts: ``work`` may run several times, each in a transaction
        of its own. Raises what ``session`` raises, after the last try.
        """
        for pause in _PAUSES:
            try:
                return self.uncrossed(work)
            except RemoteError:
                time.sleep(pause)
        return self.uncrossed(work)

    def uncrossed(self, work: Callable[[Connection], T]) -> T:
        """``work`` in a transaction, again from its start where it and others held what each other needed.

        For who waits for an answer: a database that is away is said at once. Rows that several transactions write
        are locked in one order (sorted by key); this is for the orders that nobody thought of. Raises what
        ``session`` raises, after the last try.
        """
        for attempt in range(_CONFLICT_TRIES):
            try:
                with self.session() as session:
                    return work(session)
            except RemoteError as error:
                if error.reason != _CONFLICT:
                    raise
                # Spread, so that those who met do not meet again.
                time.sleep(_CONFLICT_PAUSE * 2**attempt * random.uniform(0.5, 1.5))
        with self.session() as session:
            return work(session)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: on SQLite it waits for no writer."""
        with (
            self._guarded(),
            self.engine.connect().execution_options(dockwarden_read=True) as connection,
            self._discarding(connection),
        ):
            yield connection

    @contextmanager
    def _discarding(self, connection: Connection) -> Iterator[None]:
        """Give up an SQLite connection on which something was raised.

        Whoever keeps the exception keeps its frames and with them a cursor that was not read to its end: the
        connection would go back into the pool with an old snapshot under it, on which every later write fails at
        once with "database is locked".
        """
        try:
            yield
        except BaseException:
            if self.is_sqlite and not isinstance(self.engine.pool, StaticPool):
                connection.rollback()
                connection.invalidate()
            raise

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except ScannerError:
            raise
        except (OperationalError, InterfaceError) as error:
            raise _named(error) from error
        except IntegrityError as error:
            if not _is_duplicate(error):
                raise
            # Two looked, both found nothing, both wrote: the one that came second is told so, as if it had looked
            # later.
            message = "somebody else recorded the same thing at the same moment"
            raise ConflictError(message, reason="edited_meanwhile", hint="read it again") from error
        except DBAPIError as error:
            if error.connection_invalidated or _fault(error):
                raise _named(error) from error
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


def _make_private(file: Path) -> None:
    """Make the file of a database for its owner alone.

    What SQLite lays beside it (-wal, -shm, -journal) has the same mode.
    """
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _migrations() -> Path:
    """The migrations, which are a package beside ours in a checkout and in a wheel alike."""
    import migrations

    assert migrations.__file__
    return Path(migrations.__file__).parent


def _named(error: DBAPIError) -> RemoteError:
    """What is wrong with the database, from its own error code: a full disk is mended elsewhere than a wrong
    address.
    """
    if fault := _fault(error):
        message, reason, hint = fault
        return RemoteError(message, reason=reason, hint=hint)
    return RemoteError(
        "the database does not answer", reason="db_unavailable", hint="check DOCKWARDEN_DATABASE_URL and that it runs"
    )


def _fault(error: DBAPIError) -> tuple[str, str, str] | None:
    """What the error says is wrong, or the one before it: SQLite undoes a whole transaction when its disk is full,
    so that giving a savepoint up fails next, and that error alone says nothing.
    """
    seen: BaseException | None = error
    for _ in range(10):
        original = getattr(seen, "orig", None)
        code = str(getattr(original, "sqlstate", "") or getattr(original, "sqlite_errorname", "") or "")
        for beginning, fault in _FAULTS.items():
            if code.startswith(beginning):
                return fault
        seen = seen.__context__ if seen else None
    return None


_PLACE_HINT = (
    "check the owner and the permissions of the file and of its directory (DOCKWARDEN_HOME, DOCKWARDEN_DATABASE_URL)"
)
_READ_ONLY = ("the database cannot be written to", "db_read_only", _PLACE_HINT)
_FULL = ("the disk of the database is full", "disk_full", "free some space on the disk that holds the database")
# By SQLSTATE (PostgreSQL) or by the name of SQLite's result code; the first that fits.
# 40P01 deadlock_detected, 40001 serialization_failure: the server answers well, and asks for the transaction to be
# tried again.
_CROSSED = ("the database ended a transaction that crossed others again and again", _CONFLICT, "ask again")
_FAULTS = {
    "40P01": _CROSSED,
    "40001": _CROSSED,
    "53100": _FULL,
    "SQLITE_FULL": _FULL,
    "25006": _READ_ONLY,
    "SQLITE_READONLY": _READ_ONLY,
    "SQLITE_CANTOPEN": ("the database file cannot be opened", "db_cannot_open", _PLACE_HINT),
    "SQLITE_IOERR": (
        "the disk of the database reports an error, or is full",
        "db_disk_error",
        "check that the disk that holds the database has space and is healthy",
    ),
    "SQLITE_NOTADB": (
        "the database file is not an SQLite database",
        "db_not_a_database",
        "check DOCKWARDEN_DATABASE_URL; restore the file from a backup when it was one",
    ),
    "SQLITE_CORRUPT": ("the database file is damaged", "db_damaged", "restore it from a backup"),
    "28": ("the database refuses the user or the password", "db_refused", "check DOCKWARDEN_DATABASE_URL"),
    "3D000": ("the database server has no such database", "db_missing", "create it, or check DOCKWARDEN_DATABASE_URL"),
}


def _is_duplicate(error: IntegrityError) -> bool:
    """A unique constraint spoke, not a broken reference or a missing value: those are bugs of ours."""
    original = error.orig
    if isinstance(original, sqlite3.IntegrityError):
        return original.sqlite_errorname in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY")
    return getattr(original, "sqlstate", "") == "23505"


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


def alone(connection: Connection, key: int) -> None:
    """Wait until no other transaction has asked for the same ``key``, and keep others waiting until this one ends."""
    if connection.dialect.name != "sqlite":  # there, a writing transaction is alone anyway
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def beside(connection: Connection, key: int) -> None:
    """Wait while another transaction has ``key`` alone, and let none have it until this one ends. Many may be beside
    one another."""
    if connection.dialect.name != "sqlite":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(key)))


def put(connection: Connection, table: sa.Table, values: Mapping[str, Any], key: Sequence[str]) -> None:
    """Insert a row, or replace what the row of the same key says. One statement: a reader never finds neither."""
    kind = sqlite if connection.dialect.name == "sqlite" else postgresql
    rest = {name: value for name, value in values.items() if name not in key}
    connection.execute(kind.insert(table).values(**values).on_conflict_do_update(index_elements=list(key), set_=rest))


def epoch(connection: Connection) -> float:
    """The database's clock, in seconds since 1970: the only clock that moves leases."""
    if connection.dialect.name == "sqlite":
        return float(connection.execute(sa.text("SELECT (julianday('now') - 2440587.5) * 86400.0")).scalar_one())
    return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())


def moment(connection: Connection) -> datetime:
    """The database's clock as a moment."""
    return datetime.fromtimestamp(epoch(connection), UTC)


def insert_new(session: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, leaving out those that are there already."""
    if not rows:
        return
    if session.dialect.name == "sqlite":
        session.execute(sqlite.insert(table).on_conflict_do_nothing(), list(rows))
        return
    # One array for each column in one statement: a fifth of what as many parameters cost.
    columns = [table.c[name] for name in rows[0]]
    arrays = [sa.literal([row[c.name] for row in rows], postgresql.ARRAY(c.type)) for c in columns]
    source = sa.select(sa.func.unnest(*arrays).table_valued(*(c.name for c in columns)).render_derived())
    names = [c.name for c in columns]
    session.execute(postgresql.insert(table).from_select(names, source).on_conflict_do_nothing())
