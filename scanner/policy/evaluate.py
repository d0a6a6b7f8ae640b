"""``evaluate``: (evidence, policy, now) -> Decision. Pure, total, deterministic.

Adding evidence of harm never improves a verdict; what is not known never helps; time passing never does either, but for nothing.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from scanner.model import agreement
from scanner.model.decision import STALE, Change, Decision, Reason, ReasonKind, Revoked, Verdict
from scanner.model.finding import (
    STATUSES,
    UNRECOGNISED,
    AdvisoryStatus,
    CheckResult,
    EngineReport,
    Evidence,
    Failed,
    Incomplete,
    Matched,
    Severity,
    Vulnerability,
)
from scanner.model.glob import matches
from scanner.model.matching import Basis, Confirmed, basis_of
from scanner.model.posture import Posture
from scanner.model.reference import Digest
from scanner.model.scan import AttachedBill, ImageReport, ScanReport
from scanner.model.vex import Exemption, VexStatement, VexStatus
from scanner.policy import expressions, signatures
from scanner.policy.rules import Policy, Rule, SignatureSelector, VulnerabilitySelector

_EVIDENCE_KEPT = 5
# KEV is added to when something happens: a week without a new edition is no sign of a dead feed.
_FEED_AGE = timedelta(days=14)
_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
FirstSeen = Mapping[tuple[str, str], datetime]


@dataclass(frozen=True)
class Context:
    """What a decision takes into account beside the evidence. ``first_seen``: (purl, vulnerability) -> when this repository first had it."""

    now: datetime
    version: int = 0
    environment: str = ""
    exemptions: tuple[Exemption, ...] = ()
    vex: tuple[VexStatement, ...] = ()
    first_seen: FirstSeen | None = None
    workload_results: tuple[CheckResult, ...] = ()
    remedies: Mapping[str, str] | None = None  # check id -> remedy, from the catalogue
    posture: Posture | None = None  # of the image's registry, where something newer is known than the evidence holds
    revoked: tuple[Revoked, ...] = ()
    confirmed: tuple[Confirmed, ...] = ()  # newer advisories that said the same of this evidence, the newest last


@dataclass(frozen=True)
class _Finding:
    """A reason before exemptions, with what an exemption may name, and the moment it becomes worse by itself."""

    reason: Reason
    purl: str = ""
    worse_at: datetime | None = None
    vulnerability: Vulnerability | None = None
    stated: bool = False  # by somebody's bill of materials

    @property
    def about(self) -> tuple[str, ...]:
        """The rule and the vulnerability."""
        return (self.reason.rule, *agreement.identity(self.vulnerability)) if self.vulnerability else ()


def evaluate(report: ScanReport, policy: Policy, context: Context) -> Decision:
    """Decide. Every image of the report is judged; the worst counts. Never raises for what a report can hold."""
    findings: list[_Finding] = []
    verdicts: list[tuple[Digest, Verdict]] = []
    evidence = evidence_digest(report)
    report = _confirmed(report, context)
    for image in report.images:
        own = _without_echoes([_exempted(f, report, image, context) for f in _judge(report, image, policy, context)])
        verdicts.append((image.image.digest, _verdict(own)))
        findings.extend(own)
    if not report.images:
        findings.append(_incomplete("image", "nothing_to_scan", "no image was examined", policy.incomplete))
    findings = _merged(findings)
    reasons = tuple(sorted((f.reason for f in findings), key=_order))
    changing = [f.worse_at for f in findings if f.worse_at and f.worse_at > context.now]
    if any(reason.slug == STALE for reason in reasons):
        changing.append(context.now)  # whoever is told so may ask again at once
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


def _confirmed(report: ScanReport, context: Context) -> ScanReport:
    """The report resting on the newest advisories that said the same: its findings are theirs, and so is its age."""
    newest = {(c.image, c.engine): c.on for c in context.confirmed if not _revoked(_parts(c.on), context)}
    if not newest:
        return report

    def renewed(image: ImageReport, engine: EngineReport) -> EngineReport:
        on = newest.get((image.image.digest, engine.engine))
        if on is None:
            return engine
        matched = Matched(on.version, on.binary, context.now)
        return replace(engine, advisories=on.advisories, feeds=on.feeds, matched=matched)

    return replace(
        report, images=tuple(replace(i, engines=tuple(renewed(i, e) for e in i.engines)) for i in report.images)
    )


def _parts(on: Basis) -> Iterator[tuple[str, str, str]]:
    """What can be revoked of a basis, each as (engine, version, digest)."""
    yield on.engine, on.version, on.binary or ""
    yield "", "", on.advisories.digest or ""


def _revoked(parts: Iterable[tuple[str, str, str]], context: Context) -> Revoked | None:
    for engine, version, digest in parts:
        for item in context.revoked:
            if item.digest == digest if item.digest else (item.engine, item.version) == (engine, version):
                return item
    return None


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[ScanReport]:
    return TypeAdapter(ScanReport)


def evidence_digest(report: ScanReport) -> Digest:
    """The digest of the evidence: the report's JSON without the moments at which it was gathered."""
    quiet = replace(report, started_at=_NO_TIME, finished_at=_NO_TIME)
    return Digest("sha256:" + hashlib.sha256(_adapter().dump_json(quiet)).hexdigest())


def worst(decisions: Sequence[Decision]) -> Decision:
    """The decision that counts where several policies are in force: a denial by a violation before one for want of evidence, one that
    says why before one that has nothing to say. It holds until any of them could change: each may become the worst."""
    chosen = max(decisions, key=lambda d: (d.verdict.rank, not d.undecided, bool(d.reasons)))
    return replace(chosen, valid_until=min((d.valid_until for d in decisions if d.valid_until), default=None))


def _judge(report: ScanReport, image: ImageReport, policy: Policy, context: Context) -> Iterator[_Finding]:
    words = _words(image, policy)
    for item in image.incomplete:
        yield _gap("image", item, item.detail or item.reason, policy.incomplete, None, words, policy, context)
    for engine in image.engines:
        if message := _bad(engine, context):
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


def _bad(engine: EngineReport, context: Context) -> str:
    """What of that which this answer rests on was revoked, as a sentence; empty: nothing."""
    parts = [(engine.engine, engine.version, engine.binary or ""), *_parts(basis_of(engine))]
    bad = _revoked(parts, context)
    return f"it rests on {bad}, which was revoked" if bad else ""


def _words(image: ImageReport, policy: Policy) -> tuple[AttachedBill, ...]:
    """Others' bills of materials, where the policy takes their word."""
    return tuple(bill for bill in image.attached if bill.answers) if policy.accepts_attached else ()


def _gap(
    rule: str,
    gap: Incomplete,
    message: str,
    unknown: Verdict,
    selector: VulnerabilitySelector | None,
    words: Sequence[AttachedBill],
    policy: Policy,
    context: Context,
) -> _Finding:
    """What an engine did not see: not known, unless it recognised nothing and the policy takes a bill's word for what is there."""
    if gap not in UNRECOGNISED or not words:
        return _incomplete(rule, gap.reason, message, unknown)
    doubts = {bill.digest: _untold(bill, selector, policy, context) for bill in words}
    taken = next((bill for bill in words if not doubts[bill.digest]), None)
    if taken is None:
        first = doubts[words[0].digest]
        message += f" (and the bill {words[0].digest} attached to the image does not tell either: {first})"
        return _incomplete(rule, gap.reason, message, unknown)
    count = max(answer.coverage.packages for answer in taken.answers)
    message += f"; taken was the word of the {taken.format} bill {taken.digest} attached to the image (packages looked up: {count})"
    evidence = (Evidence(f"attached {taken.format} bill of materials", name=str(taken.digest)),)
    return _Finding(Reason(rule, ReasonKind.SATISFIED, Verdict.ALLOW, message, gap.reason, evidence))


def _untold(bill: AttachedBill, selector: VulnerabilitySelector | None, policy: Policy, context: Context) -> str:
    """Why the silence of the engines about what this bill lists proves nothing; empty: it does, as far as the bill is true."""
    if bill.partial:
        return "it says itself that it does not list everything"
    said = bill.answers if selector is None else _heard(selector, bill.answers)
    why = [next(_reservations(answer, selector, policy, context), "") for answer in said]
    every = selector is not None and selector.engines == "all"
    if why and (not any(why) if every else not all(why)):
        return ""
    return next(filter(None, why), "no engine that the rule asks looked its packages up")


def _reservations(
    answer: EngineReport, selector: VulnerabilitySelector | None, policy: Policy, context: Context
) -> Iterator[str]:
    yield from (f"{answer.engine}: {gap.detail or gap.reason}" for gap in answer.incomplete)
    if message := _bad(answer, context):
        yield f"{answer.engine}: {message}"
    yield from (message for _, message in _doubts(selector, answer, policy, context))


def _incomplete(rule: str, slug: str, message: str, action: Verdict, subject: str = "") -> _Finding:
    return _Finding(Reason(rule, ReasonKind.INCOMPLETE, action, message, subject or slug, slug=slug))


def _vulnerabilities(
    rule: Rule, selector: VulnerabilitySelector, image: ImageReport, policy: Policy, context: Context, unknown: Verdict
) -> Iterator[_Finding]:
    engines, words = _heard(selector, image.engines), _words(image, policy)
    if not engines:
        who = "no engine" if selector.engines in ("any", "all") else selector.engines + " never"
        yield _incomplete(rule.id, "not_scanned", f"{who} looked for vulnerabilities", unknown)
    for engine in engines:
        for item in engine.incomplete:
            message = f"{engine.engine}: {item.detail or item.reason}"
            yield _gap(rule.id, item, message, unknown, selector, words, policy, context)
        for slug, message in _doubts(selector, engine, policy, context):
            yield _incomplete(rule.id, slug, message, unknown)
    for found in agreement.findings(engines):
        if _counts_as(selector, found, image, context):
            yield _violation(rule, found, image, context)
    told: set[Vulnerability] = set()  # another bill says the very same
    for bill in words:
        for found in agreement.findings(_heard(selector, bill.answers)):
            if found.vulnerability not in told and _counts_as(selector, found, image, context):
                told.add(found.vulnerability)
                yield _violation(rule, found, image, context, bill)


def _doubts(
    selector: VulnerabilitySelector | None, engine: EngineReport, policy: Policy, context: Context
) -> Iterator[tuple[str, str]]:
    """Why this answer proves less by now than it did, each as slug and message. Without a selector: what would matter to any."""
    ends = engine.coverage.os_end_of_life
    if ends and context.now.date() > ends and not any(i.reason == "unsupported_os" for i in engine.incomplete):
        system = f"{engine.coverage.os_family} {engine.coverage.os_version}"
        yield "unsupported_os", f"{engine.engine}: {system} has been past its end of life since {ends}"
    built = engine.advisories.updated_at
    if built is None:
        yield "advisories_unknown", f"{engine.engine}: the age of its advisories is not known"
    elif context.now - built > policy.advisories_max_age:
        age = f"{_hours(context.now - built)} old, more than {_hours(policy.advisories_max_age)}"
        yield "advisories_stale", f"{engine.engine}: advisories are {age}"
    if selector is None:
        return
    oldest = context.now - max(policy.advisories_max_age, _FEED_AGE)
    for feed in _asked_feeds(selector, engine):
        if feed.updated_at is None or feed.updated_at < oldest:
            when = f"of {feed.updated_at:%Y-%m-%d}" if feed.updated_at else "without a date"
            yield "exploitation_stale", f"the {feed.source} feed is {when}: too old"
    if _unanswered(selector, engine.vulnerabilities):
        yield "exploitation_unknown", "known exploitation or EPSS was not looked up"


def _counts_as(selector: VulnerabilitySelector, found: agreement.Finding, image: ImageReport, context: Context) -> bool:
    """Whether the rule selects it and nobody stated that the product is not affected."""
    said = [opinion.vulnerability for opinion in found.opinions if opinion.vulnerability is not None]
    return _enough(selector, found) and not any(_answered(item, image, context.vex) for item in said)


def _heard(selector: VulnerabilitySelector, engines: Sequence[EngineReport]) -> tuple[EngineReport, ...]:
    """The engines whose word counts."""
    return tuple(engine for engine in engines if selector.engines in ("any", "all", engine.engine))


def _enough(selector: VulnerabilitySelector, found: agreement.Finding) -> bool:
    """Whether as many engines say so as the rule asks for. ``any``: one does, or the worst of what they say together; ``all``: nobody
    who looked says otherwise, and an engine that could not tell may well have said so."""
    chosen = [o.vulnerability is not None and _selects(selector, o.vulnerability) for o in found.opinions]
    if selector.engines == "all":
        unknown = [opinion.word is agreement.Word.UNKNOWN for opinion in found.opinions]
        return any(chosen) and all(one or other for one, other in zip(chosen, unknown, strict=True))
    return any(chosen) or _selects(selector, found.vulnerability)


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:.0f} h"


def _asked_feeds(selector: VulnerabilitySelector, engine: EngineReport) -> Iterator[AdvisoryStatus]:
    """The feeds that the selector's answer rests on."""
    wanted = {"kev": selector.known_exploited is not None, "epss": selector.epss is not None}
    yield from (feed for feed in engine.feeds if wanted.get(feed.source))


def _selects(selector: VulnerabilitySelector, item: Vulnerability) -> bool:
    """Every member given holds. What is not known of the vulnerability holds too: it may be so (unknown severity, no score)."""
    score = max((c.score for c in item.cvss), default=None)
    return (
        (
            not selector.severity
            or item.severity in selector.severity
            or (item.severity == "unknown" and "critical" in selector.severity)
        )
        and (selector.fixable is None or item.fixable is selector.fixable)
        and (selector.known_exploited is None or (item.known_exploited or False) is selector.known_exploited)
        and (selector.epss is None or (item.epss or 0.0) >= selector.epss)
        and (selector.cvss is None or score is None or score >= selector.cvss)
        and (not selector.ids or item.id in selector.ids or bool(set(item.aliases) & set(selector.ids)))
        and (not selector.packages or any(fnmatchcase(item.package, pattern) for pattern in selector.packages))
        and (not selector.types or item.purl.removeprefix("pkg:").partition("/")[0] in selector.types)
        and (not selector.status or item.status in selector.status)
    )


def _unanswered(selector: VulnerabilitySelector, items: Iterable[Vulnerability]) -> bool:
    """Whether the selector asks for what nobody looked up: then not being selected means nothing."""
    exploited, epss = selector.known_exploited is not None, selector.epss is not None
    return any((exploited and item.known_exploited is None) or (epss and item.epss is None) for item in items)


def _answered(item: Vulnerability, image: ImageReport, vex: Iterable[VexStatement]) -> bool:
    """Whether somebody stated, with a justification, that this product is not affected (OpenVEX 0.2.0). The newest statement counts;
    of several of the same moment that contradict each other, none does."""
    purls = {item.purl, item.purl.partition("?")[0]}
    products = {*purls, str(image.image.digest), str(image.image.config.digest)}
    speaking = [
        statement
        for statement in vex
        if statement.vulnerability in (item.id, *item.aliases)
        and bool(products & set(statement.products))
        and (not statement.subcomponents or bool(purls & set(statement.subcomponents)))
    ]
    newest = max((statement.timestamp or _NO_TIME for statement in speaking), default=_NO_TIME)
    last = [statement for statement in speaking if (statement.timestamp or _NO_TIME) == newest]
    return bool(last) and all(
        statement.status is VexStatus.FIXED
        or (statement.status is VexStatus.NOT_AFFECTED and bool(statement.justification))
        for statement in last
    )


def _violation(
    rule: Rule, found: agreement.Finding, image: ImageReport, context: Context, bill: AttachedBill | None = None
) -> _Finding:
    """``bill``: whose word it is that the package is there at all."""
    item = found.vulnerability
    ends = _grace_ends(rule, found, context)
    waiting = ends is not None and ends > context.now
    fix = f", fixed in {' or '.join(item.fixed_versions)}" if item.fixed_versions else ", no fix yet"
    layer = image.image.layer_of(item.layer)
    message = f"{item.id} ({item.severity}) in {item.package} {item.installed_version}{fix}"
    if found.disputed:
        message += f" ({found.dispute})"
    if bill is not None:
        message += f", as the {bill.format} bill {bill.digest} attached to the image has it"
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
        remedy=f"upgrade {item.package} to {item.fixed_versions[-1]}" if item.fixed_versions else "",
    )
    return _Finding(reason, item.purl, ends if waiting else None, item, stated=bill is not None)


def _grace_ends(rule: Rule, found: agreement.Finding, context: Context) -> datetime | None:
    """When the rule's grace for this vulnerability ends: counted from when the repository first had it, whichever engine said so first.
    Not known: no grace."""
    if rule.grace is None or context.first_seen is None:
        return None
    said = [opinion.vulnerability for opinion in found.opinions if opinion.vulnerability is not None]
    times = [context.first_seen.get((item.purl, item.id)) for item in (found.vulnerability, *said)]
    known = [since for since in times if since is not None]
    return min(known) + rule.grace if known else None


def _checks(
    rule: Rule, policy: Policy, report: ScanReport, image: ImageReport, context: Context, unknown: Verdict
) -> Iterator[_Finding]:
    selected, judges = policy.checks[rule.id], policy.judges.get(rule.id, {})
    results: dict[str, list[CheckResult]] = defaultdict(list)
    for result in (*image.checks, *_posture(report, policy, context), *context.workload_results):
        results[result.check].append(result)
    if not selected:
        yield _incomplete(rule.id, "no_such_check", "the rule selects no check", unknown)
    for identifier in selected:
        if identifier not in results:
            yield _incomplete(rule.id, "not_examined", f"{identifier} was not examined", unknown, identifier)
        judge = judges.get(identifier)
        for result in results[identifier]:
            judged = replace(result, outcome=judge(result.outcome, image.image)) if judge else result
            yield from _outcome(rule, judged, context, unknown)


def _posture(report: ScanReport, policy: Policy, context: Context) -> Iterator[CheckResult]:
    """What is known of the registry: the newer of evidence and memory. What is too old is not known any more."""
    found, at = report.posture, report.posture_at
    if context.posture is not None and (at is None or context.posture.checked_at > at):
        found, at = context.posture.results, context.posture.checked_at
    stale = at is not None and context.now - at > policy.posture_max_age
    for result in found:
        yield replace(result, outcome=Incomplete("posture_stale", _too_old(at))) if stale and at else result


def _too_old(at: datetime) -> str:
    return f"the registry was examined on {at:%Y-%m-%d}, longer ago than the policy's posture.max_age"


def _outcome(rule: Rule, result: CheckResult, context: Context, unknown: Verdict) -> Iterator[_Finding]:
    outcome = result.outcome
    if isinstance(outcome, Incomplete):
        yield _incomplete(
            rule.id, outcome.reason, f"{result.check}: {outcome.detail or outcome.reason}", unknown, result.check
        )
    elif isinstance(outcome, Failed):
        remedy = outcome.remedy or (context.remedies or {}).get(result.check, "")
        first = outcome.evidence[0].message if outcome.evidence else "failed"
        more = f" (and {len(outcome.evidence) - 1} more)" if len(outcome.evidence) > 1 else ""
        yield _Finding(
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
) -> Iterator[_Finding]:
    about = (image.image.digest, report.digest)
    judged = signatures.judge(selector, image.verifications, about, context.now, policy.signatures_max_age)
    schemes = ",".join(selector.scheme)
    if judged.judgement is signatures.Judgement.UNKNOWN:
        yield _incomplete(rule.id, judged.slug, judged.message, unknown, schemes)
    elif judged.judgement is signatures.Judgement.SATISFIED:
        reason = Reason(
            rule.id, ReasonKind.SATISFIED, Verdict.ALLOW, judged.message, schemes, judged.evidence[:_EVIDENCE_KEPT]
        )
        yield _Finding(reason, worse_at=judged.until)
    else:
        reason = Reason(
            rule.id, ReasonKind.VIOLATION, rule.action, judged.message, schemes, remedy="sign the image's digest"
        )
        yield _Finding(reason)


def _expression(
    rule: Rule,
    text: str,
    report: ScanReport,
    image: ImageReport,
    policy: Policy,
    context: Context,
    unknown: Verdict,
) -> Iterator[_Finding]:
    try:
        counts = _counts(image, _words(image, policy))
        holds = expressions.holds(text, _image_variable(report, image, context.now), counts)
    except expressions.ExpressionError as error:
        yield _incomplete(
            rule.id, "expression_failed", f"the rule's expression could not be evaluated: {error}", unknown
        )
        return
    if holds:
        yield _Finding(
            Reason(rule.id, ReasonKind.VIOLATION, rule.action, rule.description or f"{rule.id}: {text}", rule.id)
        )


def _image_variable(report: ScanReport, image: ImageReport, now: datetime) -> dict[str, Any]:
    config = image.image.config
    return {
        "name": report.repository,
        "tag": report.tag,
        "digest": str(image.image.digest),
        "os": config.platform.os,
        "architecture": config.platform.architecture,
        "size": image.image.size,
        "layers": len(image.image.layers),
        "user": config.user,
        "labels": dict(config.labels),
        "env": [name for name, _ in config.env],
        "age_days": (now - config.created).days if config.created else -1,
        **_lifecycle(image, now),
    }


def _lifecycle(image: ImageReport, now: datetime) -> dict[str, Any]:
    """The system and how many days it will be supported. What is not known is not there: to ask for it fails, and decides nothing."""
    for engine in image.engines:
        coverage = engine.coverage
        if coverage.os_family:
            known: dict[str, Any] = {"os_family": coverage.os_family, "os_version": coverage.os_version}
            if coverage.os_end_of_life is not None:
                known["supported_days"] = (coverage.os_end_of_life - now.date()).days
            return known
    return {}


def _counts(image: ImageReport, words: Sequence[AttachedBill]) -> dict[str, int]:
    names = (*Severity, "fixable", "unfixed", "known_exploited", *(s for s in STATUSES if s not in set(Severity)))
    counts = dict.fromkeys(map(str, names), 0)
    items = [found.vulnerability for found in agreement.findings(image.engines)]
    told = {(*agreement.identity(item), item.severity, item.fixable) for item in items}
    for item in (found.vulnerability for bill in words for found in agreement.findings(bill.answers)):
        if (key := (*agreement.identity(item), item.severity, item.fixable)) not in told:
            told.add(key)
            items.append(item)
    for item in items:
        counts[item.severity] += 1
        counts["fixable"] += item.fixable
        counts["known_exploited"] += bool(item.known_exploited)
        counts["unfixed"] += not item.fixable
        if item.status not in set(Severity):  # "unknown" is how bad it is, here
            counts[item.status] += 1
    counts["components"] = len(agreement.components(image.engines))
    counts["secrets"] = sum(len(engine.secrets) for engine in image.engines)
    return counts


def _exempted(finding: _Finding, report: ScanReport, image: ImageReport, context: Context) -> _Finding:
    """A violation that somebody accepted, with a second person's approval, for this image, until a day to come."""
    reason = finding.reason
    if reason.kind is not ReasonKind.VIOLATION:
        return finding
    names = {report.repository, str(report.digest), str(image.image.digest)}
    for exemption in context.exemptions:
        if (
            exemption.approved_by
            and exemption.approved_by != exemption.owner
            and exemption.expires_at > context.now
            and (exemption.rule or exemption.subject)
            and exemption.rule in ("", reason.rule)
            and exemption.subject in ("", reason.subject)
            and exemption.purl in ("", finding.purl)
            and not lapsed(exemption, finding.vulnerability)
            and any(matches(exemption.images, name) for name in names if name)
        ):
            message = f"{reason.message}; accepted by {exemption.approved_by} until {exemption.expires_at:%Y-%m-%d}"
            accepted = replace(
                reason, kind=ReasonKind.EXEMPTED, action=Verdict.WARN, message=message, exemption=exemption.id
            )
            return replace(finding, reason=accepted, worse_at=exemption.expires_at)
    return finding


def _without_echoes(findings: Sequence[_Finding]) -> list[_Finding]:
    """Without what a bill states and our own look found too, unless that is the worse of the two, or becomes so."""
    own: dict[tuple[str, ...], list[_Finding]] = defaultdict(list)
    for finding in findings:
        if finding.vulnerability and not finding.stated:
            own[finding.about].append(finding)

    def covers(one: _Finding, other: _Finding) -> bool:
        more = one.reason.action.rank - other.reason.action.rank
        return more > 0 or (more == 0 and other.worse_at in (None, one.worse_at))

    return [f for f in findings if not (f.stated and any(covers(one, f) for one in own[f.about]))]


def lapsed(exemption: Exemption, item: Vulnerability | None) -> str:
    """Why an exemption no longer holds for a vulnerability: the facts are not those that were accepted. Empty: it does hold."""
    if item is None:
        return ""
    if exemption.while_unexploited and item.known_exploited:
        return f"{item.id} is exploited"
    if exemption.while_unfixed and item.fixable:
        return f"there is a fix for {item.id} in {item.package}: {' or '.join(item.fixed_versions)}"
    return ""


def lapses(report: ScanReport, exemptions: Iterable[Exemption]) -> Iterator[tuple[Exemption, str]]:
    """Exemptions that cover a vulnerability of this report and no longer hold for it, with why."""
    names = {report.repository, str(report.digest), *(str(image.image.digest) for image in report.images)}
    for exemption in exemptions:
        if not any(matches(exemption.images, name) for name in names if name):
            continue
        own = (v for image in report.images for engine in image.engines for v in engine.vulnerabilities)
        covered = (v for v in own if v.id == exemption.subject and exemption.purl in ("", v.purl))
        why = next(filter(None, (lapsed(exemption, v) for v in covered)), "")
        if why:
            yield exemption, why


def _verdict(findings: Iterable[_Finding]) -> Verdict:
    return max((f.reason.action for f in findings), key=lambda v: v.rank, default=Verdict.ALLOW)


def _merged(findings: Iterable[_Finding]) -> list[_Finding]:
    """The same reason of two platforms or paths once, with the evidence of both."""
    found: dict[tuple[str, ...], _Finding] = {}
    for finding in findings:
        reason = finding.reason
        key = (reason.rule, reason.kind, reason.action, reason.subject, reason.message, finding.purl)
        if key in found:
            first = found[key].reason
            evidence = (*first.evidence, *reason.evidence)[:_EVIDENCE_KEPT]
            times = [t for t in (found[key].worse_at, finding.worse_at) if t]
            found[key] = _Finding(
                replace(first, evidence=evidence, count=first.count + reason.count),
                finding.purl,
                min(times, default=None),
            )
        else:
            found[key] = finding
    return list(found.values())


def _order(reason: Reason) -> tuple[object, ...]:
    kinds = [ReasonKind.VIOLATION, ReasonKind.INCOMPLETE, ReasonKind.EXEMPTED, ReasonKind.SATISFIED]
    return (-reason.action.rank, kinds.index(reason.kind), reason.rule, reason.subject, reason.message)


def _ages_out(report: ScanReport, policy: Policy, context: Context) -> Iterator[datetime]:
    """When what the evidence rests on becomes too old: advisories, the system's support, what is known of the registry."""
    known = [report.posture_at, context.posture.checked_at if context.posture else None]
    at = max((moment for moment in known if moment), default=None)
    examined = {result.check for result in (*report.posture, *(context.posture.results if context.posture else ()))}
    if at and any(examined.intersection(selected) for selected in policy.checks.values()):
        ends = at + policy.posture_max_age + timedelta(seconds=1)
        if ends > context.now:
            yield ends
    own = any(rule.vulnerability for rule in policy.rules)
    for image in report.images:
        stated = (answer for bill in _words(image, policy) for answer in bill.answers)
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


def changes(reasons: Sequence[Reason]) -> tuple[Change, ...]:
    """What to do so that nothing denies any more: one step a package, check, signature or missing piece of evidence.

    Where nothing denies, the same for what warns.
    """
    relevant = [r for r in reasons if r.action is Verdict.DENY] or [
        r for r in reasons if r.kind not in (ReasonKind.EXEMPTED, ReasonKind.SATISFIED)
    ]
    steps: dict[tuple[str, str], list[Reason]] = defaultdict(list)
    for reason in relevant:
        if reason.kind is ReasonKind.INCOMPLETE:
            steps["examine", reason.slug].append(reason)
        elif reason.remedy.startswith("upgrade "):
            steps["upgrade", reason.remedy.removeprefix("upgrade ").partition(" to ")[0]].append(reason)
        elif reason.remedy:
            steps["sign" if reason.remedy.startswith("sign") else "configure", reason.subject].append(reason)
        else:
            steps["replace", reason.subject].append(reason)
    return tuple(_change(action, target, group) for (action, target), group in steps.items())


def _change(action: str, target: str, group: Sequence[Reason]) -> Change:
    if action == "upgrade":
        versions = list(dict.fromkeys(r.remedy.partition(" to ")[2] for r in group))
        return Change(action, target, "to " + " and ".join(versions), tuple(dict.fromkeys(r.subject for r in group)))
    detail = group[0].remedy if action in ("configure", "sign") else group[0].message
    return Change(action, target, detail, tuple(dict.fromkeys(r.rule for r in group)))
