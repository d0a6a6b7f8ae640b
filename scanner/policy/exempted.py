"""Exemptions and VEX statements that apply to a finding."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from scanner.errors import UsageError
from scanner.lazy_dataclasses import dataclass
from scanner.model import agreement, versions
from scanner.model.decision import Reason, ReasonKind, Verdict
from scanner.model.finding import Vulnerability
from scanner.model.glob import matches
from scanner.model.reference import Reference
from scanner.model.scan import ImageReport, ScanReport
from scanner.model.vex import Exemption, VexStatement, VexStatus
from scanner.policy.context import Context

if TYPE_CHECKING:
    from scanner.model.workload import Workload

_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
# Only these say that a vulnerability does no harm.
_HIDING = frozenset((VexStatus.NOT_AFFECTED, VexStatus.FIXED))
_DIGESTS = ("sha256:", "sha512:")  # how digests begin; a repository's name has no colon before the first slash
CLOCK_SKEW = timedelta(days=1)  # how far in the future a VEX statement may be dated: clocks and time zones differ


@dataclass(frozen=True, slots=True)
class Candidate:
    """A reason before exemptions: what an exemption can match, and when the reason becomes worse by itself."""

    reason: Reason
    purl: str = ""  # empty: not about a package
    worse_at: datetime | None = None  # when a grace period ends; None: there is none
    vulnerability: Vulnerability | None = None
    stated: bool = False  # only an attached SBOM lists the package

    @property
    def about(self) -> tuple[str, ...]:
        """The rule and the vulnerability."""
        return (self.reason.rule, *agreement.identity(self.vulnerability)) if self.vulnerability else ()


def apply_exemptions(finding: Candidate, names: Collection[str], context: Context) -> Candidate:
    """Return the violation as exempted if an approved exemption covers it and has not expired.

    ``names`` are the image's repository and digests.
    """
    reason = finding.reason
    if reason.kind is not ReasonKind.VIOLATION:
        return finding
    for exemption in context.exemptions:
        if (
            # Checked again here: a row that was written past the use case must not accept anything.
            exemption.approved_by
            and exemption.approved_by != exemption.owner
            and exemption.expires_at > context.now
            and (exemption.rule or exemption.subject)
            and exemption.rule in ("", reason.rule)
            and exemption.subject in ("", reason.subject)
            and exemption.purl in ("", finding.purl)
            and not lapse_reason(exemption, finding.vulnerability)
            and _covers(exemption.images, names)
        ):
            message = f"{reason.message}; accepted by {exemption.approved_by} until {exemption.expires_at:%Y-%m-%d}"
            # A warning, not an allowance: an accepted risk stays visible in every report until it ends.
            accepted = replace(
                reason, kind=ReasonKind.EXEMPTED, action=Verdict.WARN, message=message, exemption=exemption.id
            )
            return replace(finding, reason=accepted, worse_at=exemption.expires_at)
    return finding


def _covers(images: Collection[str], names: Collection[str]) -> bool:
    """Return whether an exemption for ``images`` is about one of the names: a repository or digests."""
    # A digest must be named in full. As a glob, "*" or "s*" would match each digest, and so every image.
    return any(
        name in images or "**" in images if name.startswith(_DIGESTS) else matches(images, name)
        for name in names
        if name
    )


def names_of(report: ScanReport, image: ImageReport) -> frozenset[str]:
    """Return what an exemption's ``images`` can match: the image's repository, its digest, its index's digest."""
    return frozenset((report.repository, str(report.digest), str(image.image.digest)))


def names_of_workload(workload: Workload) -> frozenset[str]:
    """Return what an exemption's ``images`` can match for a workload's image."""
    try:
        reference = Reference.parse(workload.image)
    except UsageError:
        return frozenset()
    return frozenset((reference.name, str(reference.digest or "")))


def lapse_reason(exemption: Exemption, item: Vulnerability | None) -> str:
    """Return why an exemption lapsed for a vulnerability whose facts have changed. Empty: it still applies."""
    if item is None:
        return ""
    # The condition is asked again at each decision, so that an exemption ends the hour a catalogue lists the exploit.
    if exemption.while_unexploited and item.known_exploited:
        return f"{item.id} is exploited"
    if exemption.while_unfixed and item.fixable:
        fix = versions.upgrade(item.installed_version, item.fixed_versions)
        return f"there is a fix for {item.id} in {item.package}: {fix}"
    return ""


def lapses(report: ScanReport, exemptions: Iterable[Exemption]) -> Iterator[tuple[Exemption, str]]:
    """Yield exemptions that lapsed for a vulnerability of this report, with the reason."""
    names = {report.repository, str(report.digest), *(str(image.image.digest) for image in report.images)}
    for exemption in exemptions:
        if not _covers(exemption.images, names):
            continue
        own = (v for image in report.images for engine in image.engines for v in engine.vulnerabilities)
        covered = (v for v in own if v.id == exemption.subject and exemption.purl in ("", v.purl))
        why = next(filter(None, (lapse_reason(exemption, v) for v in covered)), "")
        if why:
            yield exemption, why


def not_affected(found: agreement.Finding, image: ImageReport, vex: Collection[VexStatement], now: datetime) -> bool:
    """Return whether statements with a justification say that this product is not affected (OpenVEX 0.2.0).

    A distribution's advisory often fixes several CVEs. Then each of them needs a statement, or the advisory has one.
    """
    if not vex:
        return False
    item = found.vulnerability
    aliases = {name for one in found.reported for name in (one.id, *one.aliases)} | {item.id, *item.aliases}
    cves = {item.id} if agreement.is_cve(item.id) else {name for name in aliases if agreement.is_cve(name)}
    shared = {name for name in aliases if not agreement.is_cve(name)}
    # A statement may name the package without qualifiers (?arch=…), or as another engine does.
    purls = {purl for one in (item, *found.reported) for purl in (one.purl, one.purl.partition("?")[0])}
    return all(
        _is_hidden(shared | {cve} if cve else shared, aliases, purls, image, vex, now) for cve in sorted(cves) or ("",)
    )


def _is_hidden(
    names: Collection[str],
    aliases: Collection[str],
    purls: set[str],
    image: ImageReport,
    vex: Iterable[VexStatement],
    now: datetime,
) -> bool:
    """Return whether statements about a vulnerability by one of its ``names`` hide it.

    ``aliases``: more names, by which a statement can say that the product is affected.

    The newest statement counts. Contradictory statements with the same timestamp do not count, and neither does one
    that hides the vulnerability and is dated in the future: it would outdate every later statement that revokes it.
    """
    # Never the repository's name: a statement about one build must not cover the next one.
    products = {*purls, str(image.image.digest), str(image.image.config.digest)}
    about = [
        statement
        for statement in vex
        if statement.vulnerability in (names if statement.status in _HIDING else aliases)
        and bool(products & set(statement.products))
        and (not statement.subcomponents or bool(purls & set(statement.subcomponents)))
        and not (statement.status in _HIDING and (statement.timestamp or _NO_TIME) > now + CLOCK_SKEW)
    ]
    # OpenVEX 0.2.0, "Updating Statements": the newest statement replaces older ones. Two with one time that disagree
    # are no answer, so neither hides the vulnerability.
    newest = max((statement.timestamp or _NO_TIME for statement in about), default=_NO_TIME)
    last = [statement for statement in about if (statement.timestamp or _NO_TIME) == newest]
    return bool(last) and all(
        statement.status is VexStatus.FIXED
        or (statement.status is VexStatus.NOT_AFFECTED and bool(statement.justification))
        for statement in last
    )
