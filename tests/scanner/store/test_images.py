"""Recording: all of it or nothing, in any order, whatever the text; and reading it back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError

from scanner.errors import ConflictError, NotFoundError
from scanner.model.decision import Verdict
from scanner.model.finding import Component, Incomplete
from scanner.model.scan import ImageReport, ScanReport
from scanner.store import images, listings, scans, schema
from scanner.store.schema import component, decision, finding, image_component, outbox, tag_move, verdict
from scanner.store.session import Database
from tests.scanner.store import factories
from tests.scanner.store.recorded import claim, record
from tests.scanner.store.together import together, transact

# Beyond the Basic Multilingual Plane's easy part: three bytes each, nothing that compresses.
CJK = "".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(1500))


def count(database: Database, table: sa.Table) -> int:
    with database.read() as session:
        return int(session.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


@pytest.fixture(autouse=True)
def _invariants(database: Database) -> object:
    yield
    with database.read() as session:
        assert scans.invariants(session) == []


def test_the_evidence_comes_back_as_it_was(database: Database) -> None:
    found = factories.large_report()
    record(database, found)
    with database.read() as session:
        assert listings.newest_report(session, found.digest, None)[1] == found


def test_counts_are_of_findings_told_once(database: Database) -> None:
    package = factories.package(1)
    twice = [
        factories.vulnerability(1, package),
        factories.vulnerability(1, package),
        factories.vulnerability(2, package),
    ]
    record(database, factories.report(packages=[package], vulnerabilities=twice))
    with database.read() as session:
        (listed,) = listings.list_images(session, None).items
    assert sum(listed.counts.values()) == 2
    assert listed.fixable == 1


def test_a_rescan_replaces_links_and_keeps_what_was_decided(database: Database) -> None:
    packages = [factories.package(n) for n in range(3)]
    record(database, factories.report(packages=packages, vulnerabilities=[factories.vulnerability(1, packages[0])]))
    record(database, factories.report(packages=packages[:1]), Verdict.DENY)
    assert count(database, finding) == 0
    assert count(database, image_component) == 1
    assert count(database, component) == 3
    with database.read() as session:
        verdicts = [d.verdict for d in listings.decisions(session, factories.image().digest).items]
        (listed,) = listings.list_images(session, None).items
    assert verdicts == [Verdict.DENY, Verdict.ALLOW]
    assert listed.verdict is Verdict.DENY


def test_a_fault_on_the_way_leaves_nothing(database: Database) -> None:
    """Promise 2: nothing half-written is shown."""
    found, held = factories.large_report(), claim(database)

    class Pulled(Exception):
        pass

    def break_off(session: Connection) -> None:
        images.record(session, held, found, factories.evidence(found), [factories.decided(found)])
        raise Pulled

    with pytest.raises(Pulled):
        transact(database, break_off)
    for table in (component, finding, decision, verdict, outbox, tag_move):
        assert count(database, table) == 0
    with database.read() as session, pytest.raises(NotFoundError):
        listings.newest_report(session, found.digest, None)
    transact(database, lambda s: images.record(s, held, found, factories.evidence(found), [factories.decided(found)]))


def test_scans_that_end_together_do_not_deadlock(database: Database) -> None:
    """Four told the same packages in opposite orders: on PostgreSQL six of twenty were ended by the server."""
    for turn in range(3):
        told = [factories.large_report(f"{turn}-{n}", order=1 if n % 2 else -1) for n in range(4)]
        held = [claim(database) for _ in told]

        def one(n: int, told: list[ScanReport] = told, held: list[scans.Claim] = held) -> None:
            made = [factories.decided(told[n])]
            transact(database, lambda s: images.record(s, held[n], told[n], factories.evidence(told[n]), made))

        assert together(4, one) == [None] * 4


def test_two_engines_may_record_one_image_together(database: Database) -> None:
    record(database, factories.large_report())  # the row of the image is there: nobody waits for its insert
    told = [replace(factories.large_report(), tag=f"t{n % 2}") for n in range(4)]
    held = [claim(database) for _ in told]

    def one(n: int) -> None:
        made = [factories.decided(told[n])]
        transact(database, lambda s: images.record(s, held[n], told[n], factories.evidence(told[n]), made))

    assert together(4, one) == [None] * 4
    assert count(database, finding) == 450
    assert count(database, verdict) == 1


@pytest.mark.parametrize("text", ["a\0b", CJK, "x" * 9000, "\u202e<script>", "'; DROP TABLE image; --", "\\u0000"])
def test_no_text_in_a_report_loses_the_evidence(database: Database, text: str) -> None:
    """G20: a NUL made the insert fail, and so did a package URL longer than an index row, each time anew until the
    scan was dead.
    """
    package = Component(f"pkg:npm/{text}@1", text, text, text)
    found = factories.report(
        packages=[package],
        vulnerabilities=[
            factories.vulnerability(1, package, id=f"GHSA-{text}", title=text, description=text, url=text)
        ],
    )
    record(database, found)
    with database.read() as session:
        assert listings.newest_report(session, found.digest, None)[1] == found
        assert set(images.first_seen_times(session, found.repository, found)) == {(package.purl, f"GHSA-{text}")}


def test_long_names_that_differ_at_their_end_stay_two(database: Database) -> None:
    long = "pkg:npm/" + "a" * 2000
    record(database, factories.report(packages=[Component(long + n, "a", n, "npm") for n in "12"]))
    assert count(database, image_component) == 2


def test_several_images_of_an_index_are_recorded_together(database: Database) -> None:
    one, two = factories.large_report("one"), factories.large_report("two")
    record(database, replace(one, images=one.images + two.images))
    assert count(database, finding) == 900


@pytest.mark.parametrize(
    ("what", "table"),
    [(w, t) for w in ("UPDATE", "DELETE") for t in ("decision", "audit_log", "report")]
    + [("UPDATE", "policy_version")],
)
def test_what_was_decided_stays(database: Database, table: str, what: str) -> None:
    """I6.

    The database itself refuses it, whoever asks. Evidence and policies in use are kept from deletion by what refers
    to them.
    """
    from scanner.model.audit import Action
    from scanner.store import audit, policies
    from tests.actors import person

    record(database, factories.report())
    with database.session() as session:
        audit.record(session, person("alice"), Action.SCAN_REQUEST, "x")
        policies.put(session, "p", "text", "alice")
    column = {"decision": "verdict", "audit_log": "actor", "report": "tag", "policy_version": "text"}[table]
    statement = f"DELETE FROM {table}" if what == "DELETE" else f"UPDATE {table} SET {column} = 'changed'"
    with pytest.raises((DatabaseError, ConflictError)), database.session() as session:
        session.execute(sa.text(statement))


def test_first_seen_stays_what_it_was(database: Database) -> None:
    package = factories.package(1)
    old, new = factories.vulnerability(1, package), factories.vulnerability(2, package)
    record(database, factories.report(packages=[package], vulnerabilities=[old]))
    with database.read() as session:
        before = images.first_seen_times(session, factories.REPOSITORY, factories.report(vulnerabilities=[old]))
    record(database, factories.report("next", packages=[package], vulnerabilities=[old, new]))
    with database.read() as session:
        after = images.first_seen_times(session, factories.REPOSITORY, factories.report(vulnerabilities=[old, new]))
    assert after[package.purl, old.id] == before[package.purl, old.id]
    assert after[package.purl, new.id] >= after[package.purl, old.id]


def test_a_tag_has_a_history(database: Database) -> None:
    for name in ("a", "a", "b", "a"):
        record(database, factories.report(name))
    assert count(database, tag_move) == 3


def test_a_change_of_verdict_is_told_once(database: Database) -> None:
    for judged in (Verdict.ALLOW, Verdict.ALLOW, Verdict.DENY):
        record(database, factories.report(), judged)
    assert count(database, outbox) == 2


def test_incomplete_evidence_is_not_current(database: Database) -> None:
    """Unknown is never clean: such a scan is not an answer to the next who asks."""
    found = factories.report()
    gap = ImageReport(found.images[0].image, found.images[0].engines, incomplete=(Incomplete("unsupported_os"),))
    held = claim(database)
    transact(database, lambda s: scans.settle(s, held, found.digest, "db"))
    partly = replace(found, images=(gap,))
    made = [factories.decided(partly)]
    transact(database, lambda s: images.record(s, held, partly, factories.evidence(partly), made))
    with database.read() as session:
        assert scans.current(session, found.digest, "trivy", "default") is None


def test_evidence_without_a_repository_has_no_tag_and_no_first_seen(database: Database) -> None:
    """That of an archive: it has no name that could be pulled, and none that a workload could run."""
    packages = [factories.package(1)]
    found = factories.report(
        repository="", tag="", packages=packages, vulnerabilities=[factories.vulnerability(1, packages[0])]
    )
    record(database, replace(found, reference="image.tar"))
    again = replace(found, reference="image.tar", images=factories.report(packages=packages).images)
    record(database, again)
    with database.read() as session:
        assert images.first_seen_times(session, "", found) == {}
        for table in (schema.first_seen, schema.tag_move, schema.name_signature):
            assert session.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() == 0, table.name
