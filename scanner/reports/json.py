"""Evidence and decision as JSON, for programs. Schema version 1: ``docs/report-schema.md``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from scanner.model.decision import Change, Decision, Reason, Verdict
from scanner.model.finding import CheckResult
from scanner.model.scan import ScanReport
from scanner.model.secret_arguments import without_secrets
from scanner.patterns import lazy
from scanner.reports.base import AuditSubject, RefusedScan, ReportFormat, ReportSubject

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from scanner.model.workload_audit import AuditReport, ImageAnswer, WorkloadReport

# Invisible characters can reorder or hide the text around them (Trojan Source), so they are written as escapes.
_UNSEEN = lazy("[\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


@lru_cache(maxsize=1)
def _decision() -> TypeAdapter[Decision]:
    from pydantic import TypeAdapter

    return TypeAdapter(Decision)


def decision_document(decision: Decision) -> dict[str, Any]:
    """Return a decision as JSON values. ``undecided`` is true if it denies only because evidence is missing."""
    document: dict[str, Any] = _decision().dump_python(decision, mode="json")
    return {**document, "undecided": decision.undecided}


@lru_cache(maxsize=1)
def _reason() -> TypeAdapter[Reason]:
    from pydantic import TypeAdapter

    return TypeAdapter(Reason)


def reason_document(reason: Reason) -> dict[str, Any]:
    """Return a reason as JSON values, as a decision contains it."""
    found: dict[str, Any] = _reason().dump_python(reason, mode="json")
    return found


def change_document(change: Change) -> dict[str, Any]:
    """Return a change as JSON values, as a decision contains it."""
    return {**asdict(change), "resolves": list(change.resolves)}


def decision_text(decision: Decision, report: ScanReport) -> str:
    """Return the gate's answer: the decision's JSON object with the image's name added."""
    document = {**decision_document(decision), "image": report.reference, "digest": report.digest}
    return orjson.dumps(document, default=str).decode()


def parse_decision(text: str | bytes) -> Decision:
    """Return the decision of a text that ``decision_text`` wrote. The members it added are ignored."""
    return _decision().validate_json(text)


def audit_document(audit: AuditReport) -> dict[str, Any]:
    """Return an audit as JSON values. Values of environment variables, and secrets in command lines, are omitted."""
    return {
        "targets": list(audit.targets),
        "policy": audit.policy,
        "environment": audit.environment,
        "finished_at": audit.finished_at.isoformat(),
        "dockwarden": audit.dockwarden,
        "workloads": [_workload_document(report) for report in audit.workloads],
    }


def _workload_document(report: WorkloadReport) -> dict[str, Any]:
    place = report.workload.place()
    workload = without_secrets(report.workload).facts()
    # Names only: a Compose file or pod spec often holds passwords as values, and reports are uploaded to CI systems.
    workload["environment"] = [{"name": v.name, "origin": v.origin} for v in report.workload.environment]
    image = report.image
    return {
        "verdict": report.verdict,
        "undecided": report.undecided,
        "workload": {**workload, "file": place.file, "line": place.line, "column": place.column},
        "image": None if image is None else _answer().dump_python(image, mode="json"),
        "decision": decision_document(report.decision()),
        "checks": _checks().dump_python(report.checks, mode="json"),
    }


@lru_cache(maxsize=1)
def _answer() -> TypeAdapter[ImageAnswer]:
    from pydantic import TypeAdapter

    from scanner.model.workload_audit import ImageAnswer

    return TypeAdapter(ImageAnswer)


@lru_cache(maxsize=1)
def _checks() -> TypeAdapter[tuple[CheckResult, ...]]:
    from pydantic import TypeAdapter

    return TypeAdapter(tuple[CheckResult, ...])


class JsonReport(ReportFormat):
    """See ``ReportFormat``.

    Members: ``schema``; ``verdict`` and ``decision`` (null without a policy); ``report``. If nothing could be examined,
    ``error`` (reason, message, hint) stands instead of a report.
    """

    id = "json"
    title = "JSON"
    purpose = "programs: the whole evidence and the decision"
    media_type = "application/json"
    extension = "json"

    def render(self, subject: ReportSubject) -> str:
        document = {
            "schema": "dockwarden/report/1",
            "verdict": subject.decision.verdict if subject.decision else None,
            "decision": subject.decision and {**_members(subject.decision), "undecided": subject.decision.undecided},
            "report": subject.report,
        }
        return _text(document)

    def render_refused(self, refused: RefusedScan) -> str:
        """See ``ReportFormat.render_refused``.

        The verdict is "deny" and undecided; ``error`` holds the reason.
        """
        # "deny", not null: a script that reads ``verdict`` alone must not take a failed scan for an accepted image.
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

    def render_audit(self, subject: AuditSubject) -> str:
        """See ``ReportFormat.render_audit``."""
        document = {
            "schema": "dockwarden/audit/1",
            "verdict": subject.audit.verdict,
            "undecided": subject.audit.undecided,
            "audit": audit_document(subject.audit),
        }
        return _text(document)


def _members(decision: Decision) -> dict[str, Any]:
    return {item.name: getattr(decision, item.name) for item in fields(decision)}


def _text(document: Mapping[str, Any]) -> str:
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode()
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
