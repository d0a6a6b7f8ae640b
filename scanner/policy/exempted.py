"""What people said of a finding: exemptions, and VEX statements that a product is not affected."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from scanner.errors import UsageError
from scanner.model import agreement
from scanner.model.decision import Reason, ReasonKind, Verdict
from scanner.model.finding import Vulnerability
from scanner.model.glob import matches
from scanner.model.reference import Reference
from scanner.model.scan import ImageReport, ScanReport
from scanner.model.vex import Exemption, VexStatement, VexStatus
from scanner.model.workload import Workload
from scanner.policy.context import Context

_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Candidate:
    """A reason before exemptions, with what an exemption may name, and the moment it becomes worse by itself."""

    reason: Reason
    purl: str = ""
    worse_at: datetime | None = None
    vulnerability: Vulnerability | None = None
    stated: bool = False  # only an attached SBOM lists the package

    @property
    def about(self) -> tuple[str, ...]:
        """The rule and the vulnerability."""
        return (self.reason.rule, *agreement.identity(self.vulnerability)) if self.vulnerability else ()


def exempted(finding: Candidate, names: Collection[str], context: Context) -> Candidate:
    """A violation that somebody accepted, with a second person's approval, for one of these images, until a day to
    come.

    ``names`` are the image's repository and digests.
    """
    reason = finding.reason
    if reason.kind is not ReasonKind.VIOLATION:
        return finding
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


def names_of(report: ScanReport, image: ImageReport) -> frozenset[str]:
    """What an exemption's ``images`` may name of an image: its repository, its digest, that of its index."""
    return frozenset((report.repository, str(report.digest), str(image.image.digest)))


def names_of_workload(workload: Workload) -> frozenset[str]:
    """What an exemption's ``images`` may name of the image that a workload runs."""
    try:
        reference = Reference.parse(workload.image)
    except UsageError:
        return frozenset()
    return frozenset((reference.name, str(reference.digest or "")))


def lapsed(exemption: Exemption, item: Vulnerability | None) -> str:
    """Why an exemption no longer holds for a vulnerability whose facts have changed since. Empty: it holds."""
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


def not_affected(item: Vulnerability, image: ImageReport, vex: Iterable[VexStatement]) -> bool:
    """Whether a statement says, with a justification, that this product is not affected (OpenVEX 0.2.0).

    The newest statement counts. Of several of the same moment that contradict each other, none does.
    """
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
