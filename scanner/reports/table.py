"""The report for a terminal: verdict, reasons, what to do, findings."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime

from scanner.model import agreement, versions
from scanner.model.decision import Decision, Reason, ReasonKind
from scanner.model.finding import (
    CheckResult,
    EngineReport,
    Evidence,
    Failed,
    Incomplete,
    Severity,
    TrustStatus,
    Verification,
    Vulnerability,
)
from scanner.model.lineage import BaseImage, Origin, count, describe, evidence_origin, vulnerability_origin
from scanner.model.plurals import number_of
from scanner.model.scan import ImageReport
from scanner.model.untrusted import clean_text
from scanner.reports import _audit
from scanner.reports._decision_text import DecisionText, group_reasons
from scanner.reports.base import AuditSubject, ReportFormat, ReportSubject

_STATUS_LABELS = {
    TrustStatus.VERIFIED: "signed",
    TrustStatus.NOT_SIGNED: "not signed",
    TrustStatus.REFUSED: "refused",
    TrustStatus.UNKNOWN: "unknown",
}
_SEVERITIES = (Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW, Severity.UNKNOWN)
# Longer lists scroll the verdict off the screen; ``--all`` shows everything.
_REASONS, _PACKAGES, _EVIDENCE = 12, 10, 3
_ALL = 1_000_000


class TableReport(ReportFormat):
    """See ``ReportFormat``. Colour never carries meaning alone: a word repeats it (NO_COLOR, colour blindness)."""

    id = "table"
    title = "Table"
    purpose = "a terminal: verdict, reasons, what to do, what was found"
    media_type = "text/plain"
    extension = "txt"

    def render(self, subject: ReportSubject) -> str:
        page = _Page(subject)
        return "\n".join(page.lines()) + "\n"

    def render_audit(self, subject: AuditSubject) -> str:
        """See ``ReportFormat.render_audit``."""
        return _audit.table(subject)


class _Page:
    def __init__(self, subject: ReportSubject) -> None:
        self._subject, self._report, self._decision = subject, subject.report, subject.decision
        self._text = DecisionText(subject.color, subject.width)
        self._most = (_ALL, _ALL, _ALL) if subject.show_all else (_REASONS, _PACKAGES, _EVIDENCE)

    def lines(self) -> Iterator[str]:
        yield from self._verdict()
        if self._decision:
            yield from self._reason_lines(self._decision)
            yield from self._what_to_do(self._decision)
        for number, image in enumerate(self._report.images):
            yield ""
            yield from self._image(image)
            if number < len(self._subject.fix_hints):
                yield from self._hints(self._subject.fix_hints[number])
        if self._report.posture_at:
            yield ""
            yield (
                f"Registry {clean_text(self._report.repository.partition('/')[0], 200)}  examined "
                f"{_date(self._report.posture_at)}"
            )
            yield from self._checks(self._report.posture)

    def _hints(self, fragment: str) -> Iterator[str]:
        """A corrected Dockerfile fragment. Lines are not wrapped, so that it can be pasted."""
        yield ""
        yield "Dockerfile" if fragment else "No check suggests a change to the Dockerfile."
        yield from (clean_text(line, 4000) for line in fragment.splitlines())

    def _wrap(self, text: str, first: str, rest: str) -> list[str]:
        return self._text.wrap(text, first, rest)

    def _verdict(self) -> Iterator[str]:
        name = clean_text(self._report.reference, 300)
        if self._decision is None:
            yield f"{name}"
        else:
            yield self._text.headline(self._decision.verdict, self._decision.undecided, name)
        yield f"  {self._report.digest}"
        if self._decision:
            yield f"  by policy {self._decision.policy}"

    def _reason_lines(self, decision: Decision) -> Iterator[str]:
        groups, most = group_reasons(decision.reasons), self._most[0]
        if all(group[0].kind is ReasonKind.SATISFIED for group in groups):
            yield ""
            yield "No rule of the policy is violated."
            for group in groups:
                yield from self._reason(group)
            return
        yield ""
        yield "Why"
        for group in groups[:most]:
            yield from self._reason(group)
        if len(groups) > most:
            yield f"  … and {len(groups) - most} more (--all shows them)"

    def _reason(self, group: Sequence[Reason]) -> Iterator[str]:
        yield from self._text.reason(group)
        for evidence in group[0].evidence[:1] if len(group) == 1 else ():
            where = _place_text(evidence.path, evidence.layer_index, evidence.instruction, evidence.history_index)
            if where:
                yield from self._wrap(where, " " * 8, " " * 8)

    def _what_to_do(self, decision: Decision) -> Iterator[str]:
        if not decision.changes:
            return
        yield ""
        yield "What to do"
        for change in decision.changes[: self._most[0]]:
            yield from self._text.change(change)
        if len(decision.changes) > self._most[0]:
            yield f"  … and {len(decision.changes) - self._most[0]} more (--all shows them)"

    def _image(self, image: ImageReport) -> Iterator[str]:
        config = image.image.config
        size = image.image.size / 1e6
        yield (
            f"Image {image.image.digest.short}  {config.platform}  {number_of(len(image.image.layers), 'layer')}  "
            f"{size:.1f} MB  user {clean_text(config.user, 60) or 'root (unset)'}"
        )
        yield from self._base(image)
        for engine in image.engines:
            yield from self._engine(engine)
        # No packages means that nothing could be matched: "no known vulnerabilities" would be a false statement.
        if any(engine.coverage.packages for engine in image.engines):
            found = agreement.findings(image.engines)
            yield from self._vulnerabilities([item.vulnerability for item in found])
            yield from self._disputes([item for item in found if item.disputed])
        yield from self._signatures(image.verifications)
        for sbom in image.attached:
            unseen = len(agreement.unseen(sbom, image.engines))
            text = (
                sbom.problem
                or f"{number_of(len(sbom.components), 'component')}, {unseen} of them not found in the image"
            )
            for answer in sbom.answers:
                gap = f"; {answer.incomplete[0].detail}" if answer.incomplete else ""
                many = number_of(len(answer.vulnerabilities), "vulnerability", "vulnerabilities")
                text += f"; {answer.engine} found {many} in them{gap}"
            head = f"  attached {sbom.format or 'SBOM'} {sbom.digest.short}: "
            yield from self._wrap(text, head, "    ")
        yield from self._checks(image.checks, image.base)

    def _signatures(self, answers: Sequence[Verification]) -> Iterator[str]:
        """Signatures by scheme. Without a trust root nothing is verified, and one line says so."""
        examined = [v for v in answers if v.reason not in ("no_trust_root", "no_registry")]
        if answers and not examined:
            yield f"  signatures: not verified ({clean_text(answers[0].detail, 200)})"
        for v in examined:
            what = f"attested {v.predicate_type} " if v.predicate_type else ""
            who = ", ".join(signer.describe() for signer in v.signers)
            text = f"{what}by {who}" if v.status is TrustStatus.VERIFIED else v.detail or v.reason
            yield from self._wrap(text, f"  {v.scheme}: {_STATUS_LABELS[v.status]}: ", "    ")

    def _base(self, image: ImageReport) -> Iterator[str]:
        """The base image and how many vulnerabilities come from it. Without a server, only a base that the image
        declares is known.
        """
        base = image.base
        if base is None:
            yield "  base: unknown (the image declares none; a server detects bases that it has scanned)"
            return
        yield from self._wrap(f"base: {describe(base, len(image.image.layers))}", "  ", "    ")
        if base.note:
            yield from self._wrap(base.note, "    ? ", "      ")
        if base.outdated and base.newest:
            yield f"    outdated: its tag now points to {base.newest.short}"
        found = count(
            vulnerability_origin(f.vulnerability, image.image, base) for f in agreement.findings(image.engines)
        )
        if base.layers is not None and any(found.values()):
            unknown = f", {found[Origin.UNKNOWN]} unknown" if found[Origin.UNKNOWN] else ""
            counts = f"{found[Origin.BASE]} from the base, {found[Origin.OWN]} added by the image"
            yield f"    vulnerabilities: {counts}{unknown}"

    def _engine(self, engine: EngineReport) -> Iterator[str]:
        system = engine.coverage.system or "no operating system recognised"
        ends = engine.coverage.os_end_of_life
        system += f" (supported until {ends})" if ends else ""
        built = engine.advisories.updated_at
        yield (
            f"  {f'{engine.engine} {engine.version}'.rstrip()}: {system}, {engine.coverage.packages} "
            f"packages, advisories of {_date(built)}"
        )
        for item in engine.incomplete:
            yield from self._wrap(f"unknown: {item.detail or item.reason}", "    ? ", "      ")

    def _disputes(self, items: Sequence[agreement.Finding]) -> Iterator[str]:
        """Findings on which the engines disagree."""
        if items:
            yield f"  the engines disagree on {len(items)}"
        for item in sorted(items, key=lambda f: -f.vulnerability.severity.rank)[: self._most[1]]:
            head = f"    {clean_text(item.vulnerability.id, 60)} in {clean_text(item.vulnerability.package, 60)}: "
            yield from self._wrap(item.dispute, head, "      ")
        if len(items) > self._most[1]:
            yield f"    … and {len(items) - self._most[1]} more"

    def _vulnerabilities(self, items: Sequence[Vulnerability]) -> Iterator[str]:
        counts = Counter(item.severity for item in items)
        fixable = Counter(item.severity for item in items if item.fixable)
        if not items:
            yield "    no known vulnerabilities"
            return
        parts = [f"{counts[s]} {s} ({fixable[s]} fixable)" for s in _SEVERITIES if counts[s]]
        yield "    " + ", ".join(parts)
        packages: dict[tuple[str, str], list[Vulnerability]] = defaultdict(list)
        for item in items:
            packages[item.package, item.installed_version].append(item)
        ranked = sorted(
            packages.items(), key=lambda entry: (-max(v.severity.rank for v in entry[1]), -len(entry[1]), entry[0])
        )
        width = max(len(name) for (name, _), _ in ranked[: self._most[1]])
        for (name, version), found in ranked[: self._most[1]]:
            top = max(found, key=lambda v: v.severity.rank)
            # One version for each package. If not every finding has a fix, the column says how many it fixes.
            fixable_ones = [v for v in found if v.fixable]
            to = versions.common_upgrade(version, [v.fixed_versions for v in fixable_ones])
            part = f" (fixes {len(fixable_ones)} of {len(found)})" if len(fixable_ones) < len(found) else ""
            fix = clean_text(f"-> {to}{part}", 120) if to else _without_fix(found)
            yield (
                f"    {top.severity:<8} {clean_text(name, 60):<{min(width, 60)}}  "
                f"{clean_text(version, 40):<20} {fix}  ({_ids(found)})"
            )
        if len(ranked) > self._most[1]:
            yield f"    … and {len(ranked) - self._most[1]} more packages"

    def _checks(self, results: Sequence[CheckResult], base: BaseImage | None = None) -> Iterator[str]:
        passed = sum(result.outcome.kind == "passed" for result in results)
        failed = [r for r in results if isinstance(r.outcome, Failed)]
        unknown = [r for r in results if isinstance(r.outcome, Incomplete)]
        yield (
            f"  checks: {passed} passed, {len(failed)} failed, {len(unknown)} unknown, "
            f"{len(results) - passed - len(failed) - len(unknown)} not applicable"
        )
        for result in sorted(failed, key=lambda r: (-_severity(r).rank, r.check)):
            yield from self._failure_lines(result, base)
        for result in unknown:
            assert isinstance(result.outcome, Incomplete)
            yield from self._wrap(
                f"{result.check}: {result.outcome.detail or result.outcome.reason}", "    ? ", "      "
            )

    def _failure_lines(self, result: CheckResult, base: BaseImage | None) -> Iterator[str]:
        """The evidence of a check, grouped by the layer and instruction that created it."""
        assert isinstance(result.outcome, Failed)
        # Evidence of the same instruction is printed together, with the location after the last line of the group.
        found = result.outcome.evidence[: self._most[2]]
        for number, evidence in enumerate(found):
            head = f"    ✕ {result.check} ({_severity(result)}): " if number == 0 else "      "
            path = "" if evidence.path in evidence.message else evidence.path
            where = _place_text(path, evidence.layer_index, evidence.instruction, evidence.history_index)
            if base and evidence_origin(evidence, base) is Origin.BASE:
                where = ", ".join(filter(None, ("base", where)))
            same_origin_follows = any(_made_by(later) == _made_by(evidence) for later in found[number + 1 : number + 2])
            yield from self._wrap(
                evidence.message + (f" [{where}]" if where and not same_origin_follows else ""), head, "      "
            )
        if len(result.outcome.evidence) > self._most[2]:
            yield f"      … and {len(result.outcome.evidence) - self._most[2]} more"


def _severity(result: CheckResult) -> Severity:
    own = result.outcome.severity if isinstance(result.outcome, Failed) else None
    return own or result.severity


def _made_by(evidence: Evidence) -> tuple[object, ...]:
    return evidence.layer_index, evidence.history_index, evidence.instruction


def _without_fix(found: Sequence[Vulnerability]) -> str:
    """The distribution's statements about vulnerabilities without a fix."""
    statements = dict.fromkeys(v.status.replace("_", " ") for v in found if v.status not in ("affected", "unknown"))
    return clean_text(", ".join(statements), 60) or "no fix"


def _ids(found: Sequence[Vulnerability]) -> str:
    names = list(dict.fromkeys(v.id for v in sorted(found, key=lambda v: -v.severity.rank)))
    exploited = "; known to be exploited" if any(v.known_exploited for v in found) else ""
    return clean_text(", ".join(names[:2]), 120) + (f" +{len(names) - 2}" if len(names) > 2 else "") + exploited


def _place_text(path: str, layer: int | None, instruction: str, history: int | None) -> str:
    parts = [
        path and f"/{path}",
        f"layer {layer}" if layer is not None else f"history line {history}" if history is not None else "",
        instruction and textwrap.shorten(instruction, 80),
    ]
    return ", ".join(filter(None, parts))


def _date(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "unknown date"
