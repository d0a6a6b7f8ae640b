"""What was revoked is believed no more from that moment on, at the gate too, until what rests on it was looked at
again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from scanner import catalog
from scanner.advisories import database as advisories
from scanner.config import Settings
from scanner.errors import NotFoundError, UsageError
from scanner.model.decision import Decision, Revoked, Verdict
from scanner.model.reference import Digest
from scanner.model.scan import ScanReport, ScanState
from scanner.services import decisions
from scanner.store import accounts, gate, images, jobs, revocations, scans
from scanner.store.schema import listing, scan
from scanner.store.session import Database
from scanner.worker import maintenance
from tests import fleet
from tests.databases import BACKENDS, migrated_url
from tests.scanner.worker.test_maintenance import ADVISORY, KEY, fill, keep_up, publish, states


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    database = Database(migrated_url(request.param, tmp_path))
    yield database
    database.engine.dispose()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", rematch_per_second=0, secret_key=KEY)


def evidence(database: Database, name: str) -> ScanReport:
    with database.read() as session:
        query = sa.select(listing.c.report_id).where(listing.c.repository.like(f"%/{name}"))
        return images.evidence(session, session.execute(query).scalar_one())


def decide(database: Database, found: ScanReport) -> Decision:
    with database.session() as session:
        return decisions.decide_all(session, found, catalog.known_names(), catalog.remedies())[0].decision


def revoke(database: Database, what: Revoked) -> revocations.RevocationView:
    with database.session() as session:
        return revocations.revoke(session, what, "it misses things", "security")


def test_an_engines_version(database: Database, settings: Settings, tmp_path: Path) -> None:
    publish(settings, tmp_path / "one", age=1)
    fill(database, settings, tmp_path, 3, 1)
    found = evidence(database, "app0")
    version = found.images[0].engines[0].version
    with database.session() as session:
        token = accounts.create_token(session, "ci", ("gate",), KEY)[1]
    asking, hashed = gate.Gate(database), accounts.hash_token(token.reveal(), KEY)
    before = asking.ask(hashed, found.digest, found.repository, "")
    assert before is not None
    assert before.current
    assert decide(database, found).verdict is Verdict.ALLOW

    made = revoke(database, Revoked("trivy", version))
    asked = asking.ask(hashed, found.digest, found.repository, "")
    assert asked is not None
    assert not asked.current, "the gate's fast path must not answer from what rests on it"
    decision = decide(database, found)
    assert (decision.verdict, decision.undecided) == (Verdict.DENY, True)
    assert [r.slug for r in decision.reasons] == ["engine_revoked"]
    with database.read() as session:
        resting = revocations.affected_listings(session, made.what)
    assert sorted(r.repository.rpartition("/")[2] for r in resting) == ["app0", "app1", "app2"]

    keep_up(settings, database)
    with database.read() as session:
        queued = session.execute(
            sa.select(scan.c.target, scan.c.lane, scan.c.force).where(scan.c.state == "queued")
        ).all()
        assert jobs.list_jobs(session, [jobs.REQUEUE])[0].state is ScanState.DONE
    assert sorted(row.target.partition("@")[0] for row in queued) == [f"r.example.com/shop/app{n}:1" for n in range(3)]
    assert {(row.lane, bool(row.force)) for row in queued} == {("background", True)}

    # Looked at again by another version, it is believed again.
    other = replace(found.images[0].engines[0], version="99.0.0", binary=Digest.of(b"another build"))
    renewed = replace(found, images=(replace(found.images[0], engines=(other,)),))
    assert decide(database, renewed).verdict is Verdict.ALLOW

    with database.session() as session:
        revocations.lift(session, made.id, "security")
    assert decide(database, found).verdict is Verdict.ALLOW
    with pytest.raises(NotFoundError), database.session() as session:
        revocations.lift(session, made.id, "security")


def test_a_database_until_a_newer_one_said_the_same(database: Database, settings: Settings, tmp_path: Path) -> None:
    publish(settings, tmp_path / "one", age=1)
    fill(database, settings, tmp_path, 2, 1)
    digest = advisories.status(settings).digest
    found = evidence(database, "app1")
    revoke(database, Revoked(digest=str(digest)))
    assert decide(database, found).undecided
    keep_up(settings, database)
    with database.read() as session:
        assert jobs.list_jobs(session, [jobs.REMATCH]) == (), "nothing is matched with what was revoked"
    publish(settings, tmp_path / "two", ADVISORY)
    keep_up(settings, database)
    assert states(database)["app0"][0] == "deny"  # by the new advisory: a violation, no longer unknown
    assert not decide(database, evidence(database, "app0")).undecided
    assert decide(database, found).verdict is Verdict.ALLOW


def test_the_older_one_is_good_enough_when_the_newest_is_revoked(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    publish(settings, tmp_path / "old", age=2)
    fill(database, settings, tmp_path, 2, 1)
    publish(settings, tmp_path / "bad", ADVISORY, age=1)
    keep_up(settings, database)
    assert states(database)["app0"][0] == "deny"
    revoke(database, Revoked(digest=str(advisories.status(settings).digest)))
    publish(settings, tmp_path / "again", age=2)
    keep_up(settings, database)
    assert {v for v, _ in states(database).values()} == {"allow"}


def test_what_names_nothing_is_refused() -> None:
    for bad in (
        ("", "", ""),
        ("trivy", "", ""),
        ("", "1", ""),
        ("trivy", "1", "sha256:" + "0" * 64),
        ("", "", "sha256:x"),
    ):
        with pytest.raises(UsageError):
            revocations.parse_revoked(*bad)
    assert str(revocations.parse_revoked("trivy", "0.76.0")) == "trivy 0.76.0"


def test_a_requeue_that_was_cut_off_asks_for_nothing_twice(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    publish(settings, tmp_path / "one", age=1)
    fill(database, settings, tmp_path, 4, 1)
    with database.read() as session:
        second = sorted(session.execute(sa.select(listing.c.id)).scalars())[1]
    made = revoke(database, Revoked("trivy", evidence(database, "app0").images[0].engines[0].version))
    can = maintenance.plan(maintenance.Upkeep(settings, database))
    with database.session() as session:
        job = jobs.claim(session, "w", can, 60)
        assert job is not None
        jobs.keep(session, job, {"revocation": made.id, "after": second, "queued": 2})
    with database.session() as session:
        assert jobs.cancel(session, job.id)
        jobs.request(session, jobs.REQUEUE, "again", "x", {"revocation": made.id, "after": second, "queued": 2})
    keep_up(settings, database)
    with database.read() as session:
        states_ = [s.state for s in scans.list_scans(session, None).items]
    assert states_.count(ScanState.QUEUED) == 2


def test_fleet_is_what_scans_leave(settings: Settings, tmp_path: Path) -> None:
    """The control: these tests rest on evidence that an engine's own report would have been."""
    publish(settings, tmp_path / "one", ADVISORY)
    answers = fleet.look_up(settings, [fleet.debian("librare", "2.0-1")], tmp_path)
    assert [v.id for items in answers.found.values() for v in items] == [ADVISORY.id]


def test_on_the_command_line(settings: Settings, tmp_path: Path) -> None:
    from tests.test_end_to_end import dockwarden

    nothing = dockwarden(settings, "advisories", "rematch")
    assert nothing.returncode == 2
    assert "there is no database here yet" in nothing.stderr
    database = Database(settings.database)
    database.upgrade()
    publish(settings, tmp_path / "one", age=1)
    fill(database, settings, tmp_path, 3, 1)
    publish(settings, tmp_path / "two", ADVISORY)
    done = dockwarden(settings, "advisories", "rematch", DOCKWARDEN_SECRET_KEY=KEY.reveal())
    assert done.returncode == 0, done.stderr
    assert "1 image decided again, 1 new finding; 2 confirmed" in done.stderr
    assert states(database)["app0"][0] == "deny"
    for bad in (
        ["--engine", "trivy"],
        [],
        ["--database", "latest"],
        ["--engine", "t", "--version", "1", "--database", "sha256:" + "0" * 64],
    ):
        assert dockwarden(settings, "advisories", "revoke", *bad).returncode == 2
    version = evidence(database, "app0").images[0].engines[0].version
    said = dockwarden(
        settings, "advisories", "revoke", "--engine", "trivy", "--version", version, "--reason", "why not"
    )
    assert said.returncode == 0, said.stderr
    assert "3 decisions are based on it" in said.stderr
    assert said.stdout.count("r.example.com/shop/app") == 3
    listed = dockwarden(settings, "advisories", "revocations").stdout
    assert f"trivy {version}" in listed
    assert "active  why not" in listed
    lifted = dockwarden(settings, "advisories", "revocations", "--lift", listed.split()[0])
    assert "lifted" in lifted.stdout
