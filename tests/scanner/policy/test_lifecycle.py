"""A release past its end: nobody lists its new vulnerabilities, so silence is not clean, whenever that day comes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from scanner import catalog
from scanner.model.decision import ReasonKind, Verdict
from scanner.model.finding import Coverage, EngineReport, Incomplete
from scanner.model.scan import ScanReport
from scanner.policy.context import Context
from scanner.policy.evaluate import evaluate
from scanner.policy.rules import PolicyError, default_policy, parse_policy
from scanner.scanning.pipeline import with_end_of_life
from tests.reports_factory import NOW, engine, image_report, report, simple, vulnerability

KNOWN = catalog.known_names()
HEAD = "apiVersion: dockwarden/v1\nkind: Policy\nmetadata: {name: test}\nadvisories: {max_age: 9999d}\nrules:\n"


def on(family: str, version: str, **more: object) -> EngineReport:
    return replace(engine(), coverage=Coverage(family, version, packages=10, **more))  # type: ignore[arg-type]


def of(coverage: Coverage) -> ScanReport:
    found = simple()
    image = found.images[0]
    return replace(found, images=(replace(image, engines=(replace(image.engines[0], coverage=coverage),)),))


def test_an_engine_that_does_not_say_is_helped_by_the_table() -> None:
    living = with_end_of_life(on("debian", "12"), date(2028, 6, 30))
    assert (living.coverage.os_supported, living.coverage.os_end_of_life) == (True, date(2028, 6, 30))
    assert not living.incomplete
    dead = with_end_of_life(on("alpine", "3.19.1"), date(2025, 11, 2))
    assert dead.coverage.os_supported is False
    assert [gap.reason for gap in dead.incomplete] == ["unsupported_os"]


def test_an_engine_that_says_is_believed_and_not_told_twice() -> None:
    said = replace(
        on("alpine", "3.19", os_supported=False), incomplete=(Incomplete("unsupported_os", "its own words"),)
    )
    assert with_end_of_life(said, date(2026, 1, 1)).incomplete == said.incomplete


def test_what_is_not_known_stays_unknown() -> None:
    strange = on("mystery", "1")
    assert with_end_of_life(strange, date(2026, 1, 1)) == strange


def test_the_day_that_support_ends_the_decision_turns() -> None:
    by = parse_policy(HEAD + "  - {id: bad, vulnerability: {severity: [critical]}, action: deny}\n", known=KNOWN)
    ends = (NOW + timedelta(days=30)).date()
    found = of(Coverage("debian", "12", True, 10, (), ends))
    now = evaluate(found, by, Context(NOW))
    assert now.verdict is Verdict.ALLOW
    turns = datetime.combine(ends, datetime.min.time(), UTC) + timedelta(days=1)
    assert now.valid_until == turns
    later = evaluate(found, by, Context(turns))
    assert (later.verdict, later.undecided) == (Verdict.DENY, True)
    assert [r.slug for r in later.reasons] == ["unsupported_os"]


def test_a_policy_can_ask_how_long_it_is_supported() -> None:
    by = parse_policy(
        HEAD + "  - {id: soon, when: 'image.supported_days < 90', action: warn, incomplete: deny}\n", known=KNOWN
    )
    soon, late = (of(Coverage("debian", "12", True, 10, (), (NOW + timedelta(days=d)).date())) for d in (60, 400))
    assert evaluate(soon, by, Context(NOW)).verdict is Verdict.WARN
    assert evaluate(late, by, Context(NOW)).verdict is Verdict.ALLOW
    unknown = evaluate(of(Coverage("mystery", "1", None, 10)), by, Context(NOW))
    assert (unknown.verdict, unknown.reasons[0].kind) == (Verdict.DENY, ReasonKind.INCOMPLETE)


@pytest.mark.parametrize("status", ["affected", "will_not_fix", "fix_deferred", "under_investigation", "end_of_life"])
def test_each_word_of_the_distribution_is_selected_by_itself(status: str) -> None:
    words = ["affected", "will_not_fix", "fix_deferred", "under_investigation", "end_of_life"]
    items = [vulnerability(f"CVE-{n}", fixed=None, status=word) for n, word in enumerate(words)]
    by = parse_policy(HEAD + f"  - {{id: x, vulnerability: {{status: [{status}]}}, action: deny}}\n", known=KNOWN)
    reasons = evaluate(report(image_report([engine(items)])), by, Context(NOW)).reasons
    assert [r.subject for r in reasons] == [f"CVE-{words.index(status)}"]
    counted = parse_policy(
        HEAD + f"  - {{id: x, when: 'counts.{status} == 1 && counts.unfixed == 5', action: deny}}\n", known=KNOWN
    )
    assert evaluate(report(image_report([engine(items)])), counted, Context(NOW)).verdict is Verdict.DENY


def test_a_word_that_no_distribution_uses_is_refused_where_it_stands() -> None:
    with pytest.raises(PolicyError, match="did you mean 'will_not_fix'") as caught:
        parse_policy(HEAD + "  - id: x\n    action: deny\n    vulnerability:\n      status: [wont_fix]\n", known=KNOWN)
    assert (caught.value.problems[0].line, caught.value.problems[0].column) == (9, 7)


def test_the_default_policy_says_it_too() -> None:
    found = of(Coverage("debian", "9", True, 10, (), date(2022, 6, 30)))
    assert evaluate(found, default_policy(KNOWN), Context(NOW)).undecided
