"""How an image is to be run, as a caller tells it: a document of any kind we read, and the checks' word on it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from scanner import catalog
from scanner.checks.base import ImageSubject, WorkloadCheck
from scanner.errors import UsageError
from scanner.model.finding import CheckResult, Incomplete, Outcome
from scanner.model.reference import Reference
from scanner.model.scan import ScanReport
from scanner.model.workload import Workload

_MAX_WORKLOADS = 50


def parse_workload(document: str | Mapping[str, Any], image: Reference) -> tuple[Workload, ...]:
    """The workloads of a document that run ``image``. Raises UsageError (422) when nothing reads it, or nothing in it runs the image."""
    text = document if isinstance(document, str) else json.dumps(document)
    refused: list[str] = []
    for source in catalog.workload_sources().values():
        try:
            found = source.parse(text)
        except UsageError as error:
            refused.append(f"{source.id}: {error}")
            continue
        return _that_run(image, found)
    raise UsageError(
        "the workload is no document that is read here",
        reason="bad_workload",
        hint="; ".join(refused)[:500] or "no workload format is installed",
    )


def _that_run(image: Reference, workloads: Iterable[Workload]) -> tuple[Workload, ...]:
    named = tuple(w for w in workloads if _repository(w.image) == image.name)[:_MAX_WORKLOADS]
    if not named:
        raise UsageError(f"nothing in the workload runs {image.name}", reason="bad_workload")
    return named


def _repository(text: str) -> str:
    try:
        return Reference.parse(text).name
    except UsageError:
        return ""


def examine(workloads: Iterable[Workload], found: ScanReport) -> tuple[CheckResult, ...]:
    """Every workload check on every workload, with the image as its evidence describes it (its files are not read again)."""
    image = found.images[0].image if len(found.images) == 1 else None
    subject = ImageSubject(image, None, "rootfs_not_kept") if image else None
    return tuple(
        CheckResult(check.id, _outcome(check, workload, subject), check.severity)
        for workload in workloads
        for check in catalog.workload_checks().values()
    )


def _outcome(check: WorkloadCheck, workload: Workload, subject: ImageSubject | None) -> Outcome:
    try:
        return check.examine(workload, subject)
    except Exception as error:
        # A stage boundary: a check that breaks has examined nothing, and must not take the gate down.
        logging.getLogger(__name__).exception("a workload check failed", extra={"check": check.id})
        return Incomplete("check_failed", f"{check.id} broke on this workload ({type(error).__name__})")
