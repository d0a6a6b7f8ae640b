"""What needs attention: counted and listed, and nobody is shown another project's."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from scanner.model.decision import Decision, Verdict
from scanner.model.finding import Severity, Signer, TrustStatus, Verification
from scanner.store import images, overview, scans, trust
from scanner.store.images import DecisionRecord
from scanner.store.session import Database
from tests.scanner.store import factories as make

OURS, THEIRS = frozenset({"default"}), frozenset({"shop"})


def record(database: Database, name: str, made: DecisionRecord | None = None, project: str = "default") -> None:
    packages = [make.package(1)]
    vulnerabilities = [make.vulnerability(4, packages[0]), make.vulnerability(2, packages[0])]
    repository = f"registry.example.com/{project}/{name}"
    found = make.report(name, repository=repository, packages=packages, vulnerabilities=vulnerabilities)
    with database.session() as session:
        scans.request(session, replace(make.request(f"{repository}:1"), project=project))
        held = scans.claim(session, "w", ["push"], 60)
        assert held
        images.record(session, held, found, make.evidence(found), [made or decided(name, Verdict.DENY)])


def decided(name: str, verdict: Verdict, environment: str = overview.PRODUCTION) -> DecisionRecord:
    return make.decided(make.report(name), verdict, environment)


def test_what_is_denied_in_production(database: Database) -> None:
    record(database, "denied")
    record(database, "allowed", decided("allowed", Verdict.ALLOW))
    record(database, "elsewhere", decided("elsewhere", Verdict.DENY, "staging"))
    with database.read() as session:
        count, listed = overview.denied_tags(session, OURS)
        assert (count, [d.repository for d in listed]) == (1, ["registry.example.com/default/denied"])
        assert overview.denied_tags(session, THEIRS) == (0, ())


def test_what_is_new_and_severe(database: Database) -> None:
    record(database, "one")
    record(database, "two", project="shop")
    with database.read() as session:
        count, found = overview.new_vulnerabilities(session, None)
        assert (count, [(v.name, v.severity, v.repositories) for v in found]) == (
            1,
            [("CVE-2026-00004", Severity.CRITICAL, 2)],
        )
        assert overview.new_vulnerabilities(session, THEIRS)[1][0].repositories == 1
        assert overview.new_vulnerabilities(session, frozenset())[0] == 0
        assert overview.new_vulnerabilities(session, None, timedelta(0))[0] == 0


def test_what_nobody_could_decide(database: Database) -> None:
    found = make.report("unknown")
    denied = make.decided(found, Verdict.DENY).decision
    assert denied.undecided
    record(database, "unknown", DecisionRecord(denied, "{}"))
    record(database, "known", DecisionRecord(_allowed("known"), "{}"))
    with database.read() as session:
        count, listed = overview.undecided(session, OURS)
        assert (count, [i.repository for i in listed]) == (1, ["registry.example.com/default/unknown"])
        assert overview.undecided(session, THEIRS)[0] == 0


def _allowed(name: str) -> Decision:
    return make.decided(make.report(name), Verdict.ALLOW).decision


def test_what_was_given_up_until_it_is_asked_for_again(database: Database) -> None:
    with database.session() as session:
        ticket = scans.request(session, make.request())
        held = scans.claim(session, "w", ["push"], 60)
        assert held
        scans.fail(session, held, "malformed_image", "broken")
        assert overview.given_up(session, OURS) == 1
        assert overview.given_up(session, THEIRS) == 0
        scans.rescan(session, ticket.scan_id, "somebody")
        assert overview.given_up(session, OURS) == 0


def test_signatures_that_end_soon(database: Database) -> None:
    for name, days in (("soon", 9), ("later", 400)):
        found = make.report(name, repository=f"registry.example.com/default/{name}")
        signer = Signer("release-team", expires=make.NOW + timedelta(days=days))
        signed = Verification("notary-v1", TrustStatus.VERIFIED, signers=(signer,))
        refused = replace(signed, status=TrustStatus.REFUSED, signers=(replace(signer, expires=make.NOW),))
        found = replace(found, images=(replace(found.images[0], verifications=(signed, refused)),))
        with database.session() as session:
            trust.note(session, found, "default")
    with database.read() as session:
        count, ending = trust.ending_signatures(session, OURS, make.NOW + timedelta(days=30))
        assert (count, [e.repository for e in ending]) == (1, ["registry.example.com/default/soon"])
        assert ending[0].expires_at == make.NOW + timedelta(days=9)
        assert trust.ending_signatures(session, THEIRS, make.NOW + timedelta(days=30)) == (0, ())
