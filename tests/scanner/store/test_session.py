"""The database: its transactions, its clock, and its faults under names of ours."""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.errors import ConflictError, RemoteError, UsageError
from scanner.store import accounts, policies, registries, scans
from scanner.store.schema import policy
from scanner.store.session import Database, epoch, new_id
from tests.databases import Cluster, make_cluster, migrated_url
from tests.scanner.store import factories
from tests.scanner.store.together import together, transact
from tests.servers import wait_for


def count(database: Database) -> int:
    with database.read() as session:
        return len(scans.list_scans(session, None).items)


def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    def break_off(session: Connection) -> None:
        scans.request(session, factories.request())
        raise KeyError

    with pytest.raises(KeyError):
        transact(database, break_off)
    assert count(database) == 0


def test_an_error_that_is_kept_spoils_no_connection(database: Database) -> None:
    """On SQLite the kept traceback held a cursor, the cursor a snapshot, and the pooled connection could not write
    any more.
    """

    def break_off(number: int) -> None:
        with database.session() as session:
            scans.request(session, factories.request(f"h.io/a{number}:1"))
            unread = session.execute(sa.text("SELECT id FROM scan"))
            raise KeyError(unread)

    kept = together(4, break_off)
    written = together(8, lambda n: transact(database, lambda s: scans.request(s, factories.request(f"h.io/b{n}:1"))))
    assert [type(one) for one in kept] == [KeyError] * 4
    assert [type(one) for one in written] == [scans.Ticket] * 8


@pytest.mark.real_clock  # the timers of PostgreSQL never fire with libfaketime
def test_a_client_that_froze_in_a_transaction_gives_up_its_locks(tmp_path: Path) -> None:
    url = migrated_url("postgresql", tmp_path)
    asked = sa.text("SELECT current_setting('idle_in_transaction_session_timeout')")
    with Database(url).session() as session:
        assert session.execute(asked).scalar_one() == "1min"
        scans.request(session, factories.request())
    impatient = Database(f"{url}&options=-c%20idle_in_transaction_session_timeout%3D200")

    def freeze() -> None:
        with impatient.session() as frozen:
            assert frozen.execute(asked).scalar_one() == "200ms", "the installation's own setting wins"
            frozen.execute(sa.text("UPDATE scan SET lane = lane"))  # and then nothing more is heard of it
            with Database(url).session() as session:
                session.execute(sa.text("SET LOCAL lock_timeout = '60s'"))
                assert session.execute(sa.text("UPDATE scan SET lane = lane")).rowcount == 1
            frozen.execute(asked)

    with pytest.raises(RemoteError) as thawed:
        freeze()
    assert thawed.value.retryable


def test_a_reader_waits_for_no_writer(database: Database) -> None:
    with database.session() as session:
        scans.request(session, factories.request())
        assert count(database) == 0  # committed is what counts
    assert count(database) == 1


def test_ids_of_rows_that_are_written_together_are_neighbours() -> None:
    """People read the first eight digits, so these must change with each millisecond."""
    made = [new_id() for _ in range(200)]
    assert len(set(made)) == 200
    for one in made:
        assert (str(uuid.UUID(one)), uuid.UUID(one).version, uuid.UUID(one).variant) == (one, 8, uuid.RFC_4122)
    began = int(made[0][:8], 16)
    assert all((int(one[:8], 16) - began) % (1 << 32) < 60_000 for one in made)
    deadline = time.monotonic() + 60
    while new_id()[:8] == made[-1][:8]:
        assert time.monotonic() < deadline


def test_the_clock_is_utc_and_moves(database: Database) -> None:
    with database.read() as session:
        first = epoch(session)
    with database.read() as session:
        second = epoch(session)
    assert first <= second
    assert abs(second - datetime.now(UTC).timestamp()) < 3600


@pytest.mark.parametrize("what", ["policy", "user", "registry"])
def test_who_comes_second_is_told_so(database: Database, what: str) -> None:
    """They look together, find nothing together, and write together: one is recorded, the others hear of a conflict,
    not of a bug.
    """
    from scanner.config import Secret

    def one(number: int) -> None:
        with database.session() as session:
            if what == "policy":
                policies.put(session, "p", f"text {number}", "alice", if_version=0)
            elif what == "user":
                accounts.create_user(session, "bob", "a long password", "viewer")
            else:
                registries.add(session, "h.io", Secret("k" * 40))

    ends = together(6, one)
    assert sorted(type(end).__name__ for end in ends) == ["ConflictError"] * 5 + ["NoneType"]


def test_a_broken_reference_is_no_conflict(database: Database) -> None:
    """It is a bug of ours and must look like one."""
    with pytest.raises(sa.exc.IntegrityError), database.session() as session:
        session.execute(sa.text("INSERT INTO delivery_scan (delivery_id, scan_id) VALUES ('none', 'none')"))


def test_servers_that_start_together_make_one_administrator(database: Database) -> None:
    from scanner.config import Secret
    from scanner.worker.supervisor import bootstrap

    tokens = together(6, lambda _: bootstrap(database, Secret("k" * 40)))
    assert sum(isinstance(token, str) for token in tokens) == 1
    assert sum(token is None for token in tokens) == 5


def _cross(database: Database, *, again: bool) -> list[object]:
    """Two transactions that take the same two rows in another order, each holding one before it asks for the other."""
    met, tries = threading.Barrier(2), [0, 0]

    def one(number: int) -> str:
        def work(session: Connection) -> str:
            tries[number] += 1
            for step, name in enumerate(("a", "b") if number == 0 else ("b", "a")):
                session.execute(policy.update().where(policy.c.name == name).values(version=policy.c.version + 1))
                if step == 0 and tries[number] == 1:
                    met.wait(20)
            return "done"

        return database.uncrossed(work) if again else transact(database, work)

    return [*together(2, one)]


@pytest.fixture
def crossing() -> Iterator[Database]:
    """On PostgreSQL: SQLite has one writer at a time."""
    database = Database(migrated_url("postgresql", Path()))
    with database.session() as session:
        for name in ("a", "b"):
            policies.put(session, name, "text", "ann")
    yield database
    database.engine.dispose()


@pytest.mark.real_clock  # the timers of PostgreSQL never fire with libfaketime, so both would wait for ever
def test_a_deadlock_is_tried_again(crossing: Database) -> None:
    assert _cross(crossing, again=True) == ["done", "done"]
    with crossing.read() as session:
        assert set(session.execute(sa.select(policy.c.version)).scalars()) == {3}, "each wrote once, nothing twice"


@pytest.mark.real_clock  # the timers of PostgreSQL never fire with libfaketime, so both would wait for ever
def test_a_deadlock_is_not_a_database_that_does_not_answer(crossing: Database) -> None:
    ends = _cross(crossing, again=False)
    (error,) = (end for end in ends if isinstance(end, RemoteError))
    assert (error.reason, "answer" in str(error)) == ("db_conflict", False)
    assert error.retryable


def test_a_serialization_failure_is_a_conflict_too(crossing: Database) -> None:
    def work(session: Connection) -> None:
        session.execute(sa.text("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$"))

    with pytest.raises(RemoteError) as refused:
        transact(crossing, work)
    assert refused.value.reason == "db_conflict"


@pytest.mark.parametrize("url", ["mysql://h/db", "nonsense", "oracle://x"])
def test_another_database_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        Database(url)


@pytest.fixture
def server() -> Cluster:
    return make_cluster()


def test_what_must_be_recorded_waits_for_a_database_that_restarts(server: Cluster) -> None:
    database = Database(server.create("restart"))
    database.upgrade()
    tries = []

    def work(session: Connection) -> str:
        tries.append(1)
        ticket = scans.request(session, factories.request())
        if len(tries) == 1:
            server.stop("immediate")
            server.start()
            session.execute(sa.text("SELECT 1"))
        return ticket.scan_id

    scan_id = database.transact(work)
    with database.read() as session:
        assert [one.id for one in scans.list_scans(session, None).items] == [scan_id]
    assert len(tries) == 2


def test_a_refusal_is_not_tried_again(database: Database) -> None:
    tries = []

    def work(session: Connection) -> None:
        tries.append(session)
        raise ConflictError("no")

    with pytest.raises(ConflictError):
        database.transact(work)
    assert len(tries) == 1


def test_a_server_that_is_away_has_a_name(server: Cluster) -> None:
    database = Database(server.create("away"))
    server.stop()
    with pytest.raises(RemoteError) as refused, database.read():
        pass
    assert refused.value.reason == "db_unavailable"


def fill(database: Database) -> None:
    """Write until the database has no page left."""
    with database.session() as session:
        for number in range(4000):
            scans.request(session, factories.request(f"h.io/{'a' * 150}{number}:1"))


def test_a_full_disk_under_sqlite_is_called_that(tmp_path: Path) -> None:
    """Somebody who is told to check the database's address does not look at the disk."""
    database = Database(migrated_url("sqlite", tmp_path))

    @sa.event.listens_for(database.engine, "connect")
    def limit(connection: sqlite3.Connection, record: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 20}")

    with pytest.raises(RemoteError) as refused:
        fill(database)
    assert (refused.value.reason, "full" in str(refused.value)) == ("disk_full", True)
    assert "DOCKWARDEN_DATABASE_URL" not in refused.value.hint


def test_a_read_only_database_is_called_that(tmp_path: Path) -> None:
    database = Database(migrated_url("sqlite", tmp_path))

    @sa.event.listens_for(database.engine, "connect")
    def limit(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA query_only = 1")

    with pytest.raises(RemoteError) as refused:
        fill(database)
    assert refused.value.reason == "db_read_only"


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("53100", "disk_full"),
        ("25006", "db_read_only"),
        ("28P01", "db_refused"),
        ("3D000", "db_missing"),
        ("57P01", "db_unavailable"),
        (None, "db_unavailable"),
    ],
)
def test_faults_of_postgresql_by_their_code(database: Database, state: str | None, reason: str) -> None:
    original = type("Fault", (Exception,), {"sqlstate": state})("the server said so")
    with pytest.raises(RemoteError) as refused, database.read():
        raise sa.exc.OperationalError("SELECT 1", {}, original)
    assert refused.value.reason == reason


def test_a_file_that_is_no_database_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "dockwarden.db").write_bytes(b"this is no database" * 500)
    with pytest.raises(RemoteError) as refused:
        Database(f"sqlite:///{tmp_path}/dockwarden.db").revision()
    assert refused.value.reason == "db_not_a_database"


def test_a_directory_in_the_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(RemoteError) as refused:
        Database(f"sqlite:///{tmp_path}").revision()
    assert refused.value.reason == "db_cannot_open"


def stamp(database: Database, revision: str) -> None:
    with database.session() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


OLDER, NEWER = "0031", "9999"


@pytest.mark.parametrize(
    ("revision", "hint"), [(OLDER, "dockwarden db upgrade"), (NEWER, "install that version")], ids=["older", "newer"]
)
def test_a_schema_of_another_version_is_called_that(database: Database, revision: str, hint: str) -> None:
    """Somebody who is told that the database does not answer looks at the network."""
    with database.session() as session:
        session.execute(sa.text("ALTER TABLE api_token RENAME COLUMN name TO former_name"))
    stamp(database, revision)
    with pytest.raises(RemoteError) as refused, database.read() as session:
        session.execute(sa.text("SELECT name FROM api_token"))
    with pytest.raises(UsageError) as checked:
        database.check_head()
    for error in (refused.value, checked.value):
        assert error.reason == "db_not_at_head"
        assert revision in str(error)
        assert str(database._scripts.get_current_head()) in str(error)
        assert hint in error.hint


def test_a_newer_schema_is_not_upgraded(database: Database) -> None:
    stamp(database, NEWER)
    with pytest.raises(UsageError, match=NEWER):
        database.upgrade()
    assert database.revision() == NEWER


@pytest.mark.parametrize(
    "statement", ["SELECT no_such_column FROM api_token", "SELECT FROM WHERE", "SELECT 1 FROM no_such_table"]
)
def test_a_mistake_of_ours_is_not_blamed_on_the_database(database: Database, statement: str) -> None:
    with pytest.raises(sa.exc.DBAPIError), database.read() as session:
        session.execute(sa.text(statement))


def test_an_sqlite_database_that_another_process_holds(tmp_path: Path) -> None:
    database = Database(migrated_url("sqlite", tmp_path))

    @sa.event.listens_for(database.engine, "connect")
    def limit(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA busy_timeout = 10")

    (file,) = tmp_path.glob("*.db")
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(RemoteError) as refused, database.session():
        pass
    holder.close()
    assert refused.value.reason == "db_busy"


def test_what_the_server_answers_to_a_connection(server: Cluster) -> None:
    """psycopg has no SQLSTATE for these."""
    with Database(server.url("postgres")).engine.connect() as connection:
        connection.execute(sa.text("CREATE ROLE guest LOGIN PASSWORD 'x'"))
        connection.execute(sa.text("CREATE ROLE busy LOGIN CONNECTION LIMIT 0"))
        connection.execute(sa.text("CREATE ROLE poor LOGIN"))
        connection.commit()
        rules = "local all guest scram-sha-256\nlocal all stranger reject\nlocal all all trust\n"
        (server.home / "data" / "pg_hba.conf").write_text(rules)
        connection.execute(sa.text("SELECT pg_reload_conf()"))
        connection.commit()
    own = server.url("postgres")
    place = own.partition("@")[2]
    urls = {
        f"postgresql://guest:wrong@{place}": "db_refused",
        f"postgresql://guest@{place}": "db_refused",
        f"postgresql://stranger@{place}": "db_refused",
        f"postgresql://nobody@{place}": "db_refused",
        f"postgresql://busy@{place}": "db_busy",
        server.url("nothing"): "db_missing",
        "postgresql://u@host.invalid/x": "db_unavailable",
    }
    wait_for(lambda: _reason(f"postgresql://stranger@{place}") == "db_refused", "the new rules", server.home / "log")
    assert {url: _reason(url) for url in urls} == urls
    Database(own).upgrade()
    with pytest.raises(RemoteError) as refused, Database(f"postgresql://poor@{place}").read() as session:
        session.execute(sa.text("SELECT name FROM api_token"))
    assert (refused.value.reason, "may not use" in str(refused.value)) == ("db_refused", True)


def _reason(url: str) -> str:
    try:
        Database(url).revision()
    except RemoteError as error:
        return error.reason
    return ""
