"""The contract of a report format: pure, total, and escaping everything that came from an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from scanner.errors import UsageError
from scanner.model.decision import Decision, ReasonKind, Verdict
from scanner.model.finding import Incomplete
from scanner.model.scan import ScanReport
from scanner.model.workload_audit import AuditReport


@dataclass(frozen=True)
class ReportSubject:
    """What a report shows.

    ``decision`` is None where no policy was asked. ``width`` in columns, ``color`` only for a terminal;
    ``fix_hints`` holds a corrected Dockerfile fragment for each image, where it was asked for. ``show_all``: formats
    that shorten long lists for a person do not.
    """

    report: ScanReport
    decision: Decision | None = None
    color: bool = False
    width: int = 100
    fix_hints: tuple[str, ...] = ()
    show_all: bool = False


@dataclass(frozen=True)
class Gap:
    """Something that could not be examined. ``fails``: it keeps the report from being a success."""

    subject: str
    message: str
    fails: bool


def gaps(subject: ReportSubject) -> tuple[Gap, ...]:
    """What is not known, and whether that makes the report a failure: one rule for every format that has a word for
    it.

    With a decision, its policy says so: a gap fails the report when and only when it denies the image. Without one,
    every gap does.
    """
    found = [Gap(name, text, subject.decision is None) for name, text in dict.fromkeys(_not_known(subject.report))]
    if subject.decision is None:
        return tuple(found)
    denying = (
        Gap(reason.subject or reason.rule, reason.message, True)
        for reason in subject.decision.reasons
        if reason.kind is ReasonKind.INCOMPLETE and reason.action is Verdict.DENY
    )
    return (*dict.fromkeys(denying), *found)


def _not_known(report: ScanReport) -> Iterator[tuple[str, str]]:
    if not report.images:
        yield "image", "no image was examined"
    for image in report.images:
        if not image.engines:
            yield "engine", "no engine looked for vulnerabilities"
        yield from (("image", gap.detail or gap.reason) for gap in image.incomplete)
        yield from ((engine.engine, gap.detail or gap.reason) for engine in image.engines for gap in engine.incomplete)
        for result in image.checks:
            if isinstance(result.outcome, Incomplete):
                yield result.check, result.outcome.detail or result.outcome.reason


@dataclass(frozen=True)
class Refused:
    """A scan that ended before there was evidence: ``reason`` is the error's slug, ``message`` and ``hint`` are for
    people.
    """

    target: str
    reason: str
    message: str
    hint: str
    at: datetime
    dockwarden: str  # our version


@dataclass(frozen=True)
class AuditSubject:
    """What a report about workloads shows. ``titles`` and ``remedies`` are the catalogue's, by check id."""

    audit: AuditReport
    titles: Mapping[str, str] = field(default_factory=dict)
    remedies: Mapping[str, str] = field(default_factory=dict)
    color: bool = False
    width: int = 100
    show_all: bool = False


class ReportFormat(ABC):
    """``id`` is what ``--format`` and ``?format=`` take; ``media_type`` is used for content negotiation.

    ``purpose`` says what it is for, in a few words of Markdown: ``docs/reports.md`` lists it.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    purpose: ClassVar[str]
    media_type: ClassVar[str]
    extension: ClassVar[str]

    @abstractmethod
    def render(self, subject: ReportSubject) -> str:
        """The whole report.

        Never raises for what an image can contain; control characters from images are made visible.
        """

    def render_refused(self, refused: Refused) -> str:
        """A report of this format that says why nothing could be examined; empty where the format has no way to say
        it.
        """
        return ""

    def render_audit(self, subject: AuditSubject) -> str:
        """The report of an audit of workloads. Raises UsageError where the format is about packages only."""
        raise UsageError(
            f"the format {self.id} describes what is in images; an audit is about how they are run",
            hint="use one of: table, json, sarif, junit, gitlab, csv, html, markdown, github",
        )


def format_table(formats: Iterable[ReportFormat]) -> str:
    """The formats as a Markdown table: the list in ``docs/reports.md``."""
    rows = (f"| `{form.id}` | {form.title} | `{form.media_type}` | {form.purpose} |" for form in formats)
    return "\n".join(("| id | format | media type | for |", "|---|---|---|---|", *rows))
