"""Deciding is pure and total; harm never helps, not knowing never helps, time never helps."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner import catalog
from scanner.model.decision import ReasonKind, Verdict
from scanner.model.finding import (
    AdvisoryStatus,
    CheckResult,
    Evidence,
    Failed,
    Incomplete,
    NotApplicable,
    Passed,
    Signer,
    TrustStatus,
    Verification,
)
from scanner.model.posture import Posture
from scanner.model.reference import Digest, Platform
from scanner.model.scan import ImageReport, ScanReport
from scanner.model.vex import Exemption, VexStatement, VexStatus
from scanner.model.workload import Workload
from scanner.policy.context import Context
from scanner.policy.evaluate import evaluate, evaluate_workload, evidence_digest, worst
from scanner.policy.match import applies
from scanner.policy.rules import Policy, default_policy, parse_policy
from scanner.reports.base import ReportSubject
from scanner.reports.table import TableReport
from tests.reports_factory import NOW, engine, failed, image_report, report, simple, vulnerability

KNOWN = catalog.known_names()
DEFAULT = default_policy(KNOWN)
HEAD = "apiVersion: dockwarden/v1\nkind: Policy\nmetadata: {name: test}\n"


def policy(rules: str, more: str = "") -> Policy:
    return parse_policy(f"{HEAD}{more}rules:\n{rules}", known=KNOWN)


def decide(found: ScanReport, by: Policy = DEFAULT, **context: Any) -> Any:
    return evaluate(found, by, Context(**{"now": NOW, **context}))


def test_nothing_against_it_is_allowed() -> None:
    decision = decide(simple())
    assert (decision.verdict, decision.reasons, decision.undecided) == (Verdict.ALLOW, (), False)


def test_a_fixable_critical_is_denied_with_what_to_do() -> None:
    decision = decide(simple(vulnerability(), vulnerability("CVE-2026-2", fixed="3.0")))
    assert decision.verdict is Verdict.DENY
    assert not decision.undecided
    assert [(c.action, c.target, c.detail) for c in decision.changes] == [("upgrade", "openssl", "to 3.0")], (
        "one version that fixes both"
    )


@pytest.mark.parametrize(("fixed", "verdict"), [("2.0", Verdict.DENY), (None, Verdict.WARN)])
def test_the_default_policy_never_allows_a_severity_that_nobody_told(fixed: str | None, verdict: Verdict) -> None:
    decision = decide(simple(vulnerability(severity="unknown", fixed=fixed)))
    assert decision.verdict is verdict
    assert "unknown" in decision.reasons[0].message


@pytest.mark.parametrize(
    ("status", "verdict"), [("affected", Verdict.DENY), ("unknown", Verdict.DENY), ("fixed", Verdict.ALLOW)]
)
def test_a_status_that_nobody_told_may_be_the_one_that_is_asked_for(status: str, verdict: Verdict) -> None:
    by = policy("- id: open\n  vulnerability: {status: [affected]}\n  action: deny\n")
    assert decide(simple(vulnerability(status=status)), by).verdict is verdict


@pytest.mark.parametrize(
    ("purl", "verdict"),
    [
        ("pkg:deb/debian/openssl@1.0", Verdict.DENY),
        ("pkg:generic/openssl@1.0", Verdict.DENY),
        ("", Verdict.DENY),
        ("pkg:npm/openssl@1.0", Verdict.ALLOW),
    ],
)
def test_a_package_type_that_is_unknown_may_be_the_one_that_is_asked_for(purl: str, verdict: Verdict) -> None:
    by = policy("- id: deb\n  vulnerability: {types: [deb]}\n  action: deny\n")
    assert decide(simple(replace(vulnerability(), purl=purl)), by).verdict is verdict


@pytest.mark.parametrize("reason", ["no_advisories", "release_disagrees", "limit_exceeded", "program_unread"])
def test_an_engine_that_could_not_compare_decides_nothing(reason: str) -> None:
    decision = decide(report(image_report([engine(incomplete=[Incomplete(reason, "why")])])))
    assert decision.undecided
    assert reason in {r.slug for r in decision.reasons}


def test_a_severity_nobody_knows_counts_as_critical() -> None:
    assert decide(simple(vulnerability(severity="unknown"))).verdict is Verdict.DENY


@pytest.mark.parametrize(
    "found",
    [
        report(image_report([], {r: Passed() for r in ("root-user", "embedded-secrets")})),
        simple(incomplete=[Incomplete("unsupported_os", "nobody knows it")]),
        simple(updated_at=None),
        simple(updated_at=NOW - timedelta(hours=169)),
        simple(checks={"root-user": Incomplete("user_unresolved")}),
        replace(simple(), images=()),
        replace(
            simple(), images=tuple(replace(i, incomplete=(Incomplete("unsafe_archive"),)) for i in simple().images)
        ),
        replace(simple(), images=tuple(replace(i, checks=()) for i in simple().images)),
    ],
    ids=[
        "no engine",
        "engine incomplete",
        "age unknown",
        "advisories stale",
        "check incomplete",
        "no image",
        "image incomplete",
        "no checks",
    ],
)
def test_what_is_not_known_is_denied_as_undecided(found: ScanReport) -> None:
    decision = decide(found)
    assert decision.verdict is Verdict.DENY
    assert decision.undecided
    assert all(reason.slug for reason in decision.reasons if reason.kind is ReasonKind.INCOMPLETE)


def test_a_violation_beside_something_unknown_is_a_denial_by_violation() -> None:
    assert not decide(simple(vulnerability(), incomplete=[Incomplete("unsupported_os")])).undecided


def test_a_check_that_does_not_apply_says_nothing() -> None:
    assert decide(simple(checks={"latest-tag": NotApplicable("an archive")})).verdict is Verdict.ALLOW


def test_every_platform_of_an_index_counts() -> None:
    good, bad = simple().images[0], simple(vulnerability()).images[0]
    bad = replace(
        bad, image=replace(bad.image, manifest=replace(bad.image.manifest, size=501, digest=evidence_digest(simple())))
    )
    decision = decide(report(good, bad))
    assert decision.verdict is Verdict.DENY
    assert [verdict for _, verdict in decision.images] == [Verdict.ALLOW, Verdict.DENY]


def _on(item: ImageReport, platform: str) -> ImageReport:
    config = replace(item.image.config, platform=Platform.parse(platform))
    return replace(item, image=replace(item.image, config=config))


def test_a_reason_names_the_platforms_of_an_index_that_it_holds_for() -> None:
    good, bad = simple().images[0], simple(vulnerability()).images[0]
    found = report(_on(good, "linux/amd64"), _on(bad, "linux/arm64"), _on(bad, "linux/arm/v7"))
    named = {reason.platforms for reason in decide(found).reasons if reason.kind is ReasonKind.VIOLATION}
    assert named == {("linux/arm64", "linux/arm/v7")}
    assert "[linux/arm64, linux/arm/v7]" in TableReport().render(ReportSubject(found, decide(found)))


def test_a_gap_of_one_platform_names_it() -> None:
    good = simple().images[0]
    found = report(
        _on(good, "linux/amd64"), _on(replace(good, incomplete=(Incomplete("unsafe_archive"),)), "linux/s390x")
    )
    assert [reason.platforms for reason in decide(found).reasons] == [("linux/s390x",)]


def test_a_reason_of_a_single_image_names_no_platform() -> None:
    assert all(reason.platforms == () for reason in decide(simple(vulnerability())).reasons)


def test_grace_counts_from_when_the_repository_first_had_it() -> None:
    by = policy("  - {id: fix, vulnerability: {severity: [critical]}, grace: 72h, action: deny}\n")
    item = vulnerability()
    early = decide(simple(item), by, first_seen={(item.purl, item.id): NOW - timedelta(hours=71)})
    assert early.verdict is Verdict.WARN
    assert early.valid_until == NOW + timedelta(hours=1)
    assert (
        decide(simple(item), by, first_seen={(item.purl, item.id): NOW - timedelta(hours=73)}).verdict is Verdict.DENY
    )
    assert decide(simple(item), by).verdict is Verdict.DENY, "since when is not known: no grace"


def exemption(**more: Any) -> Exemption:
    values: dict[str, Any] = {
        "id": "e1",
        "owner": "ann",
        "justification": "because",
        "expires_at": NOW + timedelta(days=7),
        "images": ("registry.example.com/shop/**",),
        "subject": "CVE-2026-1",
        "approved_by": "ben",
    }
    return Exemption(**{**values, **more})


def test_an_exemption_warns_and_says_who() -> None:
    decision = decide(simple(vulnerability()), exemptions=(exemption(),))
    assert decision.verdict is Verdict.WARN
    assert decision.reasons[0].kind is ReasonKind.EXEMPTED
    assert "ben" in decision.reasons[0].message
    assert decision.valid_until == NOW + timedelta(days=7)


@pytest.mark.parametrize(
    "more",
    [
        {"approved_by": ""},
        {"approved_by": "ann"},
        {"expires_at": NOW},
        {"images": ("other/**",)},
        {"subject": "CVE-2026-2"},
        {"subject": "", "rule": ""},
        {"purl": "pkg:deb/x"},
    ],
    ids=[
        "unapproved",
        "approved by its owner",
        "over",
        "another image",
        "another CVE",
        "for anything",
        "another package",
    ],
)
def test_an_exemption_that_does_not_hold(more: dict[str, Any]) -> None:
    assert decide(simple(vulnerability()), exemptions=(exemption(**more),)).verdict is Verdict.DENY


def test_vex_needs_a_justification() -> None:
    item = vulnerability()
    statement = VexStatement(item.id, (item.purl,), VexStatus.NOT_AFFECTED, "vulnerable_code_not_present")
    assert decide(simple(item), vex=(statement,)).verdict is Verdict.ALLOW
    assert decide(simple(item), vex=(replace(statement, justification=""),)).verdict is Verdict.DENY
    assert decide(simple(item), vex=(replace(statement, products=("pkg:deb/other",)),)).verdict is Verdict.DENY


@pytest.mark.parametrize("status", [VexStatus.NOT_AFFECTED, VexStatus.FIXED])
def test_vex_from_the_future_does_not_outdate_what_revokes_it(status: VexStatus) -> None:
    item = vulnerability()
    early = VexStatement(item.id, (item.purl,), status, "vulnerable_code_not_present", timestamp=NOW)
    late = replace(early, timestamp=NOW + timedelta(days=3650))
    revoked = VexStatement(item.id, (item.purl,), VexStatus.AFFECTED, timestamp=NOW - timedelta(hours=1))
    assert decide(simple(item), vex=(late,)).verdict is Verdict.DENY
    assert decide(simple(item), vex=(revoked, late)).verdict is Verdict.DENY
    assert decide(simple(item), vex=(revoked, early)).verdict is Verdict.ALLOW
    assert (
        decide(simple(item), vex=(early, replace(revoked, timestamp=NOW + timedelta(days=2)))).verdict is Verdict.DENY
    )


def test_advisories_from_the_future_are_no_fresh_ones() -> None:
    """A mirror that dates its database 2099 would never be outdated."""
    decision = decide(simple(updated_at=NOW + timedelta(days=400)))
    assert (decision.undecided, decision.reasons[0].slug) == (True, "advisories_unknown")
    assert not decide(simple(updated_at=NOW + timedelta(minutes=5))).undecided


def test_a_missing_database_is_one_reason_and_not_two() -> None:
    missing = Incomplete("engine_db_unavailable", "there is no advisory database")
    decision = decide(simple(updated_at=None, incomplete=[missing]))
    assert decision.undecided
    assert {reason.slug for reason in decision.reasons} == {"engine_db_unavailable"}


SIGNED = "  - {id: signed, signature: {scheme: [cosign], signers: [release]}, action: deny}\n"


@pytest.mark.parametrize(
    ("verifications", "verdict", "undecided"),
    [
        ((Verification("cosign", TrustStatus.VERIFIED, signers=(Signer("release"),)),), Verdict.ALLOW, False),
        ((Verification("cosign", TrustStatus.VERIFIED, signers=(Signer("somebody"),)),), Verdict.DENY, False),
        ((Verification("cosign", TrustStatus.NOT_SIGNED),), Verdict.DENY, False),
        ((Verification("cosign", TrustStatus.REFUSED, reason="expired"),), Verdict.DENY, False),
        ((Verification("cosign", TrustStatus.UNKNOWN, reason="unavailable"),), Verdict.DENY, True),
        ((), Verdict.DENY, True),
    ],
    ids=["signed", "by another", "not signed", "refused", "cannot tell", "not verified"],
)
def test_signatures(verifications: tuple[Verification, ...], verdict: Verdict, undecided: bool) -> None:
    known = image_report([engine()])
    mine = tuple(replace(v, digest=known.image.digest) for v in verifications)
    decision = decide(report(replace(known, verifications=mine)), policy(SIGNED))
    assert (decision.verdict, decision.undecided) == (verdict, undecided)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("image.size > 10", Verdict.WARN), ("image.size < 10", Verdict.ALLOW), ("counts.critical > 0", Verdict.ALLOW)],
)
def test_expressions(text: str, verdict: Verdict) -> None:
    assert decide(simple(), policy(f"  - {{id: x, when: '{text}', action: warn}}\n")).verdict is verdict


def test_an_expression_that_fails_decides_nothing() -> None:
    decision = decide(simple(), policy("  - {id: x, when: 'image.nosuch > 1', action: warn}\n"))
    assert decision.verdict is Verdict.DENY
    assert decision.undecided


def test_exploitation_that_nobody_looked_up_is_not_known() -> None:
    by = policy("  - {id: kev, vulnerability: {known_exploited: true}, action: deny}\n")
    assert decide(simple(vulnerability()), by).undecided
    assert decide(simple(vulnerability(known_exploited=False)), by).verdict is Verdict.ALLOW
    assert not decide(simple(vulnerability(known_exploited=True)), by).undecided


def test_a_feed_that_is_too_old_answers_nothing() -> None:
    by = policy("  - {id: kev, vulnerability: {known_exploited: true}, action: deny}\n")

    def of(days: int) -> ScanReport:
        feed = AdvisoryStatus("kev", "1", NOW - timedelta(days=days))
        return report(image_report([replace(engine([vulnerability(known_exploited=False)]), feeds=(feed,))]))

    fresh = decide(of(13), by)
    assert fresh.verdict is Verdict.ALLOW
    assert fresh.valid_until == NOW + timedelta(days=1, seconds=1)
    old = decide(of(15), by)
    assert (old.undecided, old.reasons[0].slug) == (True, "exploitation_stale")
    # A policy that does not ask what is exploited does not care.
    assert decide(of(15)).reasons == decide(of(13)).reasons


def test_a_decision_ages_out_with_its_advisories() -> None:
    decision = decide(simple())
    assert decision.valid_until == NOW + timedelta(hours=168, seconds=1)
    assert decide(simple(), now=decision.valid_until).verdict is Verdict.DENY


def test_the_worst_of_several_counts() -> None:
    allowed, undecided, denied = decide(simple()), decide(simple(updated_at=None)), decide(simple(vulnerability()))
    assert worst([allowed, undecided, denied]).reasons == denied.reasons
    assert worst([allowed, undecided]).reasons == undecided.reasons


def test_a_decision_holds_until_any_policy_could_change_it() -> None:
    lasting, passing = decide(simple()), replace(decide(simple()), valid_until=NOW + timedelta(hours=1))
    assert worst([lasting, passing]).valid_until == worst([passing, lasting]).valid_until == passing.valid_until
    assert worst([replace(lasting, valid_until=None)]).valid_until is None


def test_the_evidence_digest_is_that_of_what_was_found_not_of_when() -> None:
    later = replace(simple(), started_at=NOW + timedelta(days=1))
    assert evidence_digest(later) == evidence_digest(simple())
    assert evidence_digest(simple(vulnerability())) != evidence_digest(simple())


outcomes = st.sampled_from([Passed(), failed(), Incomplete("x"), NotApplicable("y")])
vulnerabilities = st.lists(
    st.builds(
        vulnerability,
        st.sampled_from(["CVE-1", "CVE-2", "CVE-3"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["none", "low", "medium", "high", "critical", "unknown"]),
        st.sampled_from([None, "2.0"]),
    ),
    max_size=4,
)
reports = st.builds(
    lambda found, root, secrets, gaps, age: simple(
        *found, checks={"root-user": root, "embedded-secrets": secrets}, incomplete=gaps, updated_at=age
    ),
    vulnerabilities,
    outcomes,
    outcomes,
    st.lists(st.just(Incomplete("gap")), max_size=1),
    st.sampled_from([None, NOW, NOW - timedelta(days=30)]),
)


@given(reports, vulnerabilities)
@settings(max_examples=300, deadline=None)
def test_more_harm_never_helps(found: ScanReport, more: list[Any]) -> None:
    image = found.images[0]
    one = image.engines[0]
    worse = replace(
        found, images=(replace(image, engines=(replace(one, vulnerabilities=(*one.vulnerabilities, *more)),)),)
    )
    assert decide(worse).verdict.rank >= decide(found).verdict.rank


@given(
    reports,
    st.sampled_from(["root-user", "embedded-secrets", "setuid-files"]),
    st.sampled_from([failed(), Incomplete("x")]),
)
@settings(max_examples=300, deadline=None)
def test_a_worse_outcome_never_helps(found: ScanReport, check: str, outcome: Any) -> None:
    image = found.images[0]
    checks = tuple(
        CheckResult(c.check, outcome, c.severity) if c.check == check and isinstance(c.outcome, Passed) else c
        for c in image.checks
    )
    assert decide(replace(found, images=(replace(image, checks=checks),))).verdict.rank >= decide(found).verdict.rank


@given(reports)
@settings(max_examples=200, deadline=None)
def test_knowing_less_never_allows(found: ScanReport) -> None:
    image = found.images[0]
    for less in (replace(image, engines=()), replace(image, checks=()), replace(image, incomplete=(Incomplete("x"),))):
        assert decide(replace(found, images=(less,))).verdict is Verdict.DENY


@given(reports, st.integers(0, 400))
@settings(max_examples=200, deadline=None)
def test_time_never_helps(found: ScanReport, days: int) -> None:
    assert decide(found, now=NOW + timedelta(days=days)).verdict.rank >= decide(found).verdict.rank


@given(reports)
@settings(max_examples=100, deadline=None)
def test_the_same_question_has_the_same_answer(found: ScanReport) -> None:
    assert decide(found) == decide(found)


@pytest.mark.parametrize(
    ("parameters", "verdict"),
    [
        ("", Verdict.DENY),
        ("    parameters: {allow: [/usr/bin/su]}\n", Verdict.DENY),
        ("    parameters: {allow: ['/usr/bin/*']}\n", Verdict.ALLOW),
    ],
)
def test_a_rules_parameters_judge_the_stored_evidence(parameters: str, verdict: Verdict) -> None:
    found = Failed(tuple(Evidence(f"/{path}", path=path) for path in ("usr/bin/su", "usr/bin/mount")))
    by = policy(f"  - id: a\n    check: setuid-files\n{parameters}    action: deny\n")
    assert decide(simple(checks={"setuid-files": found}), by).verdict is verdict


def test_a_policy_may_tolerate_less_than_the_check() -> None:
    passed = Passed((Evidence("/usr/bin/su", path="usr/bin/su"),))
    by = policy(
        "  - {id: a, check: setuid-files, parameters: {allow: []}, action: deny}\n"
        "  - {id: b, check: image-size, parameters: {max_megabytes: 0.5}, action: warn}\n"
    )
    reasons = decide(simple(checks={"setuid-files": passed}), by).reasons
    assert [(reason.rule, reason.subject) for reason in reasons] == [("a", "setuid-files"), ("b", "image-size")]


REGISTRY_RULE = "  - {id: tls, check: registry-tls-version, action: deny}\n"
OLD_TLS = (CheckResult("registry-tls-version", failed("it speaks TLS 1.0")),)
NEW_TLS = (CheckResult("registry-tls-version", Passed()),)


def from_registry(results: tuple[CheckResult, ...], days: float = 0) -> ScanReport:
    return replace(simple(), posture=results, posture_at=NOW - timedelta(days=days))


def test_the_registry_is_judged_with_the_image() -> None:
    by = policy(REGISTRY_RULE)
    assert decide(from_registry(NEW_TLS), by).verdict is Verdict.ALLOW
    decision = decide(from_registry(OLD_TLS), by)
    assert (decision.verdict, decision.undecided) == (Verdict.DENY, False)
    assert "it speaks TLS 1.0" in decision.reasons[0].message
    assert decide(simple(), by).undecided, "a registry that nobody examined is not a good one"


def test_what_is_known_of_a_registry_grows_old() -> None:
    by = policy(REGISTRY_RULE, "posture: {max_age: 2d}\n")
    fresh = decide(from_registry(NEW_TLS, days=1), by)
    assert fresh.verdict is Verdict.ALLOW
    assert fresh.valid_until == NOW + timedelta(days=1, seconds=1)
    stale = decide(from_registry(NEW_TLS, days=3), by)
    assert (stale.verdict, stale.undecided, stale.reasons[0].slug) == (Verdict.DENY, True, "posture_stale")
    assert (
        decide(from_registry(NEW_TLS, days=3), policy("  - {id: root, check: root-user, action: deny}\n")).verdict
        is Verdict.ALLOW
    )


def test_the_newer_of_evidence_and_memory_counts() -> None:
    by = policy(REGISTRY_RULE, "posture: {max_age: 2d}\n")
    known = Posture("registry.example.com", NOW - timedelta(hours=1), NEW_TLS)
    assert decide(from_registry(OLD_TLS, days=3), by, posture=known).verdict is Verdict.ALLOW
    assert decide(from_registry(OLD_TLS, days=0), by, posture=known).verdict is Verdict.DENY
    assert decide(from_registry(NEW_TLS, days=3), by, posture=known).valid_until == NOW + timedelta(hours=47, seconds=1)


def test_a_policy_may_ask_more_of_a_registry_than_the_check_does() -> None:
    soon = Passed((Evidence("CN=x expires on 2027-01-24, in 60 days", amount=60),))
    found = from_registry((CheckResult("registry-certificate-expiry", soon),))
    rule = "  - {{id: days, check: registry-certificate-expiry, parameters: {{min_days: {}}}, action: deny}}\n"
    assert decide(found, policy(rule.format(30))).verdict is Verdict.ALLOW
    assert decide(found, policy(rule.format(90))).verdict is Verdict.DENY


def examined(hours: float) -> ScanReport:
    return replace(simple(), finished_at=NOW - timedelta(hours=hours))


def test_evidence_that_is_older_than_the_policy_allows_is_not_known_any_more() -> None:
    by = policy("  - {id: root, check: root-user, action: deny}\n", "evidence: {max_age: 24h}\n")
    fresh = decide(examined(2), by)
    assert (fresh.verdict, fresh.valid_until) == (Verdict.ALLOW, NOW + timedelta(hours=22, seconds=1))
    old = decide(examined(25), by)
    assert (old.verdict, old.undecided, old.reasons[0].slug) == (Verdict.DENY, True, "evidence_stale")
    assert "25 h ago, more than 24 h" in old.reasons[0].message
    assert old.valid_until == NOW, "the gate asks for a new scan"


def test_old_evidence_does_what_the_policy_says_of_what_is_not_known() -> None:
    rule = "  - {id: root, check: root-user, action: deny}\n"
    assert decide(examined(2500), policy(rule)).verdict is Verdict.ALLOW, "a policy without the field does not ask"
    warns = policy(rule, "incomplete: warn\nevidence: {max_age: 24h}\n")
    assert decide(examined(25), warns).verdict is Verdict.WARN
    nothing = replace(examined(25), images=())
    assert decide(nothing, policy(rule, "evidence: {max_age: 24h}\n")).undecided


TAGS = policy(
    "  - {id: x, vulnerability: {severity: [critical]}, action: deny}\n", 'tags: {immutable: ["v*", "*.*.*"]}\n'
)


def named_first(found: ScanReport, tag: str, digest: Digest) -> Any:
    return decide(replace(found, tag=tag), TAGS, first_named=(digest, NOW - timedelta(days=3)))


def test_an_immutable_tag_that_was_moved_is_a_violation() -> None:
    found, other = simple(), Digest.of(b"what it named first")
    moved = named_first(found, "1.4.2", other)
    assert (moved.verdict, moved.undecided, moved.reasons[0].rule) == (Verdict.DENY, False, "tag-moved")
    assert other.short in moved.reasons[0].message
    assert named_first(found, "v2", other).verdict is Verdict.DENY
    assert named_first(found, "latest", other).verdict is Verdict.ALLOW, "not an immutable tag"
    assert named_first(found, "1.4.2", found.digest).verdict is Verdict.ALLOW, "it names what it named first"
    assert decide(replace(found, tag="1.4.2"), TAGS).verdict is Verdict.ALLOW, "seen for the first time"
    assert decide(replace(found, tag="1.4.2"), first_named=(other, NOW)).verdict is Verdict.ALLOW, "no such policy"


def test_a_moved_tag_can_be_exempted_and_can_warn() -> None:
    found, other = simple(), (Digest.of(b"first"), NOW)
    until = NOW + timedelta(days=1)
    exemption = Exemption("e", "o", "because", until, ("**",), rule="tag-moved", approved_by="a")
    accepted = decide(replace(found, tag="1.4.2"), TAGS, first_named=other, exemptions=(exemption,))
    assert (accepted.verdict, accepted.reasons[0].kind) == (Verdict.WARN, ReasonKind.EXEMPTED)
    lax = replace(TAGS, moved_tag=Verdict.WARN)
    assert decide(replace(found, tag="1.4.2"), lax, first_named=other).verdict is Verdict.WARN


WORKLOAD = Workload(name="shop", image="registry.example.com/app:1", source="compose", privileged=True)
OF_WORKLOADS = policy(
    """
  - {id: expression, when: workload.privileged, action: deny}
  - {id: both, when: "workload.privileged && image.size > 0", action: deny}
  - {id: check, check: privileged-container, action: warn}
  - {id: image, check: root-user, action: deny}
"""
)


def test_a_workload_is_decided_by_the_rules_about_workloads_alone() -> None:
    results = (CheckResult("privileged-container", failed()),)
    decision = evaluate_workload(WORKLOAD, results, OF_WORKLOADS, Context(NOW))
    assert decision.verdict is Verdict.DENY
    assert {reason.rule for reason in decision.reasons} == {"expression", "check"}


def test_a_workload_is_decided_with_its_image_by_all_of_them() -> None:
    decision = decide(simple(), OF_WORKLOADS, workloads=(replace(WORKLOAD, privileged=False),))
    assert {reason.rule for reason in decision.reasons if reason.kind is ReasonKind.VIOLATION} == set()
    decision = decide(simple(), OF_WORKLOADS, workloads=(WORKLOAD,))
    violated = {reason.rule for reason in decision.reasons if reason.kind is ReasonKind.VIOLATION}
    assert "expression" in violated


COUNTED = "  - {id: x, when: 'counts.critical > 0 || counts.secrets > 0', action: deny}\n"


@pytest.mark.parametrize(
    ("found", "slug"),
    [
        (simple(incomplete=[Incomplete("engine_db_unavailable", "no database")]), "engine_db_unavailable"),
        (simple(updated_at=NOW - timedelta(days=400)), "advisories_stale"),
        (simple(updated_at=None), "advisories_unknown"),
        (report(image_report([])), "not_scanned"),
    ],
)
def test_a_count_is_as_good_as_the_look_up(found: ScanReport, slug: str) -> None:
    decision = decide(found, policy(COUNTED))
    assert (decision.undecided, slug in {reason.slug for reason in decision.reasons}) == (True, True)
    assert decide(found, policy("  - {id: x, when: 'image.size < 10', action: deny}\n")).verdict is Verdict.ALLOW


def test_a_count_ages_out_with_the_advisories() -> None:
    assert decide(simple(), policy(COUNTED)).valid_until == NOW + timedelta(hours=168, seconds=1)


def test_a_count_of_exploited_vulnerabilities_needs_the_catalogue() -> None:
    by = policy("  - {id: x, when: 'counts.known_exploited > 0', action: deny}\n")
    assert decide(simple(), by).verdict is Verdict.ALLOW
    assert decide(simple(vulnerability(known_exploited=False)), by).verdict is Verdict.ALLOW
    assert decide(simple(vulnerability()), by).reasons[0].slug == "exploitation_unknown"
    known = decide(simple(vulnerability(known_exploited=True), vulnerability("CVE-2026-2")), by)
    assert (known.verdict, known.undecided) == (Verdict.DENY, False)
    old = replace(
        engine([vulnerability(known_exploited=False)]),
        feeds=(AdvisoryStatus("kev", "1", NOW - timedelta(days=15)),),
    )
    assert decide(report(image_report([old])), by).reasons[0].slug == "exploitation_stale"
    # An expression that does not read it does not need it.
    other = policy("  - {id: x, when: 'counts.low > 0', action: deny}\n")
    assert decide(simple(vulnerability()), other).verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    "text",
    [
        'image.user == "10001" // also for a workload',
        'image.user == "10001" && !image.env.exists(workload, workload == "X")',
        'image.user == "10001" && !has(image.labels.workload)',
        '"workload" != image.user',
    ],
)
def test_a_rule_that_only_mentions_workloads_is_evaluated_without_one(text: str) -> None:
    assert decide(simple(), policy(f"  - id: x\n    action: deny\n    when: |\n      {text}\n")).verdict is Verdict.DENY


def test_a_rule_about_an_image_s_age_is_evaluated_again_each_day() -> None:
    item = image_report([engine()])
    config = replace(item.image.config, created=NOW - timedelta(days=9, hours=23, minutes=59))
    found = report(replace(item, image=replace(item.image, config=config)))
    by = policy("  - {id: x, when: 'image.age_days >= 10', action: deny}\n")
    decision = decide(found, by)
    assert decision.verdict is Verdict.ALLOW
    assert decision.valid_until and decision.valid_until <= NOW + timedelta(minutes=1)
    assert decide(found, by, now=NOW + timedelta(minutes=1)).verdict is Verdict.DENY


def test_a_policy_with_empty_patterns_applies_to_every_image() -> None:
    assert applies(policy(COUNTED, "match: {images: []}\n"), "registry.example.com/shop/app", "")
    assert applies(policy(COUNTED, "match: {environments: [' Production']}\n"), "registry.example.com/a", "production")
    assert not applies(policy(COUNTED, "match: {environments: [Production]}\n"), "registry.example.com/a", "")


@pytest.mark.parametrize(
    "selector", ["ids: [cve-2026-1]", "ids: [ghsa-x]", "packages: [OpenSSL, 'Open*']", "types: [DEB]"]
)
def test_a_selector_has_no_case(selector: str) -> None:
    by = policy(f"  - {{id: x, vulnerability: {{{selector}}}, action: deny}}\n")
    assert decide(simple(vulnerability(aliases=("GHSA-x",))), by).verdict is Verdict.DENY
    other = replace(vulnerability("CVE-2026-10", "curl"), purl="pkg:rpm/curl@1.0")
    assert decide(simple(other), by).verdict is Verdict.ALLOW


@pytest.mark.parametrize("images", [("*",), ("s*",), ("sha256:*",), ("*:*",), ("sha256:" + "0" * 64,)])
def test_an_exemption_s_pattern_matches_no_digest(images: tuple[str, ...]) -> None:
    assert decide(simple(vulnerability()), exemptions=(exemption(images=images),)).verdict is Verdict.DENY


def test_an_exemption_names_a_digest_in_full_or_every_image() -> None:
    nameless = replace(simple(vulnerability()), repository="")
    for images in ((str(nameless.digest),), ("**",)):
        assert decide(nameless, exemptions=(exemption(images=images),)).verdict is Verdict.WARN


def test_vex_about_one_cve_of_an_advisory_does_not_hide_the_others() -> None:
    item = vulnerability("ALAS-2026-1", aliases=("CVE-2026-1", "CVE-2026-2"))
    one = VexStatement("CVE-2026-1", (item.purl,), VexStatus.NOT_AFFECTED, "vulnerable_code_not_present")
    other, whole = replace(one, vulnerability="CVE-2026-2"), replace(one, vulnerability=item.id)
    assert decide(simple(item), vex=(one,)).verdict is Verdict.DENY
    assert decide(simple(item), vex=(one, other)).verdict is Verdict.ALLOW
    assert decide(simple(item), vex=(whole,)).verdict is Verdict.ALLOW
    later = replace(one, status=VexStatus.AFFECTED, timestamp=NOW)
    assert decide(simple(item), vex=(replace(whole, timestamp=NOW - timedelta(days=1)), later)).verdict is Verdict.DENY
    # A CVE that another CVE is an alias of has its own statement.
    cve = vulnerability("CVE-2026-2", aliases=("CVE-2026-1", "DSA-1"))
    assert decide(simple(cve), vex=(replace(one, products=(cve.purl,)),)).verdict is Verdict.DENY
    assert decide(simple(cve), vex=(replace(one, vulnerability="DSA-1"),)).verdict is Verdict.ALLOW


def test_vex_or_an_exemption_about_one_engine_s_cve_does_not_hide_another_engine_s_advisory() -> None:
    cve = vulnerability("CVE-2026-1")
    advisory = vulnerability("ALAS-2026-1", aliases=("CVE-2026-1", "CVE-2026-2"))
    found = report(image_report([engine([cve]), replace(engine([advisory]), engine="clair")]))
    by = policy("  - {id: severe, vulnerability: {severity: [critical]}, action: deny}\n")
    statement = VexStatement("CVE-2026-1", (cve.purl,), VexStatus.NOT_AFFECTED, "vulnerable_code_not_present")
    decision = decide(found, by, vex=(statement,))
    assert [reason.subject for reason in decision.reasons] == ["ALAS-2026-1"]
    assert decide(found, by, exemptions=(exemption(),)).verdict is Verdict.DENY


def test_the_worst_of_two_engines_is_also_what_is_exploited() -> None:
    """Trivy rates it critical with an old catalogue, Clair low with the newest one."""
    ours = vulnerability(known_exploited=False, epss=0.1)
    theirs = vulnerability(severity="low", known_exploited=True, epss=0.9)
    found = report(image_report([engine([ours]), replace(engine([theirs]), engine="clair")]))
    for selector in ("severity: [critical], known_exploited: true", "severity: [critical], epss: 0.5"):
        by = policy(f"  - {{id: x, vulnerability: {{{selector}}}, action: deny}}\n")
        assert decide(found, by).verdict is Verdict.DENY
    accepted = exemption(while_unexploited=True)
    by = policy("  - {id: x, vulnerability: {severity: [critical]}, action: deny}\n")
    assert decide(found, by, exemptions=(accepted,)).verdict is Verdict.DENY
