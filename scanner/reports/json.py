"""The whole evidence and the decision as JSON, for programs. Schema version 1: ``docs/report-schema.md``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
from pydantic import TypeAdapter

from scanner.model.decision import Decision, Verdict
from scanner.model.scan import ScanReport
from scanner.reports.base import Refused, ReportFormat, ReportSubject

# Characters without a shape of their own, which would reorder or hide what stands beside them: JSON can spell them out.
_UNSEEN = re.compile("[\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


@lru_cache(maxsize=1)
def _report() -> TypeAdapter[ScanReport]:
    return TypeAdapter(ScanReport)


@lru_cache(maxsize=1)
def _decision() -> TypeAdapter[Decision]:
    return TypeAdapter(Decision)


def decision_document(decision: Decision) -> dict[str, Any]:
    """A decision as JSON values; ``undecided`` says that it denies only for want of evidence."""
    document: dict[str, Any] = _decision().dump_python(decision, mode="json")
    return {**document, "undecided": decision.undecided}


def decision_text(decision: Decision, report: ScanReport) -> str:
    """A decision as the gate answers it: one JSON object, with the image's name beside the decision's own members."""
    document = {**decision_document(decision), "image": report.reference, "digest": report.digest}
    return orjson.dumps(document, default=str).decode()


class JsonReport(ReportFormat):
    """See ``ReportFormat``. Members: ``schema``, ``verdict`` and ``decision`` (null without a policy), ``report``; ``error`` where there is none."""

    id = "json"
    title = "JSON"
    purpose = "programs: the whole evidence and the decision"
    media_type = "application/json"
    extension = "json"

    def render(self, subject: ReportSubject) -> str:
        document = {
            "schema": "dockwarden/report/1",
            "verdict": subject.decision.verdict if subject.decision else None,
            "decision": decision_document(subject.decision) if subject.decision else None,
            "report": _report().dump_python(subject.report, mode="json"),
        }
        return _text(document)

    def render_refused(self, refused: Refused) -> str:
        """See ``ReportFormat.render_refused``. What could not be examined is denied and undecided; ``error`` has the reason."""
        error = {"reason": refused.reason, "message": refused.message, "hint": refused.hint}
        document = {
            "schema": "dockwarden/report/1",
            "verdict": Verdict.DENY,
            "undecided": True,
            "reference": refused.target,
            "error": error,
            "decision": None,
            "report": None,
        }
        return _text(document)


def _text(document: Mapping[str, Any]) -> str:
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
