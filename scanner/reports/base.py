"""The contract of a report format: pure, total, and escaping everything that came from an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from scanner.model.decision import Decision
from scanner.model.scan import ScanReport


@dataclass(frozen=True)
class ReportSubject:
    """What a report shows. ``decision`` is None where no policy was asked. ``width`` in columns, ``color`` only for a terminal;
    ``fix_hints`` holds a corrected Dockerfile fragment for each image, where it was asked for."""

    report: ScanReport
    decision: Decision | None = None
    color: bool = False
    width: int = 100
    fix_hints: tuple[str, ...] = ()


class ReportFormat(ABC):
    """``id`` is what ``--format`` and ``?format=`` take; ``media_type`` is used for content negotiation."""

    id: ClassVar[str]
    title: ClassVar[str]
    media_type: ClassVar[str]
    extension: ClassVar[str]

    @abstractmethod
    def render(self, subject: ReportSubject) -> str:
        """The whole report. Never raises for what an image can contain; control characters from images are made visible."""
