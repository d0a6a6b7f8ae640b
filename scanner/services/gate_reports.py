"""Reports of an answer of the gate, for a pipeline: its decision, with the evidence that the decision is based on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy.engine import Connection

from scanner import __version__, catalog
from scanner.errors import UsageError
from scanner.model.reference import Digest
from scanner.reports.base import RefusedScan, ReportSubject
from scanner.reports.json import parse_decision
from scanner.store import images


def check(formats: Iterable[str]) -> None:
    """Raises UsageError that names the member ``reports`` and the formats that exist."""
    known = catalog.reports()
    for name in formats:
        if name not in known:
            raise UsageError(f"reports: there is no report format {name!r}", hint="one of " + ", ".join(known))


def render(session: Connection, document: Mapping[str, Any], formats: Iterable[str]) -> dict[str, str]:
    """Render an answer of the gate in each of ``formats``: text by format.

    Without evidence the report says why the image was not examined; a format that cannot express this has an empty
    text. The environment and a workload of the question are already part of ``document``'s decision.
    """
    known = catalog.reports()
    # A pipeline that asked for a report gets one in any case. An absent file would let a later step of it pass.
    if document["evidence"] is None:
        refused = _refused_scan(document)
        return {name: known[name].render_refused(refused) for name in formats}
    found = images.evidence(session, Digest(document["evidence"]).hex)
    subject = ReportSubject(found, parse_decision(orjson.dumps(document)))
    return {name: known[name].render(subject) for name in formats}


def _refused_scan(document: Mapping[str, Any]) -> RefusedScan:
    first: Mapping[str, str] = next(iter(document["reasons"]), {})
    return RefusedScan(
        document["image"],
        first.get("slug") or "incomplete",
        first.get("message") or "the image was not examined",
        first.get("remedy", ""),
        datetime.now(UTC),
        __version__,
    )
