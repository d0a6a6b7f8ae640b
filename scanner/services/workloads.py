"""Workloads: how images are run, read from any document that a source knows, and judged by every workload check."""

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
from scanner.workloads._documents import parse
from scanner.workloads.base import WorkloadSource

_MAX_WORKLOADS = 50


def parse_workload(document: str | Mapping[str, Any], image: Reference) -> tuple[Workload, ...]:
    """The workloads of a document that run ``image``.

    Raises UsageError ``bad_workload``, with the line, where no source reads the document or nothing in it runs the image.
    """
    text = document if isinstance(document, str) else json.dumps(document)
    return _that_run(image, source_of(text, "workload").parse(text, "workload"))


def source_of(text: str | bytes, file: str) -> WorkloadSource:
    """The source whose documents these are. Raises UsageError where nothing recognises the first of them."""
    documents = parse(text, file, yaml_1_1=True, compose_tags=True)
    for source in catalog.workload_sources().values():
        if documents and source.recognises(documents[0]):
            return source
    known = "; ".join(source.title for source in catalog.workload_sources().values())
    raise UsageError(
        f"{file}: the document is none that Dockwarden reads", reason="bad_workload", hint=f"it reads: {known}"
    )


def _that_run(image: Reference, workloads: Iterable[Workload]) -> tuple[Workload, ...]:
    named = tuple(w for w in workloads if _repository(w.image) == image.name)[:_MAX_WORKLOADS]
    if not named:
        raise UsageError(f"no container in the workload runs {image.name}", reason="bad_workload")
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
