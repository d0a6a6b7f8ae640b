"""Retention: what stays whatever its age, what goes, and that a plan says what removing does. On SQLite and
PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from scanner.config import Secret
from scanner.errors import RemoteError
from scanner.model.decision import Reason, ReasonKind, Verdict
from scanner.model.reference import Digest
from scanner.model.scan import ScanReport
from scanner.store import deliveries, gate, images, jobs, registries, retention, scans, schema
from scanner.store.session import Database, moment
from tests.scanner.store import factories as make
from tests.scanner.store import recorded
from tests.scanner.store.together import transact

LATER = timedelta(days=1000)


def at(database: Database, **cutoffs: datetime | None) -> retention.Cutoffs:
    """Everything that there is now is old."""
    with database.read() as session:
        now = moment(session) + LATER
    names = ("scans", "deliveries", "idempotency_keys", "evidence", "decisions", "sessions", "jobs", "outbox")
    return retention.Cutoffs(**dict.fromkeys(names, now) | cutoffs)


@pytest.fixture
def pruning(database: Database) -> None:
    """Decisions go only while a pruning runs."""
    with database.session() as session:
        jobs.request(session, jobs.RETENTION, jobs.ANYWHERE, "test")
        assert jobs.claim(session, "w", {jobs.RETENTION: None}, 600)


def prune(database: Database, cutoffs: retention.Cutoffs) -> dict[str, int]:
    removed: dict[str, int] = {}
    for kind in retention.KINDS:
        if not kind.is_on(cutoffs):
            continue
        after = None
        while True:
            with database.read() as session:
                keys = retention.candidates(session, kind, cutoffs, after=after, limit=2)
            if not keys:
                break
            after = keys[-1]
            batch = transact(database, lambda s: retention.remove(s, kind, cutoffs, keys))  # noqa: B023
            for table, rows in batch.rows.items():
                removed[table] = removed.get(table, 0) + rows
    with database.read() as session:
        assert scans.invariants(session) == []
    return removed


def count(database: Database, table: sa.Table) -> int:
    with database.read() as session:
        return int(session.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def found(name: str, *, tag: str = "1", number: int = 1) -> ScanReport:
    packages = [make.package(number), make.package(99)]
    return make.report(name, packages=packages, vulnerabilities=[make.vulnerability(number, packages[0])], tag=tag)


def is_judged(database: Database, report: ScanReport) -> bool:
    """The gate answers for it, and its evidence is there."""
    with database.read() as session:
        row = gate.current_decision(session, report.digest, "", report.repository, None)
        return row is not None and images.evidence(session, row.report_id) == report


@pytest.mark.usefixtures("pruning")
def test_an_image_that_a_tag_names_stays(database: Database) -> None:
    report = found("a")
    recorded.record(database, report)
    removed = prune(database, at(database))
    assert is_judged(database, report)
    assert removed == {"outbox": 1}
    assert count(database, schema.finding) == 1
    assert count(database, schema.scan) == 1, "the scan that brought the evidence in force"


@pytest.mark.usefixtures("pruning")
def test_what_a_tag_named_before_goes_with_all_that_only_it_had(database: Database) -> None:
    former, now = found("a", number=1), found("b", number=2)
    recorded.record(database, former)
    recorded.record(database, now)
    planned = plan(database, at(database))
    removed = prune(database, at(database))
    assert removed == planned
    assert not is_judged(database, former)
    assert is_judged(database, now)
    tables = (schema.listing, schema.image, schema.report, schema.decision, schema.verdict, schema.scan)
    assert [count(database, table) for table in tables] == [1] * 6
    with database.read() as session:
        names = session.execute(sa.select(schema.component.c.name)).scalars().all()
    assert sorted(names) == ["lib2", "lib99"], "what both had stays"


def plan(database: Database, cutoffs: retention.Cutoffs) -> dict[str, int]:
    with database.read() as session:
        return retention.plan(session, cutoffs)


@pytest.mark.usefixtures("pruning")
def test_nothing_goes_before_its_time(database: Database) -> None:
    recorded.record(database, found("a", number=1))
    recorded.record(database, found("b", number=2))
    with database.read() as session:
        early = moment(session) - timedelta(hours=1)
    kept = retention.Cutoffs(*[early] * 8)
    assert plan(database, kept) == {}
    assert prune(database, kept) == {}


@pytest.mark.usefixtures("pruning")
def test_what_is_kept_for_ever_stays(database: Database) -> None:
    recorded.record(database, found("a", number=1))
    recorded.record(database, found("b", number=2))
    assert plan(database, retention.Cutoffs()) == {}
    assert prune(database, retention.Cutoffs()) == {}
    removed = prune(database, at(database, evidence=None, scans=None))
    assert removed == {"outbox": 3}, "a decision stays while its scan does"


@pytest.mark.usefixtures("pruning")
@pytest.mark.parametrize("fate", ["failed", "undecided", "denied"])
def test_the_last_good_verdict_of_a_name_stays(database: Database, fate: str) -> None:
    good = found("good", number=1)
    recorded.record(database, good)
    if fate == "failed":
        held = recorded.claim(database)
        transact(database, lambda s: scans.fail(s, held, "no_such_image", "gone"))
    else:
        bad = found("bad", number=2)
        made = make.decided(bad, Verdict.DENY)
        kind = ReasonKind.INCOMPLETE if fate == "undecided" else ReasonKind.VIOLATION
        made = replace(made, decision=replace(made.decision, reasons=(Reason("any", kind, Verdict.DENY, "why"),)))
        held = recorded.claim(database)
        transact(database, lambda s: images.record(s, held, bad, make.evidence(bad), [made]))
        assert made.decision.undecided is (fate == "undecided")
    prune(database, at(database))
    assert is_judged(database, good)


@pytest.mark.usefixtures("pruning")
def test_an_image_known_by_its_digest_alone_stays_while_it_is_the_last_good_one(database: Database) -> None:
    former, last = found("a", tag="", number=1), found("b", tag="", number=2)
    recorded.record(database, former)
    recorded.record(database, last)
    prune(database, at(database))
    assert not is_judged(database, former)
    assert is_judged(database, last)


@pytest.mark.usefixtures("pruning")
@pytest.mark.parametrize("how", ["itself", "inside an index"])
def test_an_image_that_runs_stays(database: Database, how: str) -> None:
    """The extension point: a source of images in use adds a SELECT of their digests."""
    running = found("a", number=1)
    if how == "inside an index":
        running = replace(running, subject=replace(running.subject, digest=Digest.of(b"an index")))
    recorded.record(database, running)
    recorded.record(database, found("b", number=2))
    names = sa.select(sa.literal(str(running.images[0].image.digest)))
    retention.IN_USE.append(names)
    try:
        prune(database, at(database))
        assert is_judged(database, running)
    finally:
        retention.IN_USE.remove(names)
    prune(database, at(database))
    assert not is_judged(database, running)


@pytest.mark.usefixtures("pruning")
def test_a_tag_that_moved_a_moment_ago_keeps_what_it_named(database: Database) -> None:
    """Scanned long ago and tagged until yesterday: it may still run."""
    former = found("a", number=1)
    recorded.record(database, former)
    recorded.record(database, found("b", number=2))
    with database.session() as session:
        for table, column in ((schema.listing, "scanned_at"), (schema.image, "first_seen")):
            session.execute(table.update().values({column: moment(session) - timedelta(days=300)}))
        yesterday = moment(session) - timedelta(days=1)
    prune(database, at(database, evidence=yesterday))
    assert is_judged(database, former)


@pytest.mark.usefixtures("pruning")
def test_a_scan_stays_while_what_leads_to_it_does(database: Database) -> None:
    with database.session() as session:
        registry = registries.add(session, "registry.example.com", project="default", key=Secret("k" * 40)).id
        hook, _ = deliveries.create_hook(session, "push", "distribution", registry, Secret("k" * 40))
        delivered = deliveries.record(session, hook, "key", 1, "accepted").id
        asked = make.request("registry.example.com/a:1")
        with_delivery = scans.request(session, asked, delivery_id=delivered).scan_id
        with_key = scans.request(session, make.request("registry.example.com/b:1"), idempotency_key="k").scan_id
        alone = scans.request(session, make.request("registry.example.com/c:1")).scan_id
        waiting = scans.request(session, make.request("registry.example.com/d:1")).scan_id
        for scan_id in (with_delivery, with_key, alone):
            scans.cancel(session, scan_id)
    prune(database, at(database, deliveries=None, idempotency_keys=None))
    assert ids(database) == {with_delivery, with_key, waiting}
    prune(database, at(database, idempotency_keys=None))
    assert ids(database) == {with_key, waiting}
    planned = plan(database, at(database))
    assert prune(database, at(database)) == planned
    assert ids(database) == {waiting}, "what has not ended never goes"


def ids(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.execute(sa.select(schema.scan.c.id)).scalars())


@pytest.mark.usefixtures("pruning")
def test_a_scan_stays_while_another_was_merged_into_it(database: Database) -> None:
    """Both are as old, and both go: the merged one first, in the same run."""
    target = make.request("registry.example.com/a:1", force=True)
    with database.session() as session:
        first = scans.request(session, target).scan_id
        second = scans.request(session, target).scan_id
        for scan_id in (first, second):
            scans.cancel(session, scan_id)
    third = recorded.claim(database)
    with database.session() as session:
        ended = {"state": "cancelled", "reason": "duplicate", "merged_into": first, "finished_at": moment(session)}
        own = schema.scan.c.id == third.scan_id
        session.execute(schema.scan.update().where(own).values(**ended, lease_until=None))
        session.execute(schema.scan_attempt.update().values(ended_at=moment(session)))
    planned = plan(database, at(database))
    assert planned["scan"] == 3
    assert prune(database, at(database)) == planned


def test_the_database_lets_no_decision_go_while_no_pruning_runs(database: Database) -> None:
    recorded.record(database, found("a", number=1))
    recorded.record(database, found("b", number=2))
    transact(database, lambda s: s.execute(schema.verdict.delete()))
    with pytest.raises(sa.exc.DBAPIError, match="not deleted"):
        transact(database, lambda s: s.execute(schema.decision.delete()))
    assert count(database, schema.decision) == 2


@pytest.mark.usefixtures("pruning")
def test_the_last_job_of_a_kind_stays(database: Database) -> None:
    with database.session() as session:
        for key in ("a", "b"):
            jobs.cancel(session, jobs.request(session, jobs.UPDATE, key, "test"))
    assert prune(database, at(database)) == {"job": 1}
    with database.read() as session:
        assert [job.key for job in jobs.list_jobs(session, [jobs.UPDATE])] == ["b"]


@pytest.mark.usefixtures("pruning")
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time by itself
def test_nothing_is_removed_while_a_scan_is_being_recorded(database: Database) -> None:
    """A recording that had found a package there would link to a row that is gone."""
    recorded.record(database, found("a", number=1))
    recorded.record(database, found("b", number=2))
    cutoffs = at(database)
    kind = next(kind for kind in retention.KINDS if kind.table is schema.listing)
    with database.read() as session:
        keys = retention.candidates(session, kind, cutoffs, after=None, limit=10)
    with database.session() as recording:
        retention.block_pruning(recording)
        with database.session() as session:
            assert retention.remove(session, kind, cutoffs, keys) == retention.Batch({}, busy=True)
    with database.session() as session:
        assert retention.remove(session, kind, cutoffs, keys).rows["listing"] == 1


@pytest.mark.usefixtures("pruning")
def test_what_came_into_use_since_it_was_found_stays(database: Database) -> None:
    former = found("a", number=1)
    recorded.record(database, former)
    recorded.record(database, found("b", number=2))
    cutoffs = at(database)
    kind = next(kind for kind in retention.KINDS if kind.table is schema.listing)
    with database.read() as session:
        keys = retention.candidates(session, kind, cutoffs, after=None, limit=10)
    recorded.record(database, former)  # the tag went back
    with database.session() as session:
        assert retention.remove(session, kind, cutoffs, keys).rows == {}
    assert is_judged(database, former)


def test_sizes_name_every_table(database: Database) -> None:
    recorded.record(database, found("a"))
    with database.read() as session:
        sizes = {size.table: size for size in retention.sizes(session)}
        total = retention.total(session)
    assert sizes.keys() == schema.metadata.tables.keys()
    assert sizes["scan"].rows == 1
    assert 0 < sizes["scan"].bytes < total


# Tables whose rows no pruning removes: what bounds them.
BOUNDED = {
    "a person or an administrator makes each row": (
        "api_token break_glass exemption inventory_source notification_channel notification_subscription policy "
        "policy_version project project_member registry registry_poll revocation saved_view trust_root "
        "trust_root_version user_account vex_document vex_statement webhook"
    ),
    "a row for each thing that there is now, replaced by the next": (
        "alert base_watch name_signature running_mount running_workload trust_state worker"
    ),
    "removed with its owner": "notification_subject",
    "the writer removes rows after 30 days": "admission_review",
    "a row a day for each project": "trend",
    "a row for each rotation": "receipt_key",
    "pruned along its chain": "audit_log audit_checkpoint",
}


def test_no_table_grows_for_ever() -> None:
    """A new table needs a `Kind`, or what bounds it."""
    pruned = {kind.table.name for kind in retention.KINDS}
    pruned |= {column.table.name for kind in retention.KINDS for column in kind.dependents}
    bounded = {name for names in BOUNDED.values() for name in names.split()}
    assert pruned & bounded == set()
    assert pruned | bounded == schema.metadata.tables.keys()


def test_a_database_that_is_away_is_said(database: Database) -> None:
    with pytest.raises(RemoteError):
        plan(Database("postgresql://nobody@/none?host=/nonexistent"), retention.Cutoffs())


@pytest.mark.parametrize("kind", dict.fromkeys(retention.KINDS), ids=lambda kind: str(kind.table))
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # PostgreSQL reads small tables whole
def test_a_batch_does_not_read_the_whole_table(kind: retention.Kind, database: Database) -> None:
    """SQLite would, for a list of tuples or by an index of states: a batch of five took as long as a table is large."""
    keys = [tuple(f"{n}" if column.type.python_type is str else n for column in kind.keys) for n in range(50)]
    statements = (
        retention.still_going(kind, at(database), keys),
        kind.table.delete().where(retention._among(kind.keys, keys)),
    )
    for statement in statements:
        made = statement.compile(database.engine, compile_kwargs={"render_postcompile": True})
        values = tuple(made.construct_params()[name] for name in made.positiontup or ())
        processed = tuple(value.isoformat(" ") if isinstance(value, datetime) else value for value in values)
        with database.read() as session:
            steps = [str(step[-1]) for step in session.exec_driver_sql(f"EXPLAIN QUERY PLAN {made}", processed)]
        own = [step for step in steps if f" {kind.table.name} " in f"{step} "]
        assert own, steps
        assert "autoindex" in own[0] or "PRIMARY KEY" in own[0], steps
