"""Workloads: parse documents of any source, run all workload checks, decide."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cache, lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, cast

from scanner import catalog
from scanner.checks.base import UNREAD, ContainerCheck, EngineCheck, ImageSubject, WorkloadCheck
from scanner.errors import UsageError
from scanner.model.finding import CheckResult, Incomplete, NotApplicable, Outcome, Passed, Severity
from scanner.model.reference import Reference
from scanner.model.scan import ScanReport
from scanner.model.workload import ImageUse, Workload
from scanner.model.workload_audit import ImageAnswer, WorkloadReport
from scanner.policy.context import Context
from scanner.policy.evaluate import evaluated_workload
from scanner.policy.rules import Policy
from scanner.workloads._documents import parse
from scanner.workloads.base import Files, LocalFiles, NoFiles, WorkloadSource, read_file

# Containers that start together with one image, and images that they mount or run.
_MAX_WORKLOADS = 50


@dataclass(frozen=True)
class AskedWorkload:
    """A workload from the view of one image. ``containers``: those that run the image that is asked about.

    ``others``: every other image that runs or is mounted together with it, with all uses and the containers that run
    it.
    """

    containers: tuple[Workload, ...]
    others: Mapping[str, OtherImage]


@dataclass(frozen=True)
class OtherImage:
    """Another image of a workload. ``containers``: those that run it; none if it is only mounted."""

    use: ImageUse
    containers: tuple[Workload, ...]


def parse_workload(document: str | Mapping[str, Any], image: Reference) -> AskedWorkload:
    """Return the containers of a document that use ``image``, and the other images of the same units.

    A unit is what is started together: a pod, a Compose service, a task definition. Admission evaluates all containers
    of an object, so the gate does as well: otherwise it would pass what no cluster admits.

    Raises UsageError(reason="bad_workload"), with the line, if no source recognises the document or no container in it
    uses the image.
    """
    text = document if isinstance(document, str) else json.dumps(document)
    return _asked_workload(image, source_of(text, "workload").parse(text, "workload"))


def for_target(text: str, file: str, target: str) -> AskedWorkload:
    """Return the containers of a document that use ``target``, or all if the target has no name (an archive).

    Raises UsageError as ``parse_workload``.
    """
    found = source_of(text, file).parse(text, file)
    try:
        image = Reference.parse(target.removeprefix("docker:"))
    except UsageError:
        # An archive can be the image of any container, so every container is taken for its own.
        mounted = {use.image: OtherImage(use, ()) for each in found for use in each.mounted_images}
        return AskedWorkload(found, mounted)
    return _asked_workload(image, found)


@dataclass(frozen=True)
class CaseWorkloads:
    """The workloads of policy test cases: read and checked as ``audit`` does. ``directory``: of the cases' file."""

    directory: Path

    def read(self, document: str, image: str) -> Sequence[tuple[Workload, tuple[CheckResult, ...]]]:
        """See ``WorkloadReader.read``."""
        return self._examine_document(document, "workload", image, NoFiles())

    def read_file(self, name: str, image: str) -> Sequence[tuple[Workload, tuple[CheckResult, ...]]]:
        """See ``WorkloadReader.read_file``."""
        path = self.directory / name
        return self._examine_document(read_file(path), str(path), image, LocalFiles())

    def _examine_document(
        self, text: str, file: str, image: str, files: Files
    ) -> Sequence[tuple[Workload, tuple[CheckResult, ...]]]:
        found = source_of(text, file).parse(text, file, files)
        if image:
            found = _workloads_of(Reference.parse(image), found)
        return [(workload, check(workload, None)) for workload in found]


def source_of(text: str | bytes, file: str) -> WorkloadSource:
    """Return the source that recognises the first document. Raises UsageError if there is none."""
    documents = parse(text, file, yaml_1_1=True, compose_tags=True)
    if not documents:
        raise UsageError(f"{file or 'the document'}: it contains no document", reason="bad_workload")
    for source in catalog.workload_sources().values():
        if source.recognises(documents[0]):
            return source
    known = "; ".join(source.title for source in catalog.workload_sources().values())
    raise UsageError(f"{file}: unknown kind of document", reason="bad_workload", hint=f"supported: {known}")


def _asked_workload(image: Reference, workloads: Sequence[Workload]) -> AskedWorkload:
    units: dict[tuple[str, ...], list[Workload]] = {}
    for each in workloads:
        key = (each.source, each.place().file, each.namespace, each.kind, each.unit)
        units.setdefault(key, []).append(each)
    containers: list[Workload] = []
    others: dict[str, OtherImage] = {}
    found = False
    for unit in units.values():
        uses = [use for each in unit for use in each.images]
        named = dict.fromkeys(use.image for use in uses if _repository(use.image) == image.name)
        if not named:
            continue
        found = True
        containers += (each for each in unit if _repository(each.image) == image.name)
        # The file usually has the tag of the last release. If it has several of this repository, only the one that is
        # asked about stands for the image, and the others are images of their own.
        asked = set(named) if len(named) == 1 else {each for each in named if _is_same_image(each, image)}
        for use in {use.image: use for use in reversed(uses) if use.image not in asked}.values():
            known = others.get(use.image) or OtherImage(use, ())
            runs = (each for each in unit if each.image == use.image)
            others[use.image] = replace(known, containers=(*known.containers, *runs))
    if not found:
        raise UsageError(f"no container in the workload uses {image.name}", reason="bad_workload")
    if len(containers) > _MAX_WORKLOADS or len(others) > _MAX_WORKLOADS:
        raise UsageError(
            f"more than {_MAX_WORKLOADS} containers or images start together with {image.name}",
            reason="bad_workload",
            hint="send the objects that run it one by one",
        )
    return AskedWorkload(tuple(containers), others)


def _is_same_image(text: str, image: Reference) -> bool:
    found = Reference.parse(text)
    return found.digest == image.digest if image.digest and found.digest else found.tag == image.tag


def _workloads_of(image: Reference, workloads: Iterable[Workload]) -> tuple[Workload, ...]:
    named = tuple(w for w in workloads if _repository(w.image) == image.name)
    if not named:
        raise UsageError(f"no container in the workload runs {image.name}", reason="bad_workload")
    return named


def _repository(text: str) -> str:
    try:
        return Reference.parse(text).name
    except UsageError:
        return ""


def examine(workloads: Iterable[Workload], found: ScanReport) -> tuple[CheckResult, ...]:
    """Run every workload check on every workload. The image's data comes from its evidence, not from its files."""
    subject = image_subject(found)
    return tuple(result for workload in workloads for result in check(workload, subject))


def image_subject(found: ScanReport) -> ImageSubject | None:
    """Return the image for workload checks: config and stored outcomes. None if an index contains several images."""
    if len(found.images) != 1:
        return None
    own = found.images[0]
    return ImageSubject(
        own.image, None, "rootfs_not_kept", results={result.check: result.outcome for result in own.checks}
    )


def check(workload: Workload, subject: ImageSubject | None) -> tuple[CheckResult, ...]:
    """Run every workload check on one workload. The outcome of a check for other platforms is ``NotApplicable``."""
    return tuple([_result(each, workload, subject) for each in _checks(_kind(workload))])


class Checked:
    """Runs every workload check on many workloads, each check once on those that are equal to it.

    Checks are pure. One that reads only fields in which two workloads are equal has one result for both, and the
    thousands of workloads of a cluster differ in few fields but their names and images.
    """

    def __init__(self) -> None:
        self._shared: dict[object, tuple[list[CheckResult], list[tuple[int, _Prepared]]]] = {}

    def check(self, workload: Workload, subject: ImageSubject | None) -> tuple[CheckResult, ...]:
        """See ``check``."""
        if subject is not None:
            return check(workload, subject)
        key = _COMPARED(workload)
        known = self._shared.get(key)
        if known is None:
            results, own = self._first(workload)
            if len(self._shared) < _MOST_SHARED:
                self._shared[key] = results, own
            return tuple(results)
        results = known[0].copy()
        for number, each in known[1]:
            results[number] = _result(each, workload, None)
        return tuple(results)

    def _first(self, workload: Workload) -> tuple[list[CheckResult], list[tuple[int, _Prepared]]]:
        """Return the results, and the checks that have to be run on each equal workload."""
        results: list[CheckResult] = []
        own: list[tuple[int, _Prepared]] = []
        for number, each in enumerate(_checks(_kind(workload))):
            watched = _Watched(workload)
            results.append(_result(each, cast("Workload", watched), None))
            if not watched.read <= _COMPARED_FIELDS:
                own.append((number, each))
        return results, own


_MOST_SHARED = 10_000
# What nearly every workload has for itself: its name and its place, what it runs, and what is known of it elsewhere.
_OWN_FIELDS = frozenset(
    (
        *("name", "image", "pointer", "namespace", "unit", "container", "labels"),
        *("running_digest", "started_at", "elsewhere", "origin"),
    )
)
_COMPARED_FIELDS = frozenset(each.name for each in fields(Workload)) - _OWN_FIELDS
_COMPARED = attrgetter(*sorted(_COMPARED_FIELDS))


class _Watched:
    """A workload that records what is read of it."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self._workload, name)


def _result(asked: _Prepared, workload: Workload, subject: ImageSubject | None) -> CheckResult:
    """Return the result. Those without evidence are shared by all workloads, which are thousands in an audit: otherwise
    the garbage collector visits millions of equal objects, and takes longer than the checks.
    """
    if asked.inapplicable is not None:
        return asked.inapplicable
    try:
        outcome = asked.examine(workload, subject)
    except Exception as error:
        # A stage boundary. A failed check makes the workload undecided instead of stopping the gate.
        logging.getLogger(__name__).exception("a workload check failed", extra={"check": asked.id})
        outcome = Incomplete("check_failed", f"{asked.id} failed on this workload ({type(error).__name__})")
    if isinstance(outcome, Passed) and not outcome.tolerated:
        return asked.passed
    if isinstance(outcome, NotApplicable):
        return _not_applicable(asked.id, asked.severity, outcome.reason)
    return CheckResult(asked.id, outcome, asked.severity)


@lru_cache(maxsize=1024)
def _not_applicable(identifier: str, severity: Severity, reason: str) -> CheckResult:
    return CheckResult(identifier, NotApplicable(reason), severity)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A check with what does not depend on the workload. An audit runs each on thousands of workloads, and a look-up by
    id costs as much as a check. ``inapplicable``: the result for every workload of this kind.
    """

    id: str
    severity: Severity
    examine: Callable[[Workload, ImageSubject | None], Outcome]
    passed: CheckResult
    inapplicable: CheckResult | None


_Kind = Literal["container", "engine", "unread"]


def _kind(workload: Workload) -> _Kind:
    return "unread" if workload.unread else "container" if workload.engine is None else "engine"


@cache
def _checks(kind: _Kind) -> tuple[_Prepared, ...]:
    """All workload checks, for a kind of workload."""
    return tuple(
        _Prepared(
            each.id,
            each.severity,
            _examine_of(each, kind),
            CheckResult(each.id, Passed(), each.severity),
            _of_others(each, kind),
        )
        for each in catalog.workload_checks().values()
    )


def _examine_of(asked: WorkloadCheck, kind: _Kind) -> Callable[[Workload, ImageSubject | None], Outcome]:
    # Whether a workload is an engine is known here, and a call costs as much as what most checks do.
    if kind == "container" and isinstance(asked, ContainerCheck) and type(asked).examine is ContainerCheck.examine:
        return asked.examine_container
    return asked.examine


def _of_others(asked: WorkloadCheck, kind: _Kind) -> CheckResult | None:
    if kind == "unread":
        return _not_applicable(asked.id, asked.severity, UNREAD) if isinstance(asked, ContainerCheck) else None
    other: type[ContainerCheck | EngineCheck] = ContainerCheck if kind == "engine" else EngineCheck
    if isinstance(asked, other) and type(asked).examine is other.examine:
        return _not_applicable(asked.id, asked.severity, other.inapplicable)
    return None


def decide(
    workload: Workload,
    results: tuple[CheckResult, ...],
    policy: Policy,
    now: datetime,
    environment: str = "",
    image: ImageAnswer | None = None,
) -> WorkloadReport:
    """Decide about a workload that was checked, by the rules about workloads. ``image``: the verdict on its image."""
    context = Context(now, environment=environment, workloads=(workload,), remedies=catalog.remedies())
    found = evaluated_workload(workload, results, policy, context)
    return WorkloadReport(workload, results, found.verdict, found.reasons, found.decision, image)


def with_kubernetes_version(workload: Workload, version: str) -> Workload:
    """Return the workload with a Kubernetes version (``1.34``), whose Pod Security Standards then apply."""
    if workload.pod is None or workload.pod.kubernetes_version == version:
        return workload  # copying it costs as much as many checks
    return replace(workload, pod=replace(workload.pod, kubernetes_version=version))


def read_target(target: str, stdin: Callable[[], bytes]) -> tuple[Workload, ...]:
    """Return the workloads of an ``audit`` target: SOURCE (what runs now), SOURCE:FILE, or a file.

    The source of a plain file is detected from its content: pre-commit and similar tools pass file names only.
    Raises UsageError.
    """
    name, colon, rest = target.partition(":")
    source = catalog.workload_sources().get(name)
    if source is None and Path(target).is_file():
        return source_of(read_file(Path(target)), target).load(target, stdin)
    if source is None:
        known = ", ".join(catalog.workload_sources())
        if not colon:
            hint = f"write the path of a file, or SOURCE:FILE; the sources are {known}"
            raise UsageError(f"there is no file {target!r}, and no source of workloads has this name", hint=hint)
        raise UsageError(f"unknown source of workloads: {name!r}", hint=f"write SOURCE:FILE; the sources are {known}")
    if not colon:
        return source.running()
    if not rest:
        raise UsageError(f"{target}: the file is missing", hint=f"write {name}:FILE, or {name}:- for standard input")
    return source.load(rest, stdin)
