"""Test cases for policies: facts about an image and the expected verdict (``dockwarden policy test FILE CASES``).

.. code-block:: yaml

    - name: a fixable critical is denied
      image: registry.example.com/shop/app:1.0
      environment: production
      vulnerabilities: [{id: CVE-2026-1, package: openssl, severity: critical, fixed: "3.0.9"}]
      checks: {root-user: passed, embedded-secrets: failed}
      expect: {verdict: deny, rules: [no-fixable-criticals]}

A check that a case does not name has passed. Trivy has scanned the image with current advisories, unless ``engine``
names other engines or ``none``. With ``workload`` (a document that ``audit`` reads, as text or as YAML) or
``workload_file`` the checks of workloads are run on it; without ``image`` only the workloads are decided, as ``audit``
does.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from scanner.errors import UsageError
from scanner.model.decision import Decision, ReasonKind, Verdict
from scanner.model.finding import (
    AdvisoryStatus,
    CheckResult,
    Coverage,
    EngineReport,
    Evidence,
    Failed,
    Incomplete,
    Outcome,
    Passed,
    Severity,
    Vulnerability,
)
from scanner.model.image import Image, ImageConfig
from scanner.model.reference import Descriptor, Digest, Platform, Reference
from scanner.model.scan import ImageReport, ScanReport
from scanner.model.validation import plain_message
from scanner.model.workload import Workload
from scanner.policy.context import Context
from scanner.policy.document import Texts
from scanner.policy.evaluate import evaluate, evaluate_workload, worst
from scanner.policy.rules import Policy

_IMAGE = "registry.example.com/team/app:1.0"
_NOBODY = Digest.of(b"a test case")
DEFAULT_ENGINE, NO_ENGINE = "trivy", "none"


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Vulnerability(_StrictModel):
    id: str
    package: str = "package"
    severity: Severity = Severity.CRITICAL
    fixed: str = ""
    known_exploited: bool | None = None


class _Expectation(_StrictModel):
    verdict: Verdict
    undecided: bool | None = None
    rules: tuple[str, ...] = ()


class Case(_StrictModel):
    """One case. See the module's docstring."""

    name: str
    image: str = ""
    environment: str = ""
    engine: Texts = (DEFAULT_ENGINE,)
    advisories_age_hours: int = 0
    vulnerabilities: tuple[_Vulnerability, ...] = ()
    checks: dict[str, Literal["passed", "failed", "incomplete"]] = Field(default_factory=dict)
    workload: str | dict[str, Any] | None = None
    workload_file: str = ""
    expect: _Expectation


@dataclass(frozen=True)
class Result:
    """The result of a case: whether it passed, and what differs."""

    name: str
    passed: bool
    message: str = ""  # empty: it passed


Examined = tuple[Workload, tuple[CheckResult, ...]]


class WorkloadReader(Protocol):
    """Reads a case's workloads and runs every check on them. This room knows no document of any runtime."""

    def read(self, document: str, image: str) -> Sequence[Examined]:
        """The workloads of a document, those that run ``image`` where one is given. Raises UsageError."""

    def read_file(self, name: str, image: str) -> Sequence[Examined]:
        """The same of a file, its name taken relative to the cases' file. Raises UsageError."""


def parse(text: str, file: Path, engines: Collection[str]) -> Sequence[Case]:
    """Read the cases of a document; ``engines`` are those that a case can name. Raises UsageError with the case and the
    member that is wrong.
    """
    try:
        document = YAML(typ="safe").load(io.StringIO(text))
        cases = TypeAdapter(tuple[Case, ...]).validate_python(document)
    except YAMLError as error:
        raise UsageError(f"{file}: {str(error).splitlines()[0]}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = f"case {'.'.join(map(str, first['loc']))}: " if first["loc"] else ""
        hint = "write a list of cases: docs/policies.md"
        raise UsageError(f"{file}: {where}{plain_message(first)}", hint=hint) from error
    for number, case in enumerate(cases):
        for name in case.engine:
            if name not in engines and case.engine != (NO_ENGINE,):
                hint = f"name {', '.join(engines)}, or {NO_ENGINE} alone"
                raise UsageError(f"{file}: case {number}.engine: there is no engine {name!r}", hint=hint)
    return cases


def run(policy: Policy, cases: Sequence[Case], reader: WorkloadReader) -> list[Result]:
    """Decide every case by the policy and compare. Raises UsageError for a workload that cannot be read."""
    return [_run(policy, case, reader) for case in cases]


def _run(policy: Policy, case: Case, reader: WorkloadReader) -> Result:
    now = datetime.now(UTC)
    policy = replace(policy, judges={})  # a case states a check's outcome under the rule's parameters
    decision = _decide(policy, case, Context(now, environment=case.environment), _examined_workloads(case, reader))
    wrong = []
    if decision.verdict is not case.expect.verdict:
        wrong.append(f"verdict is {decision.verdict}, expected {case.expect.verdict}")
    if case.expect.undecided is not None and decision.undecided is not case.expect.undecided:
        wrong.append(f"undecided is {decision.undecided}, expected {case.expect.undecided}")
    reported = {reason.rule for reason in decision.reasons if reason.kind is not ReasonKind.SATISFIED}
    wrong.extend(f"rule {rule} gave no reason" for rule in case.expect.rules if rule not in reported)
    return Result(case.name, not wrong, "; ".join(wrong))


def _examined_workloads(case: Case, reader: WorkloadReader) -> list[Examined]:
    """The workloads of a case; what the case states about a check takes the place of what was found."""
    if case.workload is None and not case.workload_file:
        return []
    if case.workload is not None and case.workload_file:
        raise UsageError(f"case {case.name!r}: give workload or workload_file, not both")
    try:
        if case.workload_file:
            found = reader.read_file(case.workload_file, case.image)
        else:
            whole = case.workload if isinstance(case.workload, str) else json.dumps(case.workload, default=str)
            found = reader.read(whole, case.image)
    except UsageError as error:
        raise UsageError(f"case {case.name!r}: {error}", reason=error.reason, hint=error.hint) from error
    stated = {check: _outcome(kind) for check, kind in case.checks.items()}
    return [
        (workload, tuple(replace(each, outcome=stated.get(each.check, each.outcome)) for each in results))
        for workload, results in found
    ]


def _decide(policy: Policy, case: Case, context: Context, examined: Sequence[Examined]) -> Decision:
    if examined and not case.image:
        return worst([evaluate_workload(workload, results, policy, context) for workload, results in examined])
    workloads = tuple(workload for workload, _ in examined)
    results = tuple(result for _, own in examined for result in own)
    context = replace(context, workloads=workloads, workload_results=results)
    return evaluate(_report(policy, case, context.now), policy, context)


def _report(policy: Policy, case: Case, now: datetime) -> ScanReport:
    image_name = case.image or _IMAGE
    reference = Reference.parse(image_name)
    descriptor = Descriptor("application/vnd.oci.image.manifest.v1+json", _NOBODY, 0)
    selected = {check for checks in policy.checks.values() for check in checks} - policy.workload_checks
    outcomes = {check: case.checks.get(check, "passed") for check in selected | set(case.checks)}
    image = ImageReport(
        Image(descriptor, ImageConfig(_NOBODY, Platform("linux", "amd64"), ()), ()),
        engines=tuple(_engine(name, case, now) for name in case.engine if name != NO_ENGINE),
        checks=tuple(CheckResult(check, _outcome(kind)) for check, kind in sorted(outcomes.items())),
    )
    return ScanReport(image_name, reference.name, reference.tag or "", descriptor, (image,), now, now, "")


def _engine(name: str, case: Case, now: datetime) -> EngineReport:
    found = tuple(
        Vulnerability(
            v.id,
            f"pkg:generic/{v.package}@1",
            v.package,
            "1",
            (v.fixed,) if v.fixed else (),
            v.severity,
            known_exploited=v.known_exploited,
        )
        for v in case.vulnerabilities
    )
    built = now - timedelta(hours=case.advisories_age_hours)
    return EngineReport(
        name, "", None, AdvisoryStatus("case", updated_at=built), Coverage("debian", "12", True, 1), (), found
    )


def _outcome(kind: str) -> Outcome:
    if kind == "passed":
        return Passed()
    return Failed((Evidence("stated by the test case"),)) if kind == "failed" else Incomplete("stated_by_the_case")
