"""A dry run examines everything that the policy applies to, whoever does which part of it, and says how much it was."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from scanner import catalog
from scanner.errors import ConflictError, LeaseLost, NotFoundError, UsageError
from scanner.model.actor import SERVICE, Actor
from scanner.model.audit import Action
from scanner.model.decision import Verdict
from scanner.model.finding import Severity
from scanner.model.scan import Progress, ScanReport, ScanState
from scanner.policy.rules import parse_policy
from scanner.services import dry_runs, inventory, policies, simulation
from scanner.store import audit, exemptions, jobs
from scanner.store import dry_runs as store
from scanner.store import inventory as stored_inventory
from scanner.store.schema import dry_run, dry_run_change, listing
from scanner.store.session import Database, moment
from tests.actors import ownerless, person
from tests.databases import BACKENDS, migrated_url
from tests.scanner.store import factories as make
from tests.scanner.store import recorded

ADA = person("ada")
POLICY = """apiVersion: dockwarden/v1
kind: Policy
metadata: {name: ours}
%srules:
  - {id: no-criticals, vulnerability: {severity: [critical]}, action: %s}
  - {id: no-privileges, check: privileged-container, action: %s}
"""


def text(action: str = "deny", match: str = "") -> str:
    return POLICY % (match and f"match: {match}\n", action, action)


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """SQLite, and PostgreSQL too for the tests that are marked with ``both``."""
    database = Database(migrated_url(getattr(request, "param", "sqlite"), tmp_path))
    yield database
    database.engine.dispose()


both = pytest.mark.parametrize("database", BACKENDS, indirect=True)


def critical(name: str) -> ScanReport:
    package = make.package(1)
    flaws = [make.vulnerability(1, package, severity=Severity.CRITICAL)]
    return make.report(name, packages=[package], vulnerabilities=flaws)


def requested(database: Database, wanted: str, actor: Actor = ADA, **more: object) -> dry_runs.View:
    with database.session() as session:
        return dry_runs.request(session, actor, wanted, **more)  # type: ignore[arg-type]


def run(database: Database, view: dry_runs.View, actor: Actor = ADA) -> dry_runs.View:
    with database.session() as session:
        job = jobs.claim(session, "w", {jobs.DRY_RUN: None}, 600)
    assert job
    assert job.id == view.run.id
    dry_runs.Examination(database, job, at_once=2).run()
    with database.read() as session:
        return dry_runs.get(session, actor, view.run.id)


def changed(database: Database, view: dry_runs.View, actor: Actor = ADA) -> Sequence[store.Change]:
    with database.read() as session:
        return store.changes(session, view.run.id, actor.projects, limit=1000).items


def write(database: Database, policy: str) -> None:
    with database.session() as session:
        policies.write(session, SERVICE, "ours", policy, if_version=None)


@both
def test_everything_is_examined_and_counted_by_rule_and_owner(database: Database) -> None:
    write(database, text("warn"))
    bad = [critical(f"bad{number}") for number in range(3)]
    for each in (*bad, make.report("good0"), make.report("good1")):
        recorded.record(database, each)
    view = run(database, requested(database, text()))
    assert view.finished
    share = view.run.images
    assert (share.known, share.matching, share.examined, share.denied, share.unchanged) == (5, 5, 5, 3, 2)
    assert share.complete
    found = changed(database, view)
    assert sorted(each.reference for each in found) == sorted(each.digest for each in bad)
    assert {(each.before, each.after, each.rules) for each in found} == {
        (Verdict.WARN, Verdict.DENY, ("no-criticals",))
    }
    with database.read() as session:
        assert store.groups(session, view.run.id, None) == (store.Group("no-criticals", "default", 3, 0),)
        first = store.changes(session, view.run.id, None, limit=2)
        rest = store.changes(session, view.run.id, None, cursor=first.next_cursor, limit=2)
        assert [*first.items, *rest.items] == list(found)
        assert rest.next_cursor is None
        none = store.Filter(rule="no-privileges")
        assert store.changes(session, view.run.id, None, none).items == ()
        (entry,) = audit.list_entries(session, audit.Filter(action="policy.dry_run")).items
    assert entry.detail["policy"] == "ours"


def test_what_the_policy_does_not_apply_to_is_not_a_part_of_the_share(database: Database) -> None:
    recorded.record(database, critical("bad"))
    view = run(database, requested(database, text(match="{images: ['elsewhere.example.com/**']}")))
    assert (view.run.images.known, view.run.images.matching, view.run.images.examined) == (1, 0, 0)


def test_a_policy_for_every_environment_is_tried_in_those_that_others_name(database: Database) -> None:
    """The default policy denies criticals for a request without an environment; in staging a policy allows them."""
    staging = text("warn", "{environments: [staging]}").replace("ours", "staging")
    with database.session() as session:
        policies.write(session, SERVICE, "staging", staging, if_version=None)
    recorded.record(database, critical("bad"))
    view = run(database, requested(database, text()))
    assert ("staging", "denied") in {(each.environment, each.change) for each in changed(database, view)}


def test_a_released_environment_of_the_former_version_is_seen(database: Database) -> None:
    write(database, text("deny", "{environments: [production]}"))
    recorded.record(database, critical("bad"))
    allow_all = text("warn").replace("ours", "lax")
    with database.session() as session:
        policies.write(session, SERVICE, "lax", allow_all, if_version=None)
    view = run(database, requested(database, text("deny", "{environments: [staging]}")))
    assert {(each.environment, each.change) for each in changed(database, view)} == {
        ("production", "released"),
        ("staging", "denied"),
    }


def test_a_dry_run_that_is_cut_off_continues(database: Database) -> None:
    write(database, text("warn"))
    for number in range(5):
        recorded.record(database, critical(f"bad{number}"))
    view, told = requested(database, text()), 0

    def cut_off(progress: Progress) -> None:
        nonlocal told
        told += 1
        if told == 3:
            raise LeaseLost("another worker has it")

    with database.session() as session:
        job = jobs.claim(session, "first", {jobs.DRY_RUN: None}, 600)
    assert job
    with pytest.raises(LeaseLost):
        dry_runs.Examination(database, job, cut_off, at_once=2).run()
    with database.session() as session:
        half = dry_runs.get(session, ADA, view.run.id)
        jobs.hand_back(session, job)
    assert 0 < half.run.images.examined < 5
    assert not half.finished
    whole = run(database, view)
    assert (whole.run.images.examined, whole.run.denied) == (5, 5)
    assert len({each.reference for each in changed(database, whole)}) == 5
    with pytest.raises(LeaseLost):  # the first worker wakes up
        dry_runs.Examination(database, job).run()


def test_what_runs_is_examined_too(database: Database) -> None:
    write(database, text("warn"))
    running = [
        {"name": name, "image": f"{make.REPOSITORY}:1", "source": "kubernetes", "privileged": name == "privileged"}
        for name in ("privileged", "plain")
    ]
    snapshot = inventory.Snapshot("production", "kubernetes", "cluster", 1, running)
    inventory.report(database, ownerless("agent", "inventory"), snapshot, "trivy")
    view = run(database, requested(database, text()))
    share = view.run.workloads
    assert (share.known, share.matching, share.examined, share.unscanned, share.denied) == (2, 2, 2, 2, 1)
    (found,) = changed(database, view)
    assert (found.subject, found.name, found.environment) == ("workload", "privileged", "production")


@both
def test_an_image_that_is_only_mounted_is_examined_too(database: Database) -> None:
    """The policy applies to the repository of the mounted image alone, and not to what the containers run."""
    only_tool = f"{{images: ['{make.REPOSITORY}']}}"
    write(database, text("warn", only_tool))
    tool = critical("tool")
    recorded.record(database, tool)
    mounts = [{"kind": "image", "target": "/tool", "source": f"{make.REPOSITORY}@{tool.digest}"}]
    plain = {"image": "registry.example.com/other:1", "source": "kubernetes"}
    running = [{"name": "mounts", **plain, "mounts": mounts}, {"name": "plain", **plain}]
    snapshot = inventory.Snapshot("production", "kubernetes", "cluster", 1, running)
    inventory.report(database, ownerless("agent", "inventory"), snapshot, "trivy")
    view = run(database, requested(database, text(match=only_tool)))
    share = view.run.workloads
    assert (share.known, share.matching, share.examined, share.unscanned, share.denied) == (2, 1, 1, 1, 1)
    found = {each.subject: each for each in changed(database, view)}
    assert found.keys() == {"image", "workload"}
    assert (found["workload"].name, found["workload"].rules) == ("mounts", ("no-criticals",))
    with database.read() as session:
        trial = simulation.Trial(session, parse_policy(text(match=only_tool), "ours", known=catalog.known_names()))
        mounting = stored_inventory.get(session, found["workload"].reference, None)
        another = trial.compare_workload(mounting, frozenset({"another"}))
    assert (another.after, another.rules, another.reasons) == (Verdict.DENY, (), ())  # it counts, and quotes nothing


def of_the_past(database: Database, wanted: str, at: datetime) -> dry_runs.View:
    """A dry run as of a moment; a request names a day, and these tests take less than one."""
    with database.session() as session:
        identifier = jobs.request(session, jobs.DRY_RUN, str(at), ADA.name)
        store.insert(session, identifier, ADA.person.id, None, "ours", wanted, at)
        view = dry_runs.get(session, ADA, identifier)
    return run(database, view)


def now(database: Database) -> datetime:
    """The moment now. What follows is later, also by SQLite's clock, which counts milliseconds."""
    with database.read() as session:
        found = moment(session)
        while moment(session) - found < timedelta(milliseconds=5):
            time.sleep(0.005)
    return found


@both
def test_as_of_a_past_moment(database: Database) -> None:
    """The evidence and the policies of that time: what was scanned or written later does not count."""
    earliest = now(database)
    write(database, text("warn"))
    recorded.record(database, critical("bad"))
    then = now(database)
    write(database, text("deny"))
    recorded.record(database, critical("new"))
    share = of_the_past(database, text(), then).run.images
    assert (share.matching, share.examined, share.later, share.denied) == (2, 1, 1, 1), "it warned at that time"
    today = run(database, requested(database, text()))
    assert (today.run.images.examined, today.run.denied) == (2, 0), "it denies now"
    before = of_the_past(database, text(), earliest)
    assert (before.run.images.later, before.run.images.examined) == (2, 0)


def test_as_of_a_moment_when_the_policy_was_disabled(database: Database) -> None:
    other = text("warn").replace("ours", "lax")
    with database.session() as session:
        policies.write(session, SERVICE, "lax", other, if_version=None)
    write(database, text("deny"))
    recorded.record(database, critical("bad"))
    enabled = now(database)
    with database.session() as session:
        policies.set_enabled(session, SERVICE, "ours", False)
    disabled = now(database)
    with database.session() as session:
        policies.set_enabled(session, SERVICE, "ours", True)
    assert of_the_past(database, text(), enabled).run.denied == 0
    assert of_the_past(database, text(), disabled).run.denied == 1


@pytest.mark.parametrize("ended", ["revoked", "never"])
def test_as_of_a_moment_with_an_exemption(database: Database, ended: str) -> None:
    write(database, text("warn"))
    recorded.record(database, critical("bad"))
    begins, ben = now(database), person("ben")
    with database.session() as session:
        found = exemptions.request(
            session,
            "default",
            ADA.person,
            images=("**",),
            rule="no-criticals",
            justification="accepted",
            expires_at=begins + timedelta(days=20),
        )
        exemptions.approve(session, found.id, ben.person)
    then = now(database)
    if ended == "revoked":
        with database.session() as session:
            exemptions.revoke(session, found.id, "ben")
    assert of_the_past(database, text(), begins).run.denied == 1, "it was not approved yet"
    assert of_the_past(database, text(), then).run.denied == 0


@pytest.mark.parametrize("days", [-1, 91])
def test_only_the_last_days(database: Database, days: int) -> None:
    with database.session() as session, pytest.raises(UsageError) as refused:
        dry_runs.request(session, ADA, text(), as_of=moment(session).date() - timedelta(days=days))
    assert refused.value.field == "as_of"


def test_one_run_of_the_same_question_and_few_at_once(database: Database) -> None:
    first = requested(database, text())
    assert requested(database, text()).run.id == first.run.id
    requested(database, text("warn"))
    requested(database, text(match="{environments: [a]}"))
    with pytest.raises(ConflictError) as refused:
        requested(database, text(match="{environments: [b]}"))
    assert refused.value.reason == "too_many_dry_runs"
    with database.session() as session:
        assert dry_runs.cancel(session, ADA, first.run.id).job.state is ScanState.CANCELLED
    with database.session() as session, pytest.raises(ConflictError):
        dry_runs.cancel(session, ADA, first.run.id)
    requested(database, text(match="{environments: [b]}"))


def test_other_people_and_other_projects(database: Database) -> None:
    write(database, text("warn"))
    recorded.record(database, critical("bad"))
    ben = person("ben", "viewer", frozenset({"elsewhere"}))
    view = run(database, requested(database, text()))
    with database.read() as session, pytest.raises(NotFoundError):
        dry_runs.get(session, ben, view.run.id)
    own = run(database, requested(database, text(), ben), ben)
    assert (own.run.images.known, own.run.denied) == (0, 0)
    with database.read() as session:
        assert store.changes(session, view.run.id, ben.projects).items == ()
        assert store.groups(session, view.run.id, ben.projects) == ()


def test_old_dry_runs_of_a_policy_are_replaced(database: Database) -> None:
    write(database, text("warn"))
    recorded.record(database, critical("bad"))
    views = [run(database, requested(database, text())) for _ in range(4)]
    with database.read() as session:
        assert sum(store.exists(session, each.run.id) for each in views) == 3
        rows = session.execute(sa.select(sa.func.count()).select_from(dry_run_change)).scalar_one()
    assert rows == 3


def valid(database: Database, wanted: str, actor: Actor = ADA) -> str | None:
    with database.read() as session:
        found = dry_runs.still_valid(session, actor, wanted)
    return found.run.id if found else None


@both
def test_a_finished_dry_run_is_valid_until_something_that_decides_changes(database: Database) -> None:
    write(database, text("warn"))
    recorded.record(database, critical("bad"))
    view = requested(database, text())
    assert valid(database, text()) is None, "it is not finished"
    run(database, view)
    assert valid(database, text()) == view.run.id
    assert valid(database, text("warn")) is None, "another text"
    recorded.record(database, critical("new"))
    assert valid(database, text()) is None


def test_another_policy_ends_what_a_dry_run_says(database: Database) -> None:
    recorded.record(database, critical("bad"))
    view = run(database, requested(database, text()))
    assert valid(database, text()) == view.run.id
    with database.session() as session:
        policies.write(session, SERVICE, "other", text().replace("ours", "other"), if_version=None)
        audit.record(session, SERVICE, Action.POLICY_WRITE, "other")
    assert valid(database, text()) is None


def test_a_dry_run_of_a_past_day_or_of_long_ago_says_nothing_about_now(database: Database) -> None:
    recorded.record(database, critical("bad"))
    run(database, requested(database, text(), as_of=datetime.now(UTC).date() - timedelta(days=1)))
    assert valid(database, text()) is None
    view = run(database, requested(database, text()))
    assert valid(database, text()) == view.run.id
    with database.session() as session:
        session.execute(dry_run.update().values(created_at=datetime.now(UTC) - timedelta(minutes=61)))
    assert valid(database, text()) is None


def test_three_hundred_images_have_the_right_totals(database: Database) -> None:
    """300 images of 30 repositories. Their evidence is one of three results, so that the test costs little."""
    write(database, text("warn"))
    results = [critical("bad0"), critical("bad1"), make.report("good0")]
    for each in results:
        recorded.record(database, each)
    with database.session() as session:
        columns = [column for column in listing.c if column.name != "id"]
        rows = [dict(row) for row in session.execute(sa.select(*columns)).mappings()]
        copies = [
            {**row, "repository": f"{row['repository']}-{number // 10}", "tag": f"copy-{number}"}
            for number in range(99)
            for row in rows
        ]
        session.execute(listing.insert(), copies)
    with database.session() as session:
        job_view = dry_runs.request(session, ADA, text())
        job = jobs.claim(session, "w", {jobs.DRY_RUN: None}, 600)
    assert job
    dry_runs.Examination(database, job).run()
    with database.read() as session:
        view = dry_runs.get(session, ADA, job_view.run.id)
        (group,) = store.groups(session, view.run.id, None)
    share = view.run.images
    assert (share.known, share.matching, share.examined) == (300, 300, 300)
    assert (share.denied, share.released, share.unchanged) == (200, 0, 100)
    assert (group.rule, group.denied, group.released) == ("no-criticals", 200, 0)
