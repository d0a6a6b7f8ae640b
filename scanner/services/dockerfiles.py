"""Dockerfiles: check what can be known before the image is built, decide."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from scanner import catalog
from scanner.checks import _dockerfile as syntax
from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.finding import CheckResult, Evidence, Failed, Incomplete, Outcome, Passed
from scanner.model.lineage import BaseImage
from scanner.model.workload import Origin, Place, Workload
from scanner.model.workload_audit import WorkloadReport
from scanner.policy.context import Context
from scanner.policy.evaluate import evaluate_build
from scanner.policy.rules import Policy
from scanner.workloads.base import read_texts

SOURCE = "dockerfile"
_PREFIX = f"{SOURCE}:"
_NAME = re.compile(r"(?:Dockerfile|Containerfile)(?:[.-].+)?|.+\.(?:dockerfile|containerfile)", re.IGNORECASE)
_ABOUT_HISTORY = ("history_absent", "history_not_understood", "limit_exceeded")


@dataclass(frozen=True)
class Dockerfile:
    """A Dockerfile and what it builds. ``file``: as the user named it."""

    file: str
    build: syntax.Build


def is_target(target: str) -> bool:
    """Whether an ``audit`` target is a Dockerfile: ``dockerfile:FILE``, or a file whose name is a Dockerfile's."""
    return target.startswith(_PREFIX) or (_NAME.fullmatch(Path(target).name) is not None and Path(target).is_file())


def read_target(target: str, stdin: Callable[[], bytes]) -> tuple[Dockerfile, ...]:
    """Return the Dockerfiles of a target: FILE, FILE,FILE or ``-``. Raises UsageError with file and line."""
    found = []
    for name, text in read_texts(target.removeprefix(_PREFIX), stdin):
        # Docker builds a Dockerfile whose comments are in another encoding, so it is checked as well.
        decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        found.append(Dockerfile(name, syntax.read(decoded, name)))
    return tuple(found)


def judge(dockerfile: Dockerfile, policy: Policy, now: datetime, environment: str = "") -> WorkloadReport:
    """Run the image checks that need no files, and decide by the rules about them.

    The base is not read: a USER or HEALTHCHECK that only the base sets counts as missing.
    """
    results = tuple(_results(dockerfile))
    context = Context(now, environment=environment, remedies=catalog.remedies())
    decision = evaluate_build(dockerfile.build.image, results, policy, context)
    # A rule with parameters examines the image again, and its evidence has no line yet.
    reasons = tuple(
        replace(reason, evidence=tuple(_with_place(dockerfile, each) for each in reason.evidence))
        for reason in decision.reasons
    )
    name, place = dockerfile.file, Place(dockerfile.file, line=dockerfile.build.line)
    workload = Workload(name=name, image="", source=SOURCE, kind="Dockerfile", origin=_FixedPlace(place))
    shown = replace(decision, reasons=reasons)
    return WorkloadReport(workload, results, shown.verdict, shown.reasons, lambda: shown)


class _FixedPlace(Origin):
    """One place for everything."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def place(self, *names: str) -> Place:
        """See ``Origin.place``."""
        return self._place


def _results(dockerfile: Dockerfile) -> Iterator[CheckResult]:
    base = BaseImage(SOURCE, dockerfile.build.base) if dockerfile.build.base else None
    for check in catalog.checks().values():
        if isinstance(check, ImageCheck):
            subject = ImageSubject(dockerfile.build.image, None, parameters=check.parameters, base=base)
            outcome = check.examine(subject)
            if _is_known(outcome):
                yield CheckResult(check.id, _with_places(dockerfile, outcome), check.severity)


def _is_known(outcome: Outcome) -> bool:
    """Whether a Dockerfile can tell. A check of files has no answer before the build, which is not a gap here."""
    if isinstance(outcome, Incomplete):
        return outcome.reason in _ABOUT_HISTORY
    return isinstance(outcome, Passed | Failed)


def _with_places(dockerfile: Dockerfile, outcome: Outcome) -> Outcome:
    if not isinstance(outcome, Failed):
        return outcome
    return replace(outcome, evidence=tuple(_with_place(dockerfile, each) for each in outcome.evidence))


def _with_place(dockerfile: Dockerfile, evidence: Evidence) -> Evidence:
    lines = dockerfile.build.lines
    index = evidence.history_index
    line = lines[index] if index is not None and index < len(lines) else dockerfile.build.line
    return replace(evidence, path=dockerfile.file, line=line, layer=None, layer_index=None)
