"""Retention: which rows expire, which are kept regardless of age, and their deletion in batches.

Each `Kind` is a table with a condition. Conditions depend on rows of other tables, so the order of `KINDS` matters:
users of a row come before the row. `plan` uses the same conditions as `remove` to predict the number of deletions.

An image is kept while something refers to it: a tag, or one of `IN_USE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from scanner.model.scan import ScanState
from scanner.store.leases import try_lock
from scanner.store.scans import NOT_AN_IMAGE
from scanner.store.schema import (
    basis,
    component,
    decision,
    delivery,
    delivery_scan,
    dry_run,
    dry_run_change,
    finding,
    first_seen,
    found_tag,
    harbor_scan,
    idempotency,
    image,
    image_base,
    image_blob,
    image_component,
    image_stack,
    job,
    listing,
    listing_package,
    metadata,
    notification,
    outbox,
    package,
    receipt,
    receipt_push,
    registry_check,
    report,
    rests_on,
    running_mount,
    running_workload,
    scan,
    scan_attempt,
    scan_told,
    tag_move,
    verdict,
    vulnerability,
    web_session,
)
from scanner.store.session import beside

_RECORDING = 0x0D0C4A0D1C  # an advisory lock; see `block_pruning`
_TERMINAL = tuple(state.value for state in ScanState if state.terminal)
_COUNTED_BYTES = 64 << 20  # smaller tables are counted exactly
_BASES_KEPT = 50  # `matches.is_newest` compares with as many

# SELECTs of digests (images or indexes) that must be kept. Add the table of a new kind of reference here.
IN_USE: list[sa.Select[Any]] = [
    sa.select(running_workload.c.digest).where(running_workload.c.digest != ""),
    sa.select(running_mount.c.digest).where(running_mount.c.digest != ""),
]

Condition = sa.ColumnElement[bool]


@dataclass(frozen=True)
class Cutoffs:
    """For each setting, the moment before which rows expire. None: never."""

    scans: datetime | None = None
    deliveries: datetime | None = None
    idempotency_keys: datetime | None = None
    evidence: datetime | None = None
    decisions: datetime | None = None
    sessions: datetime | None = None
    receipts: datetime | None = None
    jobs: datetime | None = None
    outbox: datetime | None = None
    audit_log: datetime | None = None


@dataclass(frozen=True)
class Size:
    """The size of a table. ``bytes`` includes its indexes."""

    table: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class Batch:
    """The number of rows that one transaction removed, by table."""

    rows: Mapping[str, int]
    busy: bool = False  # a scan is being recorded: nothing was removed, try again


class _KeptRows:
    """Builds conditions for rows that are kept. In a plan, rows that earlier kinds would delete do not count."""

    def __init__(self, planned: bool) -> None:
        self._planned = planned

    def __call__(self, table: sa.FromClause, of: sa.FromClause | None = None, key: str = "") -> Condition:
        """Return the condition that a row of ``table`` (or an alias) is kept.

        With ``of`` and ``key``: that the row of ``of`` is kept to which its column ``key`` refers.
        """
        if not self._planned:
            return sa.true()
        owner = of if of is not None else table
        name = _name(owner)
        columns = [table.c[key]] if of is not None else [table.c[c.name] for c in _kind_of(name).keys]
        return ~sa.exists().where(_going.c.kind == name, _going.c.key == _text_of(columns))


Goes = Callable[[Any, Cutoffs, _KeptRows], Condition]


@dataclass(frozen=True)
class Kind:
    """Rows of ``table`` that expire if ``goes`` is true.

    ``setting``: the setting with their maximum age; empty: they expire with the rows that refer to them.
    ``dependents``: foreign key columns of tables whose rows are deleted with them.
    """

    table: sa.Table
    label: str
    setting: str
    goes: Goes
    dependents: tuple[sa.Column[Any], ...] = ()

    @property
    def keys(self) -> tuple[sa.Column[Any], ...]:
        return tuple(self.table.primary_key.columns)

    def is_on(self, at: Cutoffs) -> bool:
        """Return whether the kind expires at all."""
        return not self.setting or getattr(at, self.setting) is not None


# Conditions


def _delivery(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    return _is_before(t.received_at, at.deliveries)


def _found_tag(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    """Found tags, except those of an unfinished import, which counts its scans by them."""
    unfinished = sa.exists().where(job.c.id == t.job_id, job.c.state.not_in(_TERMINAL))
    return sa.and_(_is_before(t.found_at, at.deliveries), ~unfinished)


def _idempotency(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    return _is_before(t.created_at, at.idempotency_keys)


def _outbox(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    return _is_before(t.created_at, at.outbox)


def _notification(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    return _is_before(t.ended_at, at.outbox)


def _receipt(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    return sa.false() if at.receipts is None else t.valid_until < at.receipts.timestamp()


def _receipt_push(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    """What is known of an image's receipts in its registry, when the last of them is gone here."""
    own = sa.and_(receipt.c.digest == t.digest, receipt.c.repository == t.repository)
    return ~sa.exists().where(own, left(receipt))


def _session(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    return _is_before(t.expires_at, at.sessions)


def _job(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    """Ended jobs, except the newest of each kind, which determines when the next is due."""
    newer = job.alias()
    later = sa.exists().where(newer.c.kind == t.kind, newer.c.created_epoch > t.created_epoch)
    return sa.and_(t.state.in_(_TERMINAL), _is_before(t.finished_at, at.jobs), later)


def _dry_run(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    unfinished = sa.exists().where(job.c.id == t.id, job.c.state.not_in(_TERMINAL))
    return sa.and_(_is_before(t.created_at, at.jobs), ~unfinished)


def _registry_check(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    """Checks, except the newest of each registry and its newest posture."""
    newer = registry_check.alias()
    later = sa.and_(newer.c.registry_id == t.registry_id, newer.c.created_epoch > t.created_epoch)
    said = sa.exists().where(later, newer.c.document.is_not(None))
    return sa.and_(
        t.ended_at.is_not(None),
        _is_before(t.created_at, at.jobs),
        sa.exists().where(later),
        sa.or_(t.document.is_(None), said),
    )


def _tag_move(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    """Old moves of a tag. Its current digest is kept, and its first, because policies compare the two."""
    newer, older = tag_move.alias(), tag_move.alias("older")
    later = sa.exists().where(newer.c.repository == t.repository, newer.c.tag == t.tag, newer.c.id > t.id)
    before = sa.exists().where(older.c.repository == t.repository, older.c.tag == t.tag, older.c.id < t.id)
    return sa.and_(_is_before(t.seen_at, at.evidence), later, before)


def _unused_listing(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    """Names of images that no tag refers to and nothing runs.

    Kept for each name: the newest decided image and the newest allowed one, as comparison for the next.
    """
    same, other = listing.alias("same"), listing.alias("other")
    newest = (
        sa.select(tag_move.c.digest)
        .where(tag_move.c.repository == same.c.repository, tag_move.c.tag == same.c.tag)
        .order_by(tag_move.c.id.desc())
        .limit(1)
        .correlate(same)
        .scalar_subquery()
    )
    # A tag without a recorded move counts as referring to the image: keep it in doubt.
    tagged = sa.exists().where(
        same.c.digest == t.digest, same.c.tag != "", sa.func.coalesce(newest, same.c.digest) == same.c.digest
    )
    move, last = tag_move.alias("move"), tag_move.alias("last")
    last_named = (
        sa.select(sa.func.max(last.c.id))
        .where(last.c.repository == t.repository, last.c.tag == t.tag, last.c.digest == t.digest)
        .correlate(listing)  # two levels up: SQLAlchemy correlates only one level itself
    )
    moved_on = sa.exists().where(  # before the cutoff
        move.c.repository == t.repository,
        move.c.tag == t.tag,
        move.c.id > sa.func.coalesce(last_named.scalar_subquery(), 0),
        _is_before(move.c.seen_at, at.evidence),
    )
    later = sa.and_(
        other.c.project == t.project,
        other.c.repository == t.repository,
        other.c.tag == t.tag,
        other.c.scanned_epoch > t.scanned_epoch,
    )
    last_decided = sa.and_(~t.undecided, ~sa.exists().where(later, ~other.c.undecided))
    last_good = sa.and_(t.verdict != "deny", ~sa.exists().where(later, other.c.verdict != "deny"))
    stays = [tagged, sa.and_(t.tag != "", ~moved_on), last_decided, last_good]
    # A source that reports only a tag may run any image that had the tag.
    for uses in (running_workload.c, running_mount.c):
        stays.append(sa.exists().where(uses.digest == "", uses.repository == t.repository, uses.tag == t.tag))
    for digests in IN_USE:
        # A workload runs one platform of an index. The listing is that of the index, and has to stay for it.
        part = sa.exists().where(image_stack.c.subject == t.digest, image_stack.c.digest.in_(digests))
        stays += [t.digest.in_(digests), part]
    return sa.and_(_is_before(t.scanned_at, at.evidence), ~sa.or_(*stays))


def _verdict(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    return ~sa.exists().where(listing.c.digest == t.digest, listing.c.repository == t.repository, left(listing))


def _image_stack(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    return ~sa.exists().where(listing.c.digest == t.subject, left(listing))


def _image_blob(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    """Blobs of images without a listing, except those of artifacts (not images) of a kept scan."""
    told = sa.exists().where(scan.c.digest == t.subject, scan.c.reason == NOT_AN_IMAGE)
    return sa.and_(~sa.exists().where(listing.c.digest == t.subject, left(listing)), ~told)


def _image(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    """Images without a listing, neither of their own nor of an index that contains them."""
    direct = sa.exists().where(listing.c.digest == t.digest, left(listing))
    inside = sa.exists().where(
        image_stack.c.digest == t.digest, listing.c.digest == image_stack.c.subject, left(listing)
    )
    return sa.and_(_is_before(t.first_seen, at.evidence), ~direct, ~inside)


def _first_seen(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    """First sightings of findings that no image has any more."""
    there = sa.exists().where(
        finding.c.component_id == t.component_id,
        finding.c.vulnerability_id == t.vulnerability_id,
        left(finding, image, "image_id"),
    )
    return sa.and_(_is_before(t.at, at.evidence), ~there)


def _scan(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    """Ended scans to which no kept row refers: delivery, idempotency key, merged scan, listing, verdict."""
    other = scan.alias("other")
    stays = (
        sa.exists().where(delivery_scan.c.scan_id == t.id, left(delivery_scan, delivery, "delivery_id")),
        sa.exists().where(idempotency.c.scan_id == t.id, left(idempotency)),
        sa.exists().where(other.c.merged_into == t.id, left(other, scan, "id")),
        sa.exists().where(listing.c.report_id == t.report_id, left(listing)),
        sa.exists().where(verdict.c.report_id == t.report_id, left(verdict)),
    )
    return sa.and_(t.state.in_(_TERMINAL), _is_before(t.finished_at, at.scans), ~sa.or_(*stays))


def _report(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    """Evidence without a listing, verdict or scan."""
    stays = (
        sa.exists().where(listing.c.report_id == t.id, left(listing)),
        sa.exists().where(verdict.c.report_id == t.id, left(verdict)),
        sa.exists().where(scan.c.report_id == t.id, left(scan)),
    )
    return sa.and_(_is_before(t.created_at, at.evidence), ~sa.or_(*stays))


def _decision(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    """Superseded decisions whose scan is gone. A finished scan keeps its decision (invariant I3)."""
    stays = (
        sa.exists().where(verdict.c.decision_id == t.id, left(verdict)),
        sa.exists().where(scan.c.id == t.scan_id, left(scan)),
    )
    return sa.and_(_is_before(t.decided_at, at.decisions), ~sa.or_(*stays))


def _component(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    stays = (
        sa.exists().where(image_component.c.component_id == t.id, left(image_component, image, "image_id")),
        sa.exists().where(finding.c.component_id == t.id, left(finding, image, "image_id")),
        sa.exists().where(first_seen.c.component_id == t.id, left(first_seen)),
    )
    return ~sa.or_(*stays)


def _vulnerability(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    stays = (
        sa.exists().where(finding.c.vulnerability_id == t.id, left(finding, image, "image_id")),
        sa.exists().where(first_seen.c.vulnerability_id == t.id, left(first_seen)),
    )
    return ~sa.or_(*stays)


def _package(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    return ~sa.exists().where(listing_package.c.package_id == t.id, left(listing_package, listing, "listing_id"))


def _basis(t: Any, at: Cutoffs, left: _KeptRows) -> Condition:
    """Bases without answers, except the newest ones, with which new advisories are compared."""
    newer = basis.alias()
    newest = sa.select(newer.c.id).order_by(newer.c.created_at.desc()).limit(_BASES_KEPT)
    stays = (
        sa.exists().where(package.c.engine == t.engine, package.c.basis == t.id),
        t.id.in_(sa.select(rests_on.c.basis)),
        t.id.in_(sa.select(newest.subquery().c.id)),
    )
    return sa.and_(_is_before(t.created_at, at.evidence), ~sa.or_(*stays))


def _is_before(column: Any, cutoff: datetime | None) -> Condition:
    return sa.false() if cutoff is None else column < sa.literal(cutoff, column.type)


KINDS: tuple[Kind, ...] = (
    Kind(delivery, "Deliveries", "deliveries", _delivery, (delivery_scan.c.delivery_id,)),
    Kind(found_tag, "Pushes that polls and imports found", "deliveries", _found_tag),
    Kind(idempotency, "Idempotency keys", "idempotency_keys", _idempotency),
    Kind(outbox, "Events for notifications", "outbox", _outbox),
    Kind(notification, "Notifications that ended", "outbox", _notification),
    Kind(web_session, "Sessions that ended", "sessions", _session),
    Kind(receipt, "Receipts that ended", "receipts", _receipt),
    Kind(receipt_push, "State of receipts in registries", "receipts", _receipt_push),
    Kind(dry_run, "Dry runs of policies", "jobs", _dry_run, (dry_run_change.c.dry_run_id,)),
    Kind(job, "Jobs", "jobs", _job),
    Kind(registry_check, "Checks of registries", "jobs", _registry_check),
    Kind(
        listing,
        "Images without a tag or workload",
        "evidence",
        _unused_listing,
        (listing_package.c.listing_id, rests_on.c.listing_id, image_base.c.listing_id),
    ),
    Kind(verdict, "Verdicts of those images", "evidence", _verdict),
    Kind(image, "Contents of those images", "evidence", _image, (finding.c.image_id, image_component.c.image_id)),
    Kind(image_stack, "Layers of those images", "evidence", _image_stack),
    Kind(image_blob, "Blobs of those images", "evidence", _image_blob),
    Kind(tag_move, "Old moves of tags", "evidence", _tag_move),
    Kind(first_seen, "First sightings of resolved findings", "evidence", _first_seen),
    # Twice: a scan can only be deleted after the scans that were merged into it.
    Kind(scan, "Scans that ended", "scans", _scan, (scan_attempt.c.scan_id, scan_told.c.scan_id, harbor_scan.c.id)),
    Kind(scan, "Scans that ended", "scans", _scan, (scan_attempt.c.scan_id, scan_told.c.scan_id, harbor_scan.c.id)),
    Kind(report, "Evidence that was replaced", "evidence", _report),
    Kind(decision, "Superseded decisions", "decisions", _decision),
    Kind(component, "Packages without an image", "", _component),
    Kind(vulnerability, "Vulnerabilities without an image", "", _vulnerability),
    Kind(package, "Look-ups of packages without an image", "", _package),
    Kind(basis, "Old versions of the advisories", "evidence", _basis),
)

# The rows that a plan would delete. A temporary table is private to the connection and needs no write lock.
_going = sa.Table(
    "retention_going",
    sa.MetaData(),
    sa.Column("kind", sa.String(64), primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    prefixes=["TEMPORARY"],
)


def _kind_of(table: str) -> Kind:
    return next(kind for kind in KINDS if kind.table.name == table)


def _name(table: sa.FromClause) -> str:
    found: Any = table.element if isinstance(table, sa.sql.selectable.Alias) else table
    return str(found.name)


def _text_of(columns: Sequence[Any]) -> Any:
    """Return a key as text for the temporary table."""
    parts = [sa.cast(column, sa.Text) for column in columns]
    text: Any = parts[0]
    for part in parts[1:]:
        text = text.concat("\n").concat(part)
    return text


def candidates(
    session: Connection, kind: Kind, at: Cutoffs, *, after: Sequence[Any] | None, limit: int
) -> list[tuple[Any, ...]]:
    """Return up to ``limit`` keys of expired rows after ``after``, in order. Read-only: it blocks no writer."""
    query = sa.select(*kind.keys).where(kind.goes(kind.table.c, at, _KeptRows(False)))
    if after is not None:
        beyond = sa.tuple_(*kind.keys) > sa.tuple_(
            *(sa.literal(v, c.type) for v, c in zip(after, kind.keys, strict=True))
        )
        query = query.where(beyond if len(kind.keys) > 1 else kind.keys[0] > after[0])
    return [tuple(row) for row in session.execute(query.order_by(*kind.keys).limit(limit))]


def remove(session: Connection, kind: Kind, at: Cutoffs, keys: Sequence[tuple[Any, ...]]) -> Batch:
    """Delete the given rows that are still expired, with their dependents.

    Does nothing while a scan is recorded (`block_pruning`), which may be about to refer to one of the rows.
    """
    if not try_lock(session, _RECORDING):
        return Batch({}, busy=True)
    going = [tuple(row) for row in session.execute(still_going(kind, at, keys))]
    if not going:
        return Batch({})
    removed: dict[str, int] = {}
    try:
        with session.begin_nested():
            for column in kind.dependents:
                parts = column.table.delete().where(column.in_([key[0] for key in going]))
                removed[str(column.table.name)] = session.execute(parts).rowcount
            rows = kind.table.delete().where(_among(kind.keys, going))
            removed[str(kind.table.name)] = session.execute(rows).rowcount
    except IntegrityError:  # a concurrent transaction refers to one of them: retry in the next run
        return Batch({})
    return Batch({table: count for table, count in removed.items() if count})


def still_going(kind: Kind, at: Cutoffs, keys: Sequence[tuple[Any, ...]]) -> sa.Select[Any]:
    """Those of these keys whose rows still go.

    Within a function the condition is no reason to choose an index: the rows are found by their keys, whatever the
    database believes of how many are old. By the index of states it would read every scan for each batch.
    """
    goes = sa.func.coalesce(kind.goes(kind.table.c, at, _KeptRows(False)), sa.false())
    return sa.select(*kind.keys).where(_among(kind.keys, keys), goes)


def _among(columns: Sequence[Any], keys: Sequence[tuple[Any, ...]]) -> Condition:
    """That the row's key is one of these.

    SQLite finds no rows by a list of tuples: it would read the whole table for each batch. So the leading columns are
    named alone as well, as many as tell the keys apart; each further one would multiply what is looked up.
    """
    if len(columns) == 1:
        only: Condition = columns[0].in_([key[0] for key in keys])
        return only
    leading = next(n for n in range(1, len(columns) + 1) if len({key[:n] for key in keys}) == len(set(keys)))
    alone = [columns[n].in_(list(dict.fromkeys(key[n] for key in keys))) for n in range(leading)]
    return sa.and_(*alone, sa.tuple_(*columns).in_(keys))


def block_pruning(session: Connection) -> None:
    """Block pruning until the end of the transaction, which refers to shared rows. Concurrent calls do not wait."""
    beside(session, _RECORDING)


def plan(session: Connection, at: Cutoffs) -> dict[str, int]:
    """Return the number of rows that pruning would delete, by table. Writes only a temporary table."""
    left, found = _KeptRows(True), dict[str, int]()
    # A condition such as "no scan refers to it" has to see what the plan has removed already, and a plan may delete
    # nothing. The temporary table takes the place of the deletions.
    _going.create(session)
    try:
        for kind in KINDS:
            if not kind.is_on(at):
                continue
            goes = sa.and_(kind.goes(kind.table.c, at, left), left(kind.table))
            rows = sa.select(sa.literal(kind.table.name), _text_of(kind.keys)).where(goes)
            session.execute(_going.insert().from_select(["kind", "key"], rows))
            gone = sa.select(sa.func.count()).where(_going.c.kind == kind.table.name)
            found[str(kind.table.name)] = session.execute(gone).scalar_one()
        for kind in {kind.table.name: kind for kind in KINDS}.values():
            for column in kind.dependents if kind.is_on(at) else ():
                part: Any = column.table
                owner = sa.exists().where(_going.c.kind == kind.table.name, _going.c.key == sa.cast(column, sa.Text))
                parts = sa.select(sa.func.count()).select_from(part).where(owner)
                found[str(part.name)] = session.execute(parts).scalar_one()
    finally:
        _going.drop(session)
    return {table: count for table, count in found.items() if count}


def sizes(session: Connection) -> tuple[Size, ...]:
    """Return the sizes of all tables, the largest first. On SQLite this reads the whole file."""
    found = _sqlite_sizes(session) if session.dialect.name == "sqlite" else _postgresql_sizes(session)
    return tuple(sorted(found, key=lambda size: (-size.bytes, size.table)))


def total(session: Connection) -> int:
    """Return the size of the database in bytes, including free pages."""
    if session.dialect.name == "sqlite":
        pages, size = (session.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size"))
        return int(pages * size)
    return int(session.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one())


def _sqlite_sizes(session: Connection) -> Iterator[Size]:
    """Yield sizes from ``dbstat``. If SQLite was built without it, the number of bytes is 0."""
    owner: dict[str, str] = {}
    for name, table in session.exec_driver_sql("SELECT name, tbl_name FROM sqlite_master"):
        owner[name] = table
    pages: dict[str, int] = {}
    try:
        with session.begin_nested():
            for name, count in session.exec_driver_sql("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"):
                pages[owner.get(name, name)] = pages.get(owner.get(name, name), 0) + count
    except sa.exc.DBAPIError:
        pages = {}
    for found in metadata.tables.values():
        rows = session.execute(sa.select(sa.func.count()).select_from(found)).scalar_one()
        yield Size(str(found.name), rows, pages.get(found.name, 0))


def _postgresql_sizes(session: Connection) -> Iterator[Size]:
    """Yield sizes from the catalog. Row counts of large tables are estimates: counting takes minutes."""
    statement = (
        "SELECT c.relname, c.reltuples, pg_total_relation_size(c.oid) FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname = ANY(current_schemas(false))"
    )
    known = {name: (rows, size) for name, rows, size in session.execute(sa.text(statement))}
    for table in metadata.tables.values():
        rows, size = known.get(table.name, (0, 0))
        # -1: the table was never analysed.
        if size < _COUNTED_BYTES or rows < 0:
            rows = session.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
        yield Size(str(table.name), int(rows), int(size))
