"""Which engine's word counts is the policy's to say: any, all, or one by name.

An engine that could not tell never helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from scanner import catalog
from scanner.model.decision import Decision, ReasonKind, Verdict
from scanner.model.finding import EngineReport, Incomplete, Vulnerability
from scanner.model.vex import VexStatement, VexStatus
from scanner.policy.context import Context
from scanner.policy.evaluate import evaluate
from scanner.policy.rules import PolicyError, parse_policy
from tests.reports_factory import NOW, engine, image_report, report, vulnerability

KNOWN = catalog.known_names()
BAD = [vulnerability()]


def decide(
    engines: Sequence[EngineReport], choice: str = "", selector: str = "severity: [critical]", **context: Any
) -> Decision:
    chosen = f", engines: {choice}" if choice else ""
    text = (
        "apiVersion: dockwarden/v1\nkind: Policy\nmetadata: {name: test}\nrules:\n"
        f"  - {{id: bad, vulnerability: {{{(selector + chosen).lstrip(', ')}}}, action: deny}}\n"
    )
    found = report(image_report(engines))
    return evaluate(found, parse_policy(text, known=KNOWN), Context(**{"now": NOW, **context}))


def of(name: str, items: Sequence[Vulnerability] = (), **more: Any) -> EngineReport:
    return replace(engine(items, **more), engine=name)


@pytest.mark.parametrize(
    ("choice", "trivy", "clair", "verdict"),
    [
        ("", BAD, [], Verdict.DENY),
        ("any", [], BAD, Verdict.DENY),
        ("all", BAD, [], Verdict.ALLOW),
        ("all", BAD, BAD, Verdict.DENY),
        ("all", BAD, [vulnerability(severity="low")], Verdict.ALLOW),
        ("any", [vulnerability(severity="low")], BAD, Verdict.DENY),
        ("trivy", [], BAD, Verdict.ALLOW),
        ("clair", [], BAD, Verdict.DENY),
        ("clair", BAD, [], Verdict.ALLOW),
    ],
)
def test_whose_word_counts(
    choice: str, trivy: list[Vulnerability], clair: list[Vulnerability], verdict: Verdict
) -> None:
    assert decide([of("trivy", trivy), of("clair", clair)], choice).verdict is verdict


def test_a_dispute_is_told_with_the_reason() -> None:
    (reason,) = decide([of("trivy", BAD), of("clair", [vulnerability(severity="low", fixed=None)])]).reasons
    assert "trivy reports critical, fixed in 2.0; clair reports low, no fix" in reason.message
    (agreed,) = decide([of("trivy", BAD), of("clair", BAD)]).reasons
    assert "says" not in agreed.message


def test_any_judges_what_they_say_together_too() -> None:
    """One knows how bad it is, the other that there is a fix."""
    apart = [of("trivy", [vulnerability(fixed=None)]), of("clair", [vulnerability(severity="low")])]
    assert decide(apart, "any", "severity: [critical], fixable: true").verdict is Verdict.DENY


def test_an_engine_that_could_not_tell_does_not_acquit() -> None:
    away = of("clair", incomplete=[Incomplete("clair_unavailable")])
    reasons = decide([of("trivy", BAD), away], "all").reasons
    assert {r.kind for r in reasons} == {ReasonKind.VIOLATION, ReasonKind.INCOMPLETE}
    assert decide([of("trivy"), away], "any").undecided
    assert decide([of("trivy"), away], "trivy").verdict is Verdict.ALLOW
    assert decide([of("trivy"), away], "clair").undecided


def test_an_engine_that_did_not_look_is_not_clean() -> None:
    decision = decide([of("trivy")], "clair")
    assert decision.undecided
    assert [r.slug for r in decision.reasons] == ["not_scanned"]


def test_all_of_one_engine_is_that_one() -> None:
    assert decide([of("trivy", BAD)], "all").verdict is Verdict.DENY


def test_a_statement_about_either_name_answers_both() -> None:
    ours = vulnerability()
    theirs = replace(
        vulnerability("DSA-1"), aliases=("CVE-2026-1",), purl="pkg:deb/debian/openssl@1.0?distro=debian-12"
    )
    statement = VexStatement("DSA-1", (theirs.purl,), VexStatus.NOT_AFFECTED, "vulnerable_code_not_present")
    assert decide([of("trivy", [ours]), of("clair", [theirs])], vex=(statement,)).verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    ("choice", "hint"), [("both", "there is no engine"), ("triby", "did you mean 'trivy'"), ("[any]", "string")]
)
def test_an_engine_that_there_is_not_is_refused_where_it_stands(choice: str, hint: str) -> None:
    with pytest.raises(PolicyError, match=hint) as caught:
        decide([], choice)
    assert caught.value.problems[0].line == 5
    assert caught.value.problems[0].column > 40


def test_engines_alone_selects_nothing() -> None:
    with pytest.raises(PolicyError, match="needs at least one of severity"):
        decide([], "all", selector="")
