"""Others' SBOMs count where a policy takes their word, for what nobody recognised, and only as far as they tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from scanner.model.decision import Decision, ReasonKind, Revoked, Verdict
from scanner.model.finding import (
    NO_PACKAGE,
    NO_SYSTEM,
    ONLY_PROGRAMS,
    Component,
    Coverage,
    EngineReport,
    Incomplete,
    Vulnerability,
)
from scanner.model.reference import Digest
from scanner.model.scan import AttachedSbom, ScanReport
from scanner.policy.context import Context
from scanner.policy.evaluate import evaluate
from scanner.policy.rules import Policy, PolicyError, parse_policy
from tests.reports_factory import NOW, engine, simple, vulnerability
from tests.scanner.policy.test_evaluate import HEAD, KNOWN, exemption, reports, vulnerabilities

RULE = "rules:\n  - {id: severe, vulnerability: {severity: [critical, high]}, action: deny}\n"
ACCEPT = "attached_sboms: {accept: true}\n"
SILENT = parse_policy(HEAD + RULE, known=KNOWN)
ACCEPTING = parse_policy(HEAD + ACCEPT + RULE, known=KNOWN)
LISTED = (Component("pkg:pypi/fine@1.0", "fine", "1.0", "pypi"),)


def said(*found: Vulnerability, **more: Any) -> EngineReport:
    return replace(engine(found, **more), coverage=Coverage(packages=1), components=())


def sbom(*answers: EngineReport, **more: Any) -> AttachedSbom:
    return AttachedSbom(Digest.of(b"SBOM"), "cyclonedx", LISTED, answers=answers, **more)


def having(found: ScanReport, *sboms: AttachedSbom, gaps: Sequence[Incomplete] = ()) -> ScanReport:
    image = replace(found.images[0], attached=sboms, incomplete=tuple(gaps))
    return replace(found, images=(image,))


def decide(found: ScanReport, by: Policy = ACCEPTING, **context: Any) -> Decision:
    return evaluate(found, by, Context(**{"now": NOW, **context}))


def unknown_image(*sboms: AttachedSbom, gap: Incomplete = NO_PACKAGE) -> ScanReport:
    return having(simple(incomplete=[gap], packages=0), *sboms, gaps=[ONLY_PROGRAMS])


@pytest.mark.parametrize("gap", [NO_PACKAGE, NO_SYSTEM, Incomplete("program_unread", "server")])
def test_an_sbom_tells_what_nobody_recognised(gap: Incomplete) -> None:
    found = unknown_image(sbom(said()), gap=gap)
    decision = decide(found)
    assert decision.verdict is Verdict.ALLOW
    assert {reason.kind for reason in decision.reasons} == {ReasonKind.SATISFIED}
    assert all(f"filled by the cyclonedx SBOM {Digest.of(b'SBOM')}" in reason.message for reason in decision.reasons)
    assert decision.valid_until == NOW + timedelta(hours=168, seconds=1), "it ages with the advisories that were asked"
    assert decide(found, SILENT).undecided, "never unless a policy says so"


def test_harm_in_an_sbom_counts() -> None:
    decision = decide(unknown_image(sbom(said(vulnerability()))))
    assert (decision.verdict, decision.undecided) == (Verdict.DENY, False)
    (why,) = (reason for reason in decision.reasons if reason.kind is ReasonKind.VIOLATION)
    assert f"listed by the cyclonedx SBOM {Digest.of(b'SBOM')} attached to the image" in why.message
    whole = having(simple(), sbom(said(vulnerability())))
    assert (decide(whole).verdict, decide(whole, SILENT).verdict) == (Verdict.DENY, Verdict.ALLOW)
    counting = "rules:\n  - {id: none, when: 'counts.critical > 0', action: deny}\n"
    assert decide(whole, parse_policy(HEAD + ACCEPT + counting, known=KNOWN)).verdict is Verdict.DENY
    assert decide(whole, parse_policy(HEAD + counting, known=KNOWN)).verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    "theirs",
    [
        sbom(),
        AttachedSbom(Digest.of(b"SBOM"), "spdx", problem="not JSON"),
        sbom(said(incomplete=[Incomplete("not_looked_up", "the engine could not look up x")])),
        sbom(said(updated_at=None)),
        sbom(said(updated_at=NOW - timedelta(hours=169))),
        sbom(said(), partial=True),
    ],
    ids=["not looked up", "unreadable", "in part", "age unknown", "stale", "partial by its own word"],
)
def test_an_sbom_that_does_not_tell_leaves_it_unknown(theirs: AttachedSbom) -> None:
    assert decide(unknown_image(theirs)).undecided
    assert decide(unknown_image(theirs, replace(sbom(said()), digest=Digest.of(b"other")))).verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    "gap",
    [
        Incomplete("unsupported_os", "debian 8 is past its end of life"),
        Incomplete("nothing_to_scan", "the image lists 90 packages, but the engine found none"),
        Incomplete("package_db_deleted"),
        Incomplete("scanner_crashed"),
    ],
)
def test_other_gaps_no_sbom_can_tell(gap: Incomplete) -> None:
    assert decide(unknown_image(sbom(said()), gap=gap)).undecided
    assert decide(having(simple(), sbom(said()), gaps=[gap])).undecided


def test_no_engine_is_not_made_up_for_by_an_sbom() -> None:
    found = unknown_image(sbom(said()))
    assert decide(replace(found, images=(replace(found.images[0], engines=()),))).undecided


def test_what_the_look_up_rests_on_may_be_revoked() -> None:
    lost = Revoked("trivy", "0.70.0")
    found = unknown_image(sbom(replace(said(), version="0.70.0")))
    assert decide(found).verdict is Verdict.ALLOW
    assert decide(found, revoked=(lost,)).undecided


@pytest.mark.parametrize(("engines", "allowed"), [("any", True), ("trivy", True), ("all", False), ("clair", False)])
def test_whose_look_up_counts_is_the_rules_to_say(engines: str, allowed: bool) -> None:
    other = replace(said(incomplete=[Incomplete("cannot_match")]), engine="clair")
    found = unknown_image(sbom(said(), other))
    both = replace(
        found.images[0], engines=(*found.images[0].engines, replace(found.images[0].engines[0], engine="clair"))
    )
    by = parse_policy(HEAD + ACCEPT + RULE.replace("high]", f"high], engines: {engines}"), known=KNOWN)
    assert (decide(replace(found, images=(both,)), by).verdict is Verdict.ALLOW) is allowed


def test_what_we_found_too_is_told_once_and_an_exemption_of_ours_is_not_the_sboms() -> None:
    item = vulnerability()
    found = having(simple(item), sbom(said(item)), replace(sbom(said(item)), digest=Digest.of(b"other")))
    assert [reason.subject for reason in decide(found).reasons] == [item.id]
    waived = exemption(rule="severe", subject=item.id, purl=item.purl)
    assert decide(found, exemptions=(waived,)).verdict is Verdict.WARN
    theirs = replace(item, purl=item.purl + "?arch=amd64")
    assert decide(having(simple(item), sbom(said(theirs))), exemptions=(waived,)).verdict is Verdict.DENY


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("attached_sboms: {acept: true}\n", 4, 18, "unknown field; did you mean 'accept'?"),
        ("attached_sboms: {accept: sometimes}\n", 4, 18, "true or false"),
        ("attached_sbom: {accept: true}\n", 4, 1, "unknown field; did you mean 'attached_sboms'?"),
        ("attached_sboms: true\n", 4, 1, "must be a mapping"),
    ],
)
def test_what_is_refused_and_where(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(HEAD + text + RULE, known=KNOWN)
    assert any((p.line, p.column) == (line, column) and message in p.message for p in caught.value.problems), str(
        caught.value
    )


def test_evidence_of_before_is_still_read() -> None:
    known = TypeAdapter(AttachedSbom)
    former = b'{"digest": "%s", "format": "spdx", "components": [], "problem": ""}' % str(Digest.of(b"x")).encode()
    assert known.validate_json(former) == AttachedSbom(Digest.of(b"x"), "spdx")
    assert known.validate_json(known.dump_json(sbom(said(vulnerability())))) == sbom(said(vulnerability()))


gaps = st.lists(st.sampled_from([NO_PACKAGE, NO_SYSTEM, Incomplete("gap")]), max_size=2)
sboms = st.lists(
    st.builds(
        lambda found, missing, age, partial: sbom(said(*found, incomplete=missing, updated_at=age), partial=partial),
        vulnerabilities,
        gaps,
        st.sampled_from([None, NOW, NOW - timedelta(days=30)]),
        st.booleans(),
    ),
    max_size=2,
)


def with_gaps(found: ScanReport, theirs: Sequence[AttachedSbom], more: Sequence[Incomplete]) -> ScanReport:
    image = found.images[0]
    own = replace(image.engines[0], incomplete=(*image.engines[0].incomplete, *more))
    return having(replace(found, images=(replace(image, engines=(own,)),)), *theirs)


@given(reports, sboms, gaps)
@settings(max_examples=300, deadline=None)
def test_a_policy_that_does_not_take_their_word_does_not_hear_it(
    found: ScanReport, theirs: list[AttachedSbom], more: list[Incomplete]
) -> None:
    heard, unheard = with_gaps(found, theirs, more), with_gaps(found, (), more)
    assert replace(decide(heard, SILENT), evidence=Digest.of(b"")) == replace(
        decide(unheard, SILENT), evidence=Digest.of(b"")
    )


@given(reports, sboms, gaps, vulnerabilities, st.booleans())
@settings(max_examples=300, deadline=None)
def test_more_harm_never_helps(
    found: ScanReport, theirs: list[AttachedSbom], more: list[Incomplete], harm: list[Vulnerability], exempt: bool
) -> None:
    context: dict[str, Any] = {"exemptions": (exemption(rule="severe", subject="CVE-1"),)} if exempt else {}
    before = decide(with_gaps(found, theirs, more), ACCEPTING, **context)
    worse = [
        sbom(*(replace(a, vulnerabilities=(*a.vulnerabilities, *harm)) for a in b.answers), partial=b.partial)
        for b in theirs
    ]
    assert decide(with_gaps(found, worse, more), ACCEPTING, **context).verdict.rank >= before.verdict.rank
    image = found.images[0]
    one = image.engines[0]
    own = replace(image, engines=(replace(one, vulnerabilities=(*one.vulnerabilities, *harm)),))
    assert (
        decide(with_gaps(replace(found, images=(own,)), theirs, more), ACCEPTING, **context).verdict.rank
        >= before.verdict.rank
    )


@given(reports, sboms, gaps, gaps)
@settings(max_examples=300, deadline=None)
def test_what_is_not_known_never_helps(
    found: ScanReport, theirs: list[AttachedSbom], more: list[Incomplete], further: list[Incomplete]
) -> None:
    before = decide(with_gaps(found, theirs, more)).verdict.rank
    assert decide(with_gaps(found, theirs, [*more, *further])).verdict.rank >= before
    less = [
        sbom(*(replace(a, incomplete=(*a.incomplete, *further)) for a in b.answers), partial=b.partial) for b in theirs
    ]
    assert decide(with_gaps(found, less, more)).verdict.rank >= before


@given(reports, sboms, gaps, st.integers(0, 400))
@settings(max_examples=200, deadline=None)
def test_time_never_helps(found: ScanReport, theirs: list[AttachedSbom], more: list[Incomplete], days: int) -> None:
    whole = with_gaps(found, theirs, more)
    first, later = decide(whole), decide(whole, now=NOW + timedelta(days=days))
    assert later.verdict.rank >= first.verdict.rank
    if later.verdict is not first.verdict:
        assert first.valid_until is not None
        assert first.valid_until <= NOW + timedelta(days=days)


def test_exploitation_that_was_not_looked_up_is_unknown_for_what_an_sbom_lists() -> None:
    for rule in ("vulnerability: {known_exploited: true}", "when: 'counts.known_exploited > 0'"):
        by = parse_policy(f"{HEAD}{ACCEPT}rules:\n  - {{id: kev, {rule}, action: deny}}\n", known=KNOWN)
        assert decide(having(simple(), sbom(said(vulnerability()))), by).undecided
        assert decide(having(simple(), sbom(said(vulnerability(known_exploited=False)))), by).verdict is Verdict.ALLOW
