"""The contract of a report format: a pure function that never fails and escapes all text from the image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from scanner.errors import UsageError
from scanner.lazy_dataclasses import dataclass
from scanner.model.decision import Decision, ReasonKind, Verdict
from scanner.model.finding import Incomplete
from scanner.model.scan import ImageReport, ScanReport

if TYPE_CHECKING:
    from scanner.model.workload_audit import AuditReport


@dataclass(frozen=True)
class ReportSubject:
    """The input of a report.

    ``decision`` is None if no policy was evaluated. ``width`` is in columns; ``color`` is for terminals only.
    ``fix_hints`` holds a corrected Dockerfile fragment for each image, if requested. With ``show_all``, no list is
    shortened.
    """

    report: ScanReport
    decision: Decision | None = None
    color: bool = False
    width: int = 100
    fix_hints: tuple[str, ...] = ()
    show_all: bool = False


@dataclass(frozen=True)
class Gap:
    """Something that could not be examined.

    ``subject`` is a check's id, an engine's id or ``image``. ``fails``: the report must not be a success because of it.
    """

    subject: str
    message: str
    fails: bool


def gaps(subject: ReportSubject) -> tuple[Gap, ...]:
    """Return what is unknown, and whether it makes the report a failure. All formats follow this one rule.

    With a decision, a gap fails the report if and only if it denies the image. Without a decision, every gap does.
    """
    found = [Gap(name, text, subject.decision is None) for name, text in dict.fromkeys(_not_known(subject.report))]
    if subject.decision is None:
        return tuple(found)
    denying = (
        # With a decision the policy is the judge: it may accept a gap, and then a CI job must not fail because of it.
        Gap(reason.subject or reason.rule, reason.message, True)
        for reason in subject.decision.reasons
        if reason.kind is ReasonKind.INCOMPLETE and reason.action is Verdict.DENY
    )
    return (*dict.fromkeys(denying), *found)


def image_gaps(image: ImageReport) -> Iterator[tuple[str, Incomplete]]:
    """Yield what is unknown about one image: the engine's or check's id, or ``image``, and the gap."""
    if not image.engines:
        yield "engine", Incomplete("not_scanned", "no engine looked for vulnerabilities")
    yield from (("image", gap) for gap in image.incomplete)
    yield from ((engine.engine, gap) for engine in image.engines for gap in engine.incomplete)
    yield from ((result.check, result.outcome) for result in image.checks if isinstance(result.outcome, Incomplete))


def _not_known(report: ScanReport) -> Iterator[tuple[str, str]]:
    if not report.images:
        yield "image", "no image was examined"
    for image in report.images:
        yield from ((name, gap.detail or gap.reason) for name, gap in image_gaps(image))


@dataclass(frozen=True)
class RefusedScan:
    """A scan that ended without evidence. ``reason`` is the error's slug; ``message`` and ``hint`` are shown to
    users.
    """

    target: str
    reason: str
    message: str
    hint: str
    at: datetime
    dockwarden: str  # Dockwarden's version


@dataclass(frozen=True)
class AuditSubject:
    """The input of an audit report. ``titles`` and ``remedies`` come from the catalogue, by check id."""

    audit: AuditReport
    titles: Mapping[str, str] = field(default_factory=dict)
    remedies: Mapping[str, str] = field(default_factory=dict)
    color: bool = False
    width: int = 100  # columns of a terminal
    show_all: bool = False  # every reason, not the first ones of each workload


class ReportFormat(ABC):
    """A report format.

    ``id`` is the value of ``--format`` and ``?format=``; ``media_type`` is used for content negotiation. ``purpose`` is
    a short description in Markdown, listed in ``docs/reports.md``.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    purpose: ClassVar[str]
    media_type: ClassVar[str]
    extension: ClassVar[str]

    @abstractmethod
    def render(self, subject: ReportSubject) -> str:
        """Render the report. Never raises for any content of an image. Control characters from images are made
        visible.
        """

    def render_refused(self, refused: RefusedScan) -> str:
        """Render why nothing could be examined. Empty if the format cannot express it."""
        # A format that can express a failure overrides this; an SBOM of an image that was not read would be a wrong
        # SBOM.
        return ""

    def render_audit(self, subject: AuditSubject) -> str:
        """Render an audit of workloads. Raises UsageError if the format describes packages only."""
        raise UsageError(f"the format {self.id} describes the content of images; an audit reports how workloads run")

    @property
    def renders_audits(self) -> bool:
        """Whether the format has a ``render_audit`` of its own."""
        return type(self).render_audit is not ReportFormat.render_audit


def format_table(formats: Iterable[ReportFormat]) -> str:
    """Return the table of formats for ``docs/reports.md``."""
    rows = (f"| `{form.id}` | {form.title} | `{form.media_type}` | {form.purpose} |" for form in formats)
    return "\n".join(("| id | format | media type | for |", "|---|---|---|---|", *rows))
