"""``evaluate``: (evidence, policy, now) -> Decision. Pure, total, deterministic.

More evidence of harm never improves a verdict, and neither does missing evidence.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from scanner.lazy_dataclasses import dataclass
from scanner.model import agreement
from scanner.model.decision import EVIDENCE_STALE, RESCAN_TELLS, Decision, Reason, ReasonKind, Verdict
from scanner.model.finding import (
    AdvisoryStatus,
    CheckResult,
    EngineReport,
    Evidence,
    Failed,
    Incomplete,
    Passed,
    Vulnerability,
    is_unrecognised,
)
from scanner.model.glob import matches_text
from scanner.model.image import Image
from scanner.model.records import to_json
from scanner.model.reference import Digest
from scanner.model.scan import AttachedSbom, ImageReport, ScanReport, report_json
from scanner.policy import expressions, signatures
from scanner.policy.context import Context, revoked_basis, with_confirmed
from scanner.policy.exempted import CLOCK_SKEW, Candidate, apply_exemptions, names_of, names_of_workload, not_affected
from scanner.policy.remedies import changes
from scanner.policy.rules import Policy, Rule, SignatureSelector, VulnerabilitySelector

if TYPE_CHECKING:
    from scanner.model.workload import Workload

MOVED_TAG = "tag-moved"  # the rule and subject of an immutable tag that was moved; an exemption can name it

_EVIDENCE_KEPT = 5  # per reason; the report has all
# KEV gets entries only when an exploit is confirmed, so a week without a new edition is normal.
_FEED_AGE = timedelta(days=14)
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = (Verdict.DENY, Verdict.WARN, Verdict.ALLOW)
# What an expression needs that reads the number of exploited vulnerabilities.
_EXPLOITED = VulnerabilitySelector(known_exploited=True)
_NOT_LOOKED_UP = ("exploitation_unknown", "known exploitation or EPSS was not looked up")
_KINDS = (ReasonKind.VIOLATION, ReasonKind.INCOMPLETE, ReasonKind.EXEMPTED, ReasonKind.SATISFIED)


def evaluate(report: ScanReport, policy: Policy, context: Context) -> Decision:
    """Decide by the policy. Every image of the report is evaluated and the worst verdict counts.

    Never raises for any content of a report.
    """
    findings: list[Candidate] = []
    verdicts: list[tuple[Digest, Verdict]] = []
    # Before newer advisories are put in: the digest must name the evidence that is stored, which a person can look
    # up.
    evidence = evidence_digest(report)
    report = with_confirmed(report, context)
    for image in report.images:
        own = _without_echoes(
            [apply_exemptions(f, names_of(report, image), context) for f in _judge(report, image, policy, context)]
        )
        if len(report.images) > 1:
            # An index has one verdict, so each reason says for which platform it holds: a person must know which
            # build to mend.
            platforms = (str(image.image.platform),)
            own = [replace(f, reason=replace(f.reason, platforms=platforms)) for f in own]
        verdicts.append((image.image.digest, _verdict(own)))
        findings.extend(own)
    findings.extend(_old_evidence(report, policy, context))
    findings.extend(_moved_tag(report, policy, context))
    # An index of nothing but attestations, or a scan that was cut short, must not pass as an image without faults.
    if not report.images:
        findings.append(_incomplete("image", "nothing_to_scan", "no image was examined", policy.incomplete))
    findings = _merge_equal(findings)
    reasons = _sorted_reasons(findings)
    changing = [f.worse_at for f in findings if f.worse_at and f.worse_at > context.now]
    if any(reason.slug in RESCAN_TELLS for reason in reasons):
        changing.append(context.now)  # valid for no time: the next request decides again
    return Decision(
        verdict=_verdict(findings),
        reasons=reasons,
        policy=policy.name,
        policy_version=context.version,
        policy_digest=policy.digest,
        subject=report.digest,
        evidence=evidence,
        decided_at=context.now,
        valid_until=min([*changing, *_ages_out(report, policy, context)], default=None),
        changes=changes(reasons),
        images=tuple(verdicts) if len(verdicts) > 1 else (),
        environment=context.environment,
    )


def evidence_digest(report: ScanReport) -> Digest:
    """Return the digest of the evidence: of the report's JSON without its timestamps."""
    # Without the times, two scans with equal results have one digest, so the evidence is stored once.
    quiet = replace(report, started_at=_NO_TIME, finished_at=_NO_TIME)
    return Digest("sha256:" + hashlib.sha256(report_json(quiet)).hexdigest())


def worst(decisions: Sequence[Decision]) -> Decision:
    """Return the decision that counts if several policies apply.

    A denial by a violation comes before an undecided one, and a decision with reasons before one without. It is valid
    until the first of them can change, because any of them may become the worst.
    """
    # `max` keeps the first of equals, and policies come sorted by name, so repeated requests name the same policy.
    chosen = max(decisions, key=lambda d: (d.verdict.rank, not d.undecided, bool(d.reasons)))
    return replace(chosen, valid_until=min((d.valid_until for d in decisions if d.valid_until), default=None))


def results_json(results: Sequence[CheckResult]) -> bytes:
    """Return the results as JSON, of which a workload's decision keeps the digest."""
    # Most results of a workload are objects that all workloads share (services.workloads.check): their JSON is made
    # once. The object is kept beside its JSON, so that no other object can have its id.
    return b"[%b]" % b",".join(
        [
            known[1] if (known := _json.get(id(result))) is not None and known[0] is result else _result_json(result)
            for result in results
        ]
    )


_KEPT_JSON: Final = 4096
_json: dict[int, tuple[CheckResult, bytes]] = {}


def _result_json(result: CheckResult) -> bytes:
    found = to_json(result)
    if not _is_telling(result) and len(_json) < _KEPT_JSON:
        _json[id(result)] = (result, found)
    return found


_QUIET: Final = frozenset(("passed", "not-applicable"))


def _is_telling(result: CheckResult) -> bool:
    """Whether a rule can have a reason of it with some parameters."""
    outcome = result.outcome
    return outcome.kind not in _QUIET or (isinstance(outcome, Passed) and bool(outcome.tolerated))


def evaluate_workload(
    workload: Workload, results: Sequence[CheckResult], policy: Policy, context: Context, evidence: bytes = b""
) -> Decision:
    """Decide about a workload without its image. Only rules about workloads are evaluated. Never raises.

    ``subject`` and ``evidence`` are digests of the workload and of the results. ``evidence``: their JSON, where the
    caller has made it already.
    """
    return evaluated_workload(workload, results, policy, context).decision(evidence)


@dataclass(frozen=True, slots=True)
class EvaluatedWorkload:
    """Verdict and reasons. An audit of thousands of workloads shows no more, and the rest takes as long again."""

    workload: Workload
    results: Sequence[CheckResult]
    policy: Policy
    context: Context
    findings: Sequence[Candidate]  # reasons before exemptions
    verdict: Verdict
    reasons: tuple[Reason, ...]

    def decision(self, evidence: bytes = b"") -> Decision:
        """Return the decision, with digests and changes. See ``evaluate_workload``."""
        subject = Digest.of(self.workload.facts_json())
        found = Digest.of(evidence or results_json(self.results))
        return _decision(self.findings, self.policy, self.context, subject, found)


def evaluated_workload(
    workload: Workload, results: Sequence[CheckResult], policy: Policy, context: Context
) -> EvaluatedWorkload:
    """Evaluate the rules about workloads. See ``evaluate_workload``."""
    if context.workloads != (workload,):
        context = replace(context, workloads=(workload,))
    # An audit decides about thousands of workloads, and nine in ten results are quiet: they are left out here, once.
    by_check = _by_check(
        [
            each
            for each in results
            # As ``_is_telling``, which is a call more.
            if (outcome := each.outcome).kind not in _QUIET or (isinstance(outcome, Passed) and outcome.tolerated)
        ]
    )
    quiet = {each.check for each in results}.difference(by_check)
    found: list[Candidate] = []
    for rule in policy.rules:
        unknown = rule.incomplete or policy.incomplete
        if rule.when is not None and expressions.uses_variable(rule.when, "workload"):
            # Without its image there is nothing to evaluate such a rule on. It is evaluated where the image is
            # decided.
            if not expressions.uses_variable(rule.when, "image") and not expressions.uses_variable(rule.when, "counts"):
                found.extend(_expression_reasons(rule, rule.when, {}, {}, workload, unknown))
        elif selected := [n for n in policy.checks_of_workloads[rule.id] if n not in quiet]:
            found.extend(_check_reasons(rule, selected, policy, by_check, None, context, unknown))
    if context.exemptions:
        names = names_of_workload(workload)
        found = [apply_exemptions(finding, names, context) for finding in found]
    findings = _merge_equal(found)
    return EvaluatedWorkload(
        workload, results, policy, context, findings, _verdict(findings), _sorted_reasons(findings)
    )


def _sorted_reasons(findings: Iterable[Candidate]) -> tuple[Reason, ...]:
    return tuple(sorted([finding.reason for finding in findings], key=_order))


def evaluate_build(image: Image, results: Sequence[CheckResult], policy: Policy, context: Context) -> Decision:
    """Decide about a Dockerfile by the checks that need no files. Rules about anything else do not apply. Never raises.

    ``image``: what the Dockerfile would build. ``evidence`` of the decision is the digest of the results.
    """
    by_check = _by_check(results)
    findings: list[Candidate] = []
    for rule in policy.rules:
        unknown = rule.incomplete or policy.incomplete
        selected = [name for name in policy.checks[rule.id] if name in by_check]
        findings.extend(_check_reasons(rule, selected, policy, by_check, image, context, unknown))
    return _decision(_merge_equal(findings), policy, context, image.config.digest, Digest.of(results_json(results)))


def _decision(
    findings: Sequence[Candidate], policy: Policy, context: Context, subject: Digest, evidence: Digest
) -> Decision:
    """Return the decision about something that is not an image."""
    return Decision(
        verdict=_verdict(findings),
        reasons=_sorted_reasons(findings),
        policy=policy.name,
        policy_version=context.version,
        policy_digest=policy.digest,
        subject=subject,
        evidence=evidence,
        decided_at=context.now,
        valid_until=min((f.worse_at for f in findings if f.worse_at and f.worse_at > context.now), default=None),
        changes=changes(tuple(f.reason for f in findings)),
        environment=context.environment,
    )


def _old_evidence(report: ScanReport, policy: Policy, context: Context) -> Iterator[Candidate]:
    """Treat evidence older than the policy's ``evidence.max_age`` as unknown. A new scan renews it."""
    # Not `started_at`: a gate that waits for a long scan would find its own evidence too old.
    limit, at = policy.evidence_max_age, _examined_at(report, context)
    if limit is not None and context.now - at > limit:
        age = f"{_hours(context.now - at)} ago, more than {_hours(limit)}"
        message = f"the image was examined {age} (evidence.max_age): scan it again"
        yield _incomplete("evidence", EVIDENCE_STALE, message, policy.incomplete)


def _moved_tag(report: ScanReport, policy: Policy, context: Context) -> Iterator[Candidate]:
    """Find an immutable tag that names something else than at first: a silent re-push, or a stolen credential.

    A tag that was moved back names again what it named first, and is fine.
    """
    if context.first_named is None or not any(matches_text(pattern, report.tag) for pattern in policy.immutable_tags):
        return
    digest, since = context.first_named
    # Compared with the first digest, not the last one: otherwise a second push of the same forged image looks like no
    # move.
    if digest == report.digest:
        return
    message = (
        f"the tag {report.tag} is immutable (tags.immutable), but was moved: it named {digest.short} first, on "
        f"{since:%Y-%m-%d}, and names {report.digest.short} now"
    )
    remedy = f"push this image with a new tag, and move {report.tag} back to {digest.short}"
    reason = Reason(MOVED_TAG, ReasonKind.VIOLATION, policy.moved_tag, message, MOVED_TAG, remedy=remedy)
    names = {report.repository, str(report.digest)}
    yield apply_exemptions(Candidate(reason), names, context)


def _examined_at(report: ScanReport, context: Context) -> datetime:
    """Return when the evidence was gathered or last confirmed."""
    return max(report.finished_at, context.examined_at or report.finished_at)


def _judge(report: ScanReport, image: ImageReport, policy: Policy, context: Context) -> Iterator[Candidate]:
    sboms = trusted_sboms(image, policy)
    for item in image.incomplete:
        yield _gap("image", item, item.detail or item.reason, policy.incomplete, None, sboms, policy, context)
    # Outside the rules, because a policy without a vulnerability rule still rests on what the engine counted and
    # read.
    for engine in image.engines:
        if message := revoked_basis(engine, context):
            yield _incomplete("image", "engine_revoked", message, policy.incomplete, engine.engine)
    for rule in policy.rules:
        unknown = rule.incomplete or policy.incomplete
        if rule.vulnerability is not None:
            yield from _vulnerabilities(rule, rule.vulnerability, image, policy, context, unknown)
        elif rule.signature is not None:
            yield from _signatures(rule, rule.signature, report, image, policy, context, unknown)
        elif rule.when is not None:
            yield from _expression(rule, rule.when, report, image, policy, context, unknown)
        else:
            yield from _checks(rule, policy, report, image, context, unknown)


def trusted_sboms(image: ImageReport, policy: Policy) -> tuple[AttachedSbom, ...]:
    """Return the attached SBOMs that engines looked up, if the policy accepts them (``attached_sboms.accept``)."""
    return tuple(sbom for sbom in image.attached if sbom.answers) if policy.accepts_attached else ()


def _gap(
    rule: str,
    gap: Incomplete,
    message: str,
    unknown: Verdict,
    selector: VulnerabilitySelector | None,
    sboms: Sequence[AttachedSbom],
    policy: Policy,
    context: Context,
) -> Candidate:
    """Return the reason for an engine's gap. A trusted SBOM fills the gap if the engine recognised nothing in the
    image.
    """
    if not is_unrecognised(gap) or not sboms:
        return _incomplete(rule, gap.reason, message, unknown)
    # One complete SBOM is enough. Two half ones are not added up: nobody signed that together they list everything.
    doubts = {sbom.digest: _sbom_gap(sbom, selector, policy, context) for sbom in sboms}
    trusted = next((sbom for sbom in sboms if not doubts[sbom.digest]), None)
    if trusted is None:
        first = doubts[sboms[0].digest]
        message += f" (the SBOM {sboms[0].digest} attached to the image does not fill this gap: {first})"
        return _incomplete(rule, gap.reason, message, unknown)
    count = max(answer.coverage.packages for answer in trusted.answers)
    message += (
        f"; filled by the {trusted.format} SBOM {trusted.digest} attached to the image (packages looked up: {count})"
    )
    evidence = (Evidence(f"attached {trusted.format} SBOM", name=str(trusted.digest)),)
    return Candidate(Reason(rule, ReasonKind.SATISFIED, Verdict.ALLOW, message, gap.reason, evidence))


def _sbom_gap(sbom: AttachedSbom, selector: VulnerabilitySelector | None, policy: Policy, context: Context) -> str:
    """Return why this SBOM does not fill a gap, as a sentence. Empty: engines looked up every package that it lists."""
    # CycloneDX `compositions` and SPDX comments can say that the list has gaps. Then silence about a package means
    # nothing.
    if sbom.partial:
        return "it is marked as incomplete"
    said = sbom.answers if selector is None else engines_for(selector, sbom.answers)
    why = [next(_reservations(answer, selector, policy, context), "") for answer in said]
    # With `engines: all` each engine must have looked up the packages; otherwise one answer without reservations is
    # enough.
    every = selector is not None and selector.engines == "all"
    if why and (not any(why) if every else not all(why)):
        return ""
    return next(filter(None, why), "no engine of the rule looked up its packages")


def _reservations(
    answer: EngineReport, selector: VulnerabilitySelector | None, policy: Policy, context: Context
) -> Iterator[str]:
    yield from (f"{answer.engine}: {gap.detail or gap.reason}" for gap in answer.incomplete)
    if message := revoked_basis(answer, context):
        yield f"{answer.engine}: {message}"
    yield from (message for _, message in _doubts(selector, answer, policy, context))


def _incomplete(rule: str, slug: str, message: str, action: Verdict, subject: str = "") -> Candidate:
    return Candidate(Reason(rule, ReasonKind.INCOMPLETE, action, message, subject or slug, slug=slug))


def _vulnerabilities(
    rule: Rule, selector: VulnerabilitySelector, image: ImageReport, policy: Policy, context: Context, unknown: Verdict
) -> Iterator[Candidate]:
    engines, sboms = engines_for(selector, image.engines), trusted_sboms(image, policy)
    if not engines:
        who = "no engine" if selector.engines in ("any", "all") else selector.engines + " never"
        yield _incomplete(rule.id, "not_scanned", f"{who} looked for vulnerabilities", unknown)
    for engine in engines:
        for item in engine.incomplete:
            message = f"{engine.engine}: {item.detail or item.reason}"
            yield _gap(rule.id, item, message, unknown, selector, sboms, policy, context)
        for slug, message in _doubts(selector, engine, policy, context):
            yield _incomplete(rule.id, slug, message, unknown)
    for sbom in sboms:
        if any(_needs_missing_data(selector, each.vulnerabilities) for each in engines_for(selector, sbom.answers)):
            yield _incomplete(rule.id, *_NOT_LOOKED_UP, unknown)
    upgrades = agreement.Upgrades(agreement.findings(image.engines))  # whichever engines the rule counts
    for found in agreement.findings(engines):
        if _counts_as(selector, found, image, context):
            yield _violation(rule, found, image, context, upgrades)
    stated: set[Vulnerability] = set()  # the same package may be in two SBOMs
    for sbom in sboms:
        listed = agreement.findings(engines_for(selector, sbom.answers))
        upgrades = agreement.Upgrades(listed)
        for found in listed:
            if found.vulnerability not in stated and _counts_as(selector, found, image, context):
                stated.add(found.vulnerability)
                yield _violation(rule, found, image, context, upgrades, sbom)


def _doubts(
    selector: VulnerabilitySelector | None, engine: EngineReport, policy: Policy, context: Context
) -> Iterator[tuple[str, str]]:
    """Yield why this answer is outdated, as slug and message. Without a selector: for any rule."""
    ends = engine.coverage.os_end_of_life
    if ends and context.now.date() > ends and not any(i.reason == "unsupported_os" for i in engine.incomplete):
        system = f"{engine.coverage.os_family} {engine.coverage.os_version}"
        yield "unsupported_os", f"{engine.engine}: {system} has been past its end of life since {ends}"
    built = engine.advisories.updated_at
    if built is None and any(item.reason == "engine_db_unavailable" for item in engine.incomplete):
        pass  # the engine says so itself, and why
    elif built is None:
        yield "advisories_unknown", f"{engine.engine}: the age of its advisories is unknown"
    elif built > context.now + CLOCK_SKEW:  # it would never be too old
        yield "advisories_unknown", f"{engine.engine}: its advisories are dated in the future, {built:%Y-%m-%d}"
    elif context.now - built > policy.advisories_max_age:
        age = f"{_hours(context.now - built)} old, more than {_hours(policy.advisories_max_age)}"
        yield "advisories_stale", f"{engine.engine}: advisories are {age}"
    if selector is None:
        return
    yield from _feed_doubts(selector, engine, policy, context)
    if _needs_missing_data(selector, engine.vulnerabilities):
        yield _NOT_LOOKED_UP


def _feed_doubts(
    selector: VulnerabilitySelector, engine: EngineReport, policy: Policy, context: Context
) -> Iterator[tuple[str, str]]:
    """Yield which of the feeds that the selector needs are outdated, as slug and message."""
    oldest = context.now - max(policy.advisories_max_age, _FEED_AGE)
    for feed in _asked_feeds(selector, engine):
        if feed.updated_at is None or not oldest <= feed.updated_at <= context.now + CLOCK_SKEW:
            when = f"of {feed.updated_at:%Y-%m-%d}" if feed.updated_at else "without a date"
            wrong = "too old" if feed.updated_at is None or feed.updated_at < oldest else "that is in the future"
            yield "exploitation_stale", f"the {feed.source} feed is {when}: {wrong}"


def _counts_as(selector: VulnerabilitySelector, found: agreement.Finding, image: ImageReport, context: Context) -> bool:
    """Return whether the rule selects it and no VEX statement says that the product is not affected."""
    return _enough(selector, found) and not not_affected(found, image, context.vex, context.now)


def engines_for(selector: VulnerabilitySelector, engines: Sequence[EngineReport]) -> tuple[EngineReport, ...]:
    """Return the answers of the rule's engines."""
    return tuple(engine for engine in engines if selector.engines in ("any", "all", engine.engine))


def _enough(selector: VulnerabilitySelector, found: agreement.Finding) -> bool:
    """Return whether enough engines report the vulnerability.

    ``any``: one engine, or the worst of their combined answers. ``all``: no engine that completed its scan disagrees;
    an engine with a gap counts as agreeing, because it may have missed the finding.
    """
    chosen = [o.vulnerability is not None and _selects(selector, o.vulnerability) for o in found.opinions]
    if selector.engines == "all":
        # An engine that could not look is no vote for "not affected". Otherwise breaking one engine would open the
        # gate.
        unknown = [opinion.word is agreement.Stance.UNKNOWN for opinion in found.opinions]
        return any(chosen) and all(one or other for one, other in zip(chosen, unknown, strict=True))
    return any(chosen) or _selects(selector, found.vulnerability)


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:.0f} h"


def _asked_feeds(selector: VulnerabilitySelector, engine: EngineReport) -> Iterator[AdvisoryStatus]:
    """Return the feeds that the selector needs."""
    wanted = {"kev": selector.known_exploited is not None, "epss": selector.epss is not None}
    yield from (feed for feed in engine.feeds if wanted.get(feed.source))


def _selects(selector: VulnerabilitySelector, item: Vulnerability) -> bool:
    """Return whether every given member matches. An unknown value matches too (unknown severity, no score)."""
    # Sources rate one CVE differently. The highest counts, so that adding a lenient source never improves a verdict.
    score = max((c.score for c in item.cvss), default=None)
    return (
        (
            not selector.severity
            or item.severity in selector.severity
            # Unknown is never clean: an unrated vulnerability may be critical.
            or (item.severity == "unknown" and "critical" in selector.severity)
        )
        and (selector.fixable is None or item.fixable is selector.fixable)
        and (selector.known_exploited is None or (item.known_exploited or False) is selector.known_exploited)
        and (selector.epss is None or (item.epss or 0.0) >= selector.epss)
        and (selector.cvss is None or score is None or score >= selector.cvss)
        # Upper and lower case are equal: a rule about "cve-2021-44228" or "django" must not silently do nothing.
        and (not selector.ids or not _folded(selector.ids).isdisjoint(_folded((item.id, *item.aliases))))
        and (
            not selector.packages
            or any(matches_text(pattern.lower(), item.package.lower()) for pattern in selector.packages)
        )
        # "generic" stands for a package whose type the engine did not say: it may be any.
        and (
            not selector.types
            or item.purl.removeprefix("pkg:").partition("/")[0].lower() in {*_folded(selector.types), "generic", ""}
        )
        and (not selector.status or item.status in (*selector.status, "unknown"))
    )


def _folded(names: Iterable[str]) -> set[str]:
    return {name.strip().lower() for name in names}


def _needs_missing_data(selector: VulnerabilitySelector, items: Iterable[Vulnerability]) -> bool:
    """Return whether the selector needs data that was not looked up. Then a vulnerability that is not selected is
    unknown.
    """
    exploited, epss = selector.known_exploited is not None, selector.epss is not None
    return any((exploited and item.known_exploited is None) or (epss and item.epss is None) for item in items)


def _violation(
    rule: Rule,
    found: agreement.Finding,
    image: ImageReport,
    context: Context,
    upgrades: agreement.Upgrades,
    sbom: AttachedSbom | None = None,
) -> Candidate:
    """The reason for a finding. ``sbom``: the attached SBOM that lists the package, if no engine found it in the
    image.
    """
    item = found.vulnerability
    # Grace turns a denial into a warning until its end; the end is kept as `worse_at`, so that a stored decision
    # expires then.
    ends = _grace_ends(rule, found, context)
    waiting = ends is not None and ends > context.now
    fix_version = upgrades.of(item)
    fix = f", fixed in {fix_version}" if fix_version else ", no fix yet"
    layer = image.image.layer_of(item.layer)
    message = f"{item.id} ({item.severity}) in {item.package} {item.installed_version}{fix}"
    if found.disputed:
        message += f" ({found.dispute})"
    if sbom is not None:
        message += f", listed by the {sbom.format} SBOM {sbom.digest} attached to the image"
    if waiting and ends:
        message += f"; denied from {ends:%Y-%m-%d %H:%M} UTC"
    evidence = Evidence(message, layer=item.layer, layer_index=layer.index if layer else None, path=item.path)
    reason = Reason(
        rule.id,
        ReasonKind.VIOLATION,
        Verdict.WARN if waiting else rule.action,
        message,
        subject=item.id,
        evidence=(evidence,),
        remedy=f"upgrade {item.package} to {fix_version}" if fix_version else "",
    )
    return Candidate(reason, item.purl, ends if waiting else None, item, stated=sbom is not None)


def _grace_ends(rule: Rule, found: agreement.Finding, context: Context) -> datetime | None:
    """Return when the rule's grace for this vulnerability ends, counted from its first report in this repository by any
    engine. Without a known first report there is no grace.
    """
    if rule.grace is None or context.first_seen is None:
        return None
    said = [opinion.vulnerability for opinion in found.opinions if opinion.vulnerability is not None]
    # Engines name one vulnerability by CVE or GHSA. The earliest report under any name counts: a change of engine
    # must not start the grace again.
    times = [context.first_seen.get((item.purl, item.id)) for item in (found.vulnerability, *said)]
    known = [since for since in times if since is not None]
    return min(known) + rule.grace if known else None


def _checks(
    rule: Rule, policy: Policy, report: ScanReport, image: ImageReport, context: Context, unknown: Verdict
) -> Iterator[Candidate]:
    results = (*image.checks, *_posture(report, policy, context), *context.workload_results)
    selected = policy.checks[rule.id]
    if not selected:
        yield _incomplete(rule.id, "no_such_check", "the rule selects no check", unknown)
    yield from _check_reasons(rule, selected, policy, _by_check(results), image.image, context, unknown)


def _by_check(results: Iterable[CheckResult]) -> Mapping[str, Sequence[CheckResult]]:
    found: dict[str, list[CheckResult]] = defaultdict(list)
    for result in results:
        found[result.check].append(result)
    return found


def _check_reasons(
    rule: Rule,
    selected: Sequence[str],
    policy: Policy,
    by_check: Mapping[str, Sequence[CheckResult]],
    image: Image | None,
    context: Context,
    unknown: Verdict,
) -> Iterator[Candidate]:
    """Yield the reasons from the selected checks, evaluated with the rule's parameters."""
    judges = policy.judges.get(rule.id, {})
    for identifier in selected:
        if identifier not in by_check:
            if identifier in policy.workload_checks and not context.workloads:
                continue  # a rule about workloads does not apply to a scan without one
            yield _incomplete(rule.id, "not_examined", f"{identifier} was not examined", unknown, identifier)
        judge = judges.get(identifier)
        for result in by_check.get(identifier, ()):
            # Evidence is stored once and judged by many policies: a parameter such as a maximum age is applied here,
            # not by the scan.
            judged = replace(result, outcome=judge(result.outcome, image)) if judge else result
            yield from _outcome(rule, judged, context, unknown)


def _posture(report: ScanReport, policy: Policy, context: Context) -> Iterator[CheckResult]:
    """Return the registry's posture: the newer one of evidence and store. A posture that is too old counts as
    unknown.
    """
    found, at = report.posture, report.posture_at
    # A registry is probed on its own schedule, so the store may know more than the scan did, or less.
    if context.posture is not None and (at is None or context.posture.checked_at > at):
        found, at = context.posture.results, context.posture.checked_at
    stale = at is not None and context.now - at > policy.posture_max_age
    for result in found:
        yield replace(result, outcome=Incomplete("posture_stale", _too_old(at))) if stale and at else result


def _too_old(at: datetime) -> str:
    return f"the registry was last examined on {at:%Y-%m-%d}, before the policy's posture.max_age"


def _outcome(rule: Rule, result: CheckResult, context: Context, unknown: Verdict) -> Iterator[Candidate]:
    outcome = result.outcome
    if isinstance(outcome, Incomplete):
        yield _incomplete(
            rule.id, outcome.reason, f"{result.check}: {outcome.detail or outcome.reason}", unknown, result.check
        )
    elif isinstance(outcome, Failed):
        remedy = outcome.remedy or (context.remedies or {}).get(result.check, "")
        first = outcome.evidence[0].message if outcome.evidence else "failed"
        more = f" (and {len(outcome.evidence) - 1} more)" if len(outcome.evidence) > 1 else ""
        yield Candidate(
            Reason(
                rule.id,
                ReasonKind.VIOLATION,
                rule.action,
                f"{result.check}: {first}{more}",
                result.check,
                outcome.evidence[:_EVIDENCE_KEPT],
                remedy,
                count=max(1, len(outcome.evidence)),
            )
        )


def _signatures(
    rule: Rule,
    selector: SignatureSelector,
    report: ScanReport,
    image: ImageReport,
    policy: Policy,
    context: Context,
    unknown: Verdict,
) -> Iterator[Candidate]:
    # A signature may be on the index or on the image of one platform. Both name what is run.
    about = (image.image.digest, report.digest)
    judged = signatures.judge(selector, image.verifications, about, context.now, policy.signatures_max_age)
    schemes = ",".join(selector.scheme)
    if judged.status is signatures.RuleStatus.UNKNOWN:
        yield _incomplete(rule.id, judged.slug, judged.message, unknown, schemes)
    elif judged.status is signatures.RuleStatus.SATISFIED:
        reason = Reason(
            rule.id, ReasonKind.SATISFIED, Verdict.ALLOW, judged.message, schemes, judged.evidence[:_EVIDENCE_KEPT]
        )
        yield Candidate(reason, worse_at=judged.until)
    else:
        reason = Reason(
            rule.id, ReasonKind.VIOLATION, rule.action, judged.message, schemes, remedy="sign the image's digest"
        )
        yield Candidate(reason)


def _expression(
    rule: Rule,
    text: str,
    report: ScanReport,
    image: ImageReport,
    policy: Policy,
    context: Context,
    unknown: Verdict,
) -> Iterator[Candidate]:
    variables = expressions.image_variable(report, image, context.now)
    sboms = trusted_sboms(image, policy)
    counts = expressions.finding_counts(image, sboms)
    subjects: Sequence[Workload | None] = context.workloads if expressions.uses_variable(text, "workload") else (None,)
    exploitation: Sequence[tuple[str, str]] = ()
    if subjects and expressions.uses_variable(text, "counts"):
        # A count is only as good as the look-up: an engine that failed counts nothing.
        yield from _count_gaps(rule, image, sboms, policy, context, unknown)
        answers = (*image.engines, *(answer for sbom in sboms for answer in sbom.answers))
        exploitation = tuple(dict.fromkeys(_exploitation_doubts(answers, policy, context)))
    for workload in subjects:
        yield from _expression_reasons(rule, text, variables, counts, workload, unknown, exploitation)


def _count_gaps(
    rule: Rule, image: ImageReport, sboms: Sequence[AttachedSbom], policy: Policy, context: Context, unknown: Verdict
) -> Iterator[Candidate]:
    """Yield why findings may be missing in the counts of an expression."""
    if not image.engines:
        yield _incomplete(rule.id, "not_scanned", "no engine looked for vulnerabilities", unknown)
    for engine in image.engines:
        for item in engine.incomplete:
            message = f"{engine.engine}: {item.detail or item.reason}"
            yield _gap(rule.id, item, message, unknown, None, sboms, policy, context)
        for slug, message in _doubts(None, engine, policy, context):
            yield _incomplete(rule.id, slug, message, unknown)


def _exploitation_doubts(
    answers: Iterable[EngineReport], policy: Policy, context: Context
) -> Iterator[tuple[str, str]]:
    """Yield why the count of exploited vulnerabilities may be too low, as slug and message."""
    for answer in answers:
        yield from _feed_doubts(_EXPLOITED, answer, policy, context)
        if _needs_missing_data(_EXPLOITED, answer.vulnerabilities):
            yield _NOT_LOOKED_UP


def _expression_reasons(
    rule: Rule,
    text: str,
    image: Mapping[str, Any],
    counts: Mapping[str, int],
    workload: Workload | None,
    unknown: Verdict,
    exploitation: Sequence[tuple[str, str]] = (),
) -> Iterator[Candidate]:
    """Yield a violation if the expression is true, and an incomplete reason if it cannot be evaluated.

    ``exploitation``: why the count of exploited vulnerabilities may be too low, as slugs and messages.
    """
    own = expressions.workload_variable(workload) if workload else None
    try:
        holds = expressions.is_true(text, image, counts, own)
    except expressions.ExpressionError as error:
        yield _incomplete(
            rule.id, "expression_failed", f"the rule's expression could not be evaluated: {error}", unknown
        )
        return
    if exploitation and _reads_exploited(text, image, counts, own):
        for slug, why in exploitation:
            yield _incomplete(rule.id, slug, why, unknown)
    if holds:
        message = rule.description or f"{rule.id}: {text}"
        evidence: tuple[Evidence, ...] = ()
        if workload is not None:
            place = workload.place()
            message = f"{workload.name}: {message}"
            evidence = (Evidence(message, path=place.file, pointer=place.pointer, line=place.line),)
        yield Candidate(Reason(rule.id, ReasonKind.VIOLATION, rule.action, message, rule.id, evidence))


def _reads_exploited(
    text: str, image: Mapping[str, Any], counts: Mapping[str, int], workload: Mapping[str, Any] | None
) -> bool:
    """Return whether the value depends on the number of exploited vulnerabilities. It does if it fails without it."""
    known = {name: count for name, count in counts.items() if name != "known_exploited"}
    try:
        expressions.is_true(text, image, known, workload)
    except expressions.ExpressionError:
        return True
    return False


def _without_echoes(findings: Sequence[Candidate]) -> list[Candidate]:
    """Drop findings from an SBOM that an engine reports too, unless the SBOM's finding is or will be the worse one."""
    # An SBOM and an engine often list the same package. One reason is enough for a reader, but only the one that is
    # at least as strict: an SBOM must not soften what was found in the files.
    own: dict[tuple[str, ...], list[Candidate]] = defaultdict(list)
    for finding in findings:
        if finding.vulnerability and not finding.stated:
            own[finding.about].append(finding)

    def covers(one: Candidate, other: Candidate) -> bool:
        more = one.reason.action.rank - other.reason.action.rank
        return more > 0 or (more == 0 and other.worse_at in (None, one.worse_at))

    return [f for f in findings if not (f.stated and any(covers(one, f) for one in own[f.about]))]


def _verdict(findings: Iterable[Candidate]) -> Verdict:
    actions = [finding.reason.action for finding in findings]
    return next((each for each in (Verdict.DENY, Verdict.WARN) if each in actions), Verdict.ALLOW)


def _merge_equal(findings: Iterable[Candidate]) -> list[Candidate]:
    """Merge equal reasons of several platforms or paths, with the evidence of all."""
    found: dict[tuple[str | int, ...], Candidate] = {}
    for finding in findings:
        reason = finding.reason
        # The message is part of the key: the same CVE in two versions of a package is two things to mend. Members of an
        # enumeration are compared by their id, because Python computes their hash in Python.
        key = (reason.rule, id(reason.kind), id(reason.action), reason.subject, reason.message, finding.purl)
        if key in found:
            first = found[key].reason
            evidence = (*first.evidence, *reason.evidence)[:_EVIDENCE_KEPT]
            platforms = tuple(dict.fromkeys((*first.platforms, *reason.platforms)))
            times = [t for t in (found[key].worse_at, finding.worse_at) if t]
            found[key] = Candidate(
                replace(first, evidence=evidence, count=first.count + reason.count, platforms=platforms),
                finding.purl,
                min(times, default=None),
            )
        else:
            found[key] = finding
    return list(found.values())


def _order(reason: Reason) -> tuple[object, ...]:
    return (_FIRST.index(reason.action), _KINDS.index(reason.kind), reason.rule, reason.subject, reason.message)


def _ages_out(report: ScanReport, policy: Policy, context: Context) -> Iterator[datetime]:
    """Yield when the evidence becomes too old: advisories, support of the system, posture of the registry."""
    known = [report.posture_at, context.posture.checked_at if context.posture else None]
    at = max((moment for moment in known if moment), default=None)
    examined = {result.check for result in (*report.posture, *(context.posture.results if context.posture else ()))}
    if at and any(examined.intersection(selected) for selected in policy.checks.values()):
        # One second later than the limit, because the comparison is "older than": at the limit itself the verdict
        # still holds.
        ends = at + policy.posture_max_age + timedelta(seconds=1)
        if ends > context.now:
            yield ends
    if policy.evidence_max_age is not None:
        ends = _examined_at(report, context) + policy.evidence_max_age + timedelta(seconds=1)
        if ends > context.now:
            yield ends
    texts = [rule.when for rule in policy.rules if rule.when is not None]
    own = any(rule.vulnerability for rule in policy.rules) or any(expressions.uses_variable(t, "counts") for t in texts)
    if any(map(expressions.changes_daily, texts)):
        yield from _next_days(report, context)
    for image in report.images:
        stated = (answer for sbom in trusted_sboms(image, policy) for answer in sbom.answers)
        for engine in (*(image.engines if own else ()), *stated):
            ages = [(engine.advisories, policy.advisories_max_age)]
            ages += [(feed, max(policy.advisories_max_age, _FEED_AGE)) for feed in engine.feeds]
            for source, age in ages:
                if source.updated_at and (ends := source.updated_at + age + timedelta(seconds=1)) > context.now:
                    yield ends
            if engine.coverage.os_end_of_life:
                last = datetime.combine(engine.coverage.os_end_of_life, datetime.min.time(), UTC) + timedelta(days=1)
                if last > context.now:
                    yield last


def _next_days(report: ScanReport, context: Context) -> Iterator[datetime]:
    """Yield when ``image.age_days`` and ``image.supported_days`` next change."""
    yield datetime.combine(context.now.astimezone(UTC).date(), datetime.min.time(), UTC) + timedelta(days=1)
    for image in report.images:
        if created := image.image.config.created:
            yield created + timedelta(days=(context.now - created).days + 1)
