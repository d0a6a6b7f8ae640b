"""The intake of webhooks: who may deliver, and the deliveries of several senders in one transaction.

*Who may deliver* (`KnownState`) is one text: all webhooks, registries and projects. It is decrypted and parsed when it
changes, and kept. The transaction that writes a delivery reads the text again, and writes nothing if it is another one.
So a revoked secret is refused at once, by every process, and a delivery costs no query of its own for it.

*Group commit*: deliveries wait together while a transaction is being committed, and the next one writes them all. A
thread of this module writes; the threads that read deliveries hand them over and go on reading (`Intake.submit`). So a
group is as large as the burst, and its commit costs each delivery little. A group writes only what is new: a repeated
delivery, an image that is queued already, and every delivery of a group that conflicted are written by themselves, with
the queries of `deliveries` and `scans`. So a delivery that cannot be written does not affect others.
"""

from __future__ import annotations

import collections
import hashlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner import telemetry
from scanner.config import Secret
from scanner.errors import RemoteError
from scanner.model.scan import Lane, ScanRequest, ScanState
from scanner.store import deliveries, projects, scans
from scanner.store.direct import Direct
from scanner.store.schema import IS_QUEUED, delivery, delivery_scan, idempotency, project, registry, scan, webhook
from scanner.store.session import BUSY, CONFLICT, Database, new_id

# A group waits for deliveries that are being read, and for the senders that were just answered: half as long as a
# commit takes, which PostgreSQL's manual recommends for its commit_delay, between these bounds. Then the time between
# two looks.
_GATHER_LEAST, _GATHER_MOST, _GATHER_STEP = 0.001, 0.005, 0.0005
_MAX_SCANS = 500  # written by one group: its statements must not hold the locks of SQLite for long
_TRIES = 2  # of a group

# One text, in a fixed order, so that it can be compared. Secrets in it are sealed.
_KNOWN = f"""
    SELECT {{cast}}({{row}}(
        (SELECT {{list}}({{row}}(id, name, format, header, sender, {{secret}}, {{previous}},
                               host, {{aliases}}, project))
         FROM (SELECT w.id, w.name, w.format, w.header, w.secret, w.previous_secret, w.sender,
                      r.host, r.aliases, r.project
               FROM {webhook.name} w JOIN {registry.name} r ON r.id = w.registry_id
               WHERE NOT w.disabled ORDER BY w.id) AS hooks),
        (SELECT {{list}}({{row}}(name, {{patterns}}, engine))
         FROM (SELECT name, patterns, engine FROM {project.name} ORDER BY name) AS owners),
        (SELECT {{list}}({{row}}(host, project))
         FROM (SELECT host, project FROM {registry.name} ORDER BY host) AS hosts)){{as_text}})
"""  # noqa: S608  table names are constants
_READ: Mapping[str, str] = {
    "sqlite": _KNOWN.format(
        cast="",
        as_text="",
        row="json_array",
        list="json_group_array",
        aliases="json(aliases)",
        patterns="json(patterns)",
        **{"secret": "hex(secret)", "previous": "hex(previous_secret)"},
    ),
    "postgresql": _KNOWN.format(
        cast="CAST",
        as_text=" AS text",
        row="json_build_array",
        list="json_agg",
        aliases="aliases",
        patterns="patterns",
        **{"secret": "encode(secret, 'hex')", "previous": "encode(previous_secret, 'hex')"},
    ),
}


class OutdatedState(Exception):
    """Webhooks, registries or projects have changed since they were read: authenticate the delivery again."""


class KnownState:
    """What deliveries are checked against: the enabled webhooks, and the owners of repositories, as of one moment."""

    def __init__(self, text: str, key: Secret) -> None:
        self.text, self._key = text, key
        self.digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        self._hooks: dict[str, list[list[Any]]] = {}
        self._opened: dict[str, tuple[deliveries.Hook, ...]] = {}
        rows, owners, hosts = orjson.loads(text)
        for row in rows or ():
            self._hooks.setdefault(row[2], []).append(row)
        by_pattern = {pattern: name for name, patterns, _ in owners or () for pattern in patterns}
        self.engines: Mapping[str, str] = {name: engine for name, _, engine in owners or () if engine}
        self._owner = projects.owner_lookup(by_pattern, dict(hosts or ()))

    def hooks(self, format_: str) -> tuple[deliveries.Hook, ...]:
        """Return the webhooks of a format with their secrets. Raises ScannerError(reason="secret_unreadable")."""
        found = self._opened.get(format_)
        if found is None:
            found = self._opened[format_] = tuple(self._open(*row) for row in self._hooks.get(format_, ()))
        return found

    def _open(
        self,
        identifier: str,
        name: str,
        format_: str,
        header: str,
        sender: str,
        secret: str,
        previous: str | None,
        host: str,
        aliases: list[str],
        owner: str,
    ) -> deliveries.Hook:
        valid = deliveries.unsealed_secrets(identifier, bytes.fromhex(secret), bytes.fromhex(previous or ""), self._key)
        return deliveries.Hook(identifier, name, format_, owner, header, valid, host, tuple(aliases), sender)

    def owner(self, repository: str) -> str:
        """Return the project of a repository (``host/name``)."""
        return self._owner(repository) or projects.DEFAULT


@dataclass(frozen=True)
class Arrival:
    """An authenticated delivery. ``asked``: the scans to request, by idempotency key."""

    hook_id: str
    key: str  # the same for a repeated delivery, so that it is recorded once
    events: int
    outcome: str  # in words, for the list of deliveries
    asked: tuple[tuple[str, ScanRequest], ...]
    refused: tuple[deliveries.RefusedEvent, ...] = ()


@dataclass(frozen=True)
class RecordedDelivery:
    """A committed delivery with the tickets of its scans, in the order of its requests."""

    delivery_id: str
    tickets: tuple[scans.Ticket, ...]


# What became of a delivery: stored; an error for the sender; or None, if it has to be written by itself (`alone`).
Outcome = RecordedDelivery | Exception | None


@dataclass(slots=True)
class _Entry:
    """A delivery that waits for a group. ``coming``: the number of deliveries that are being read now."""

    arrival: Arrival
    known: KnownState
    settle: Callable[[Outcome], None]  # called once, after the commit or its failure
    coming: Callable[[], int]
    delivery_id: str
    scan_ids: tuple[str, ...]
    trace: str
    request_keys: tuple[str, ...]
    outcome: Outcome = None


class Intake(Direct):
    """Reads who may deliver, and writes deliveries in groups. One for each process."""

    def __init__(self, database: Database, key: Secret) -> None:
        super().__init__(database)
        self._key = key
        self._known: KnownState | None = None
        self._joined = threading.Condition()  # guards what is below; notified when a delivery joins
        self._waiting: collections.deque[_Entry] = collections.deque()
        self._has_writer, self._is_idle = False, False
        self._expected, self._took = 1, 0.0  # how many deliveries the next group waits for; seconds of the last commit

    def remembered(self) -> KnownState:
        """Return what this process read last. `record` refuses it if it has changed; for anything else use `known`."""
        return self._known or self.known()

    def known(self) -> KnownState:
        """Return what is in the database now. Raises RemoteError(reason="db_unavailable")."""
        row = self.one(_READ, {})
        assert row is not None
        remembered = self._known
        if remembered is None or remembered.text != row[0]:
            remembered = self._known = KnownState(row[0], self._key)
        return remembered

    def groups(self, arrival: Arrival) -> bool:
        """Return whether a group may write this delivery. Otherwise use `alone`."""
        return not arrival.refused and not self.shared

    def submit(
        self,
        known: KnownState,
        arrival: Arrival,
        settle: Callable[[Outcome], None],
        coming: Callable[[], int] = lambda: 0,
    ) -> None:
        """Let the next group write a delivery, and call ``settle`` after the commit, in another thread.

        ``known``: what it was checked against. ``coming``: the number of deliveries that are being read now; a group
        waits a moment for them. An outcome of None: nothing was written; call `alone`. An exception is meant for the
        sender, as of `Database.session`.
        """
        entry = _entry(arrival, known, settle, coming)
        with self._joined:
            if not self._has_writer:
                # One: with two, groups were smaller, and PostgreSQL took as many deliveries for more CPU time.
                # A daemon: a database that hangs must not keep the process alive. Its deliveries were not answered.
                threading.Thread(target=self._work, name="intake", daemon=True).start()
                self._has_writer = True  # not if the machine has no thread left: the next delivery tries again
            self._waiting.append(entry)
            # A wake-up costs more than to wait for its end: once for a group, if possible.
            if self._is_idle or (len(self._waiting) >= self._expected and not coming()):
                self._joined.notify()

    def record(self, known: KnownState, arrival: Arrival) -> RecordedDelivery:
        """Write a delivery with its scans, and return after the commit. A repeated one returns the scans of the first.

        The caller notifies the queue of created scans. Raises Outdated, and as `Database.uncrossed`.
        """
        if self.groups(arrival):
            settled: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
            self.submit(known, arrival, settled.put)
            outcome = settled.get()
            if isinstance(outcome, Exception):
                raise outcome
            if outcome is not None:
                return outcome
        return self.alone(known, arrival)

    def alone(self, known: KnownState, arrival: Arrival) -> RecordedDelivery:
        """As `record`, in a transaction of its own."""
        return self._database.uncrossed(lambda session: _record_alone(session, known, arrival))

    def _work(self) -> None:
        while True:
            self._settle(self._next())

    def _settle(self, group: Sequence[_Entry]) -> None:
        """Write a group and tell each entry its outcome."""
        began = time.monotonic()
        try:
            self._write(group)
        except Exception as error:
            # The last boundary of a thread that must live on: the senders wait for an answer.
            if not isinstance(error, RemoteError):
                logging.getLogger(__name__).exception("deliveries were not written")
            for entry in group:
                entry.outcome = error
        with self._joined:
            # Most senders have several deliveries: these come back with the next one, beside those that wait.
            self._expected, self._took = len(group) + len(self._waiting), time.monotonic() - began
        for entry in group:
            try:
                entry.settle(entry.outcome)
            except Exception:
                # As above: the other senders of the group wait, too.
                logging.getLogger(__name__).exception("a sender got no answer")

    def _next(self) -> list[_Entry]:
        """Wait for deliveries. Those that are being read join the group, unless that takes `_GATHER_MOST`."""
        group: list[_Entry] = []
        asked = 0
        with self._joined:
            while not self._waiting:
                self._is_idle = True
                self._joined.wait()
                self._is_idle = False
            ends = time.monotonic() + min(max(self._took / 2, _GATHER_LEAST), _GATHER_MOST)
            while self._is_incomplete() and time.monotonic() < ends:
                self._joined.wait(_GATHER_STEP)  # again and again, because a delivery may also be refused
            while self._waiting and (not group or asked + len(self._waiting[0].scan_ids) <= _MAX_SCANS):
                group.append(self._waiting.popleft())
                asked += len(group[-1].scan_ids)
        return group

    def _is_incomplete(self) -> bool:
        """Whether deliveries may join the next group within a moment."""
        return bool(self._waiting) and (len(self._waiting) < self._expected or self._waiting[-1].coming() > 0)

    def _write(self, group: Sequence[_Entry]) -> None:
        """Write the deliveries of a group that are new, and set their outcomes.

        Raises RemoteError if the database is not available. It is not asked again for each delivery of the group: they
        would all wait, one after the other, and longer than their senders.
        """
        single = _without_doubles(group)
        if not single:  # each of them names an image twice
            return
        for entry in self._write_group(single):
            tickets = tuple(scans.Ticket(identifier, created=True) for identifier in entry.scan_ids)
            entry.outcome = RecordedDelivery(entry.delivery_id, tickets)

    def _write_group(self, group: Sequence[_Entry]) -> Sequence[_Entry]:
        """Return the entries that were written: none if one of them conflicts with what another process writes."""
        dialect = self._database.engine.dialect
        driver: Any = dialect.dbapi
        write = _write_postgresql if dialect.name == "postgresql" else _write_sqlite
        for attempt in range(_TRIES):
            try:
                return write(self.cursor(), group[0].known, group)
            except (driver.OperationalError, driver.InterfaceError, sa.exc.OperationalError) as error:
                self._forget()
                fault = self._database.explain(error)
                if not isinstance(fault, RemoteError) or fault.reason == CONFLICT:
                    return ()
                # A connection may have broken since its last use. The second attempt finds what the first has committed
                # after all. A lock is not waited for twice.
                if fault.reason == BUSY or attempt == _TRIES - 1:
                    raise fault from error
            except (driver.Error, sa.exc.DBAPIError):
                self._forget()
                return ()
        raise AssertionError("every attempt returns or raises")


def _record_alone(session: Connection, known: KnownState, arrival: Arrival) -> RecordedDelivery:
    if session.exec_driver_sql(_READ[session.dialect.name]).scalar_one() != known.text:
        raise OutdatedState
    told = deliveries.record(session, arrival.hook_id, arrival.key, arrival.events, arrival.outcome, arrival.refused)
    return RecordedDelivery(told.id, tuple(scans.request_all(session, arrival.asked, delivery_id=told.id)))


def _entry(arrival: Arrival, known: KnownState, settle: Callable[[Outcome], None], coming: Callable[[], int]) -> _Entry:
    return _Entry(
        arrival,
        known,
        settle,
        coming,
        new_id(),
        tuple(new_id() for _ in arrival.asked),
        telemetry.current(),
        tuple(scans.request_key(asked) for _, asked in arrival.asked),
    )


def _without_doubles(group: Iterable[_Entry]) -> list[_Entry]:
    """Return the deliveries that share no key with an earlier one of the group. The others join it afterwards.

    Those that were checked against something else than the first are left out as well.
    """
    seen: set[object] = set()
    single: list[_Entry] = []
    for entry in group:
        if single and entry.known.text != single[0].known.text:
            continue
        own = [
            (entry.arrival.hook_id, entry.arrival.key),
            *(key for key, _ in entry.arrival.asked),
            *entry.request_keys,
        ]
        if len(set(own)) == len(own) and seen.isdisjoint(own):
            seen.update(own)
            single.append(entry)
    return single


# The statements of a group. Columns that are not named here get the defaults of the schema.


def _into(table: sa.Table, columns: Sequence[str], **constant: str) -> tuple[str, str]:
    """Return the beginning of an INSERT, and the expressions of the constants after the values of ``columns``."""
    rest = dict(constant)
    for column in table.c:
        default: Any = column.default
        if column.name not in columns and column.name not in constant and default is not None and default.is_scalar:
            rest[column.name] = _literal(default.arg)
    return f"INSERT INTO {table.name} ({', '.join((*columns, *rest))})", "".join(f", {one}" for one in rest.values())


def _literal(value: bool | int | str) -> str:
    return str(value).upper() if isinstance(value, bool | int) else "'" + value.replace("'", "''") + "'"


_DELIVERY = ("id", "webhook_id", "key", "events", "outcome")
_SCAN = ("id", "target", "engine", "project", "requested_by", "source", "request_key", "trace")
_TIMES = ("next_at", "created_epoch", "kicked_epoch", "created_at")
_INTO_DELIVERY = _into(delivery, (*_DELIVERY, "received_at"), refused="'[]'")
_INTO_SCAN = _into(scan, (*_SCAN, *_TIMES), lane=_literal(Lane.PUSH.value), state=_literal(ScanState.QUEUED.value))
_INTO_IDEMPOTENCY = _into(idempotency, ("key", "scan_id", "created_at"))
_INTO_LINK = _into(delivery_scan, ("delivery_id", "scan_id"))

# The deliveries that are not new: of which something is stored already. ``told`` and ``asked``: the rows of the group.
# With EXISTS, PostgreSQL would read a whole table into a hash instead of asking the index a few times: it cannot know
# how few rows there are. LIMIT forbids that: 0.6 ms instead of 20 ms at 20,000 deliveries.
_REPEATED = f"""
    SELECT t.id FROM told t
    WHERE (SELECT 1 FROM {delivery.name} d WHERE d.webhook_id = t.webhook_id AND d.key = t.key LIMIT 1) IS NOT NULL
    UNION
    SELECT a.delivery_id FROM asked a
    WHERE (SELECT 1 FROM {idempotency.name} i WHERE i.key = a.key LIMIT 1) IS NOT NULL
       OR (SELECT 1 FROM {scan.name} s WHERE s.request_key = a.request_key AND {IS_QUEUED} LIMIT 1) IS NOT NULL
"""  # noqa: S608  table names are constants; all values are bound parameters


def _sqlite_rows(name: str, columns: Iterable[str]) -> str:
    fields = ", ".join(f"json_extract(value, '$.{column}') AS {column}" for column in columns)
    return f"{name} AS (SELECT {fields} FROM json_each(:{name}))"  # noqa: S608  constants


_SQLITE_REPEATED = f"""
    WITH {_sqlite_rows("told", ("id", "webhook_id", "key"))},
         {_sqlite_rows("asked", ("delivery_id", "key", "request_key"))}
    SELECT (julianday('now') - 2440587.5) * 86400.0, json_group_array(id) FROM ({_REPEATED})
"""  # noqa: S608


def _sqlite_insert(into: tuple[str, str], columns: Sequence[str]) -> str:
    return f"{into[0]} VALUES ({', '.join(f':{column}' for column in columns)}{into[1]})"


_SQLITE_INSERTS = (
    ("told", _sqlite_insert(_INTO_DELIVERY, (*_DELIVERY, "moment"))),
    ("asked", _sqlite_insert(_INTO_SCAN, (*_SCAN, "now", "now", "now", "moment"))),
    ("asked", _sqlite_insert(_INTO_IDEMPOTENCY, ("key", "id", "moment"))),
    ("asked", _sqlite_insert(_INTO_LINK, ("delivery_id", "id"))),
)


def _write_sqlite(cursor: Any, known: KnownState, group: Sequence[_Entry]) -> list[_Entry]:
    """Write a group in one transaction. Returns the entries that were new, none if ``known`` is outdated.

    On an error everything is rolled back.
    """
    cursor.execute("BEGIN IMMEDIATE")
    try:
        if cursor.execute(_READ["sqlite"]).fetchall() != [(known.text,)]:
            return []
        told, asked = _rows(group)
        documents = {"told": orjson.dumps(told).decode(), "asked": orjson.dumps(asked).decode()}
        ((now, repeated),) = cursor.execute(_SQLITE_REPEATED, documents).fetchall()
        old = frozenset(orjson.loads(repeated))
        moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        times = {"now": now, "moment": moment}
        rows = {
            "told": [row | times for row in told if row["id"] not in old],
            "asked": [row | times for row in asked if row["delivery_id"] not in old],
        }
        for name, statement in _SQLITE_INSERTS:
            cursor.executemany(statement, rows[name])
        cursor.execute("COMMIT")
    finally:
        if cursor.connection.in_transaction:
            cursor.execute("ROLLBACK")
    return [entry for entry in group if entry.delivery_id not in old]


_TYPES = {"events": "int"}


def _postgresql_rows(name: str, columns: Iterable[str]) -> str:
    fields = ", ".join(f"{column} {_TYPES.get(column, 'text')}" for column in columns)
    return f"{name} AS MATERIALIZED (SELECT * FROM json_to_recordset(%({name})s::json) AS r({fields}))"  # noqa: S608


def _postgresql_insert(into: tuple[str, str], values: Iterable[str], rows: str, owner: str) -> str:
    fresh = f"FROM {rows}, clock WHERE {owner} NOT IN (SELECT id FROM repeated)"  # noqa: S608  constants
    return f"({into[0]} SELECT {', '.join(values)}{into[1]} {fresh})"


_EPOCH = "extract(epoch FROM clock.now)::float8"
# One statement is one transaction and one round trip. All its parts see the same snapshot, and foreign keys are checked
# at its end.
_POSTGRESQL = f"""
    WITH {_postgresql_rows("told", _DELIVERY)},
         {_postgresql_rows("asked", (*_SCAN, "delivery_id", "key"))},
         clock AS MATERIALIZED (SELECT clock_timestamp() AS now),
         repeated AS MATERIALIZED (
             {_REPEATED} UNION SELECT t.id FROM told t WHERE md5(({_READ["postgresql"]})) <> %(known)s
         ),
         deliveries AS {_postgresql_insert(_INTO_DELIVERY, (*_DELIVERY, "now"), "told", "id")},
         scans AS {_postgresql_insert(_INTO_SCAN, (*_SCAN, *(3 * [_EPOCH]), "now"), "asked", "delivery_id")},
         keys AS {_postgresql_insert(_INTO_IDEMPOTENCY, ("key", "id", "now"), "asked", "delivery_id")},
         links AS {_postgresql_insert(_INTO_LINK, ("delivery_id", "id"), "asked", "delivery_id")}
    SELECT id FROM repeated
"""  # noqa: S608


def _write_postgresql(cursor: Any, known: KnownState, group: Sequence[_Entry]) -> list[_Entry]:
    """Write a group in one statement. Returns the entries that were new, none if ``known`` is outdated."""
    told, asked = _rows(group)
    values = {"told": orjson.dumps(told).decode(), "asked": orjson.dumps(asked).decode(), "known": known.digest}
    repeated = {identifier for (identifier,) in cursor.execute(_POSTGRESQL, values).fetchall()}
    return [entry for entry in group if entry.delivery_id not in repeated]


def _rows(group: Sequence[_Entry]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of a group, sorted by key, so that two processes lock in the same order."""
    told = [
        {
            "id": entry.delivery_id,
            "webhook_id": entry.arrival.hook_id,
            "key": entry.arrival.key,
            "events": entry.arrival.events,
            "outcome": entry.arrival.outcome[:200],
        }
        for entry in group
    ]
    asked = [
        {
            "delivery_id": entry.delivery_id,
            "key": key,
            "id": scan_id,
            "request_key": request_key,
            "target": one.target,
            "engine": one.engine,
            "project": one.project,
            "requested_by": one.requested_by[:200],
            "source": one.source,
            "trace": entry.trace,
        }
        for entry in group
        for (key, one), scan_id, request_key in zip(
            entry.arrival.asked, entry.scan_ids, entry.request_keys, strict=True
        )
    ]
    told.sort(key=lambda row: (row["webhook_id"], row["key"]))
    asked.sort(key=lambda row: (row["request_key"], row["key"]))
    return told, asked
