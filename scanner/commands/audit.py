"""``dockwarden audit``: check how containers are run, from configuration files or from a running engine."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from scanner import __version__, catalog
from scanner.checks.base import ImageSubject
from scanner.commands._console import (
    FILE,
    REPORT_FILES,
    WIDTH,
    Exit,
    ListedOption,
    TargetsCommand,
    choose,
    parse_report_files,
    pass_settings,
    read_policy,
    read_stdin,
    tell,
    terminal_width,
    wait_option,
    write,
)
from scanner.config import Secret, Settings
from scanner.errors import ScannerError, UsageError
from scanner.model.decision import Verdict
from scanner.model.finding import CheckResult, Failed
from scanner.model.plurals import number_of
from scanner.model.untrusted import clean_text
from scanner.model.workload import ImageUse, Workload
from scanner.model.workload_audit import AuditReport, ImageAnswer
from scanner.patterns import lazy
from scanner.policy.rules import Policy
from scanner.reports.base import AuditSubject, ReportFormat
from scanner.services import dockerfiles, workload_documents, workloads

_VERSION = lazy(r"v?1\.(\d{1,3})")
_REASONS = 3  # shown of an image's own; `gate` shows all
_CHECKED_AT_ONCE = 100  # workloads in one question to a server


def _formats() -> Mapping[str, ReportFormat]:
    """The formats that can show an audit."""
    return {name: form for name, form in catalog.reports().items() if form.renders_audits}


@click.command(
    cls=TargetsCommand,
    epilog="Exit codes: 0 allow or warn; 1 denied; 2 a document that cannot be read; 3 could not be decided.",
)
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option("--policy", "policy_file", type=FILE, help="Policy file. Default: the built-in policy.")
@click.option(
    "--format", "format_", cls=ListedOption, listed=_formats, default="table", show_default=True, help="Report format."
)
@click.option("-o", "--output", type=FILE, help="Write the report to a file instead of stdout.")
@REPORT_FILES
@click.option(
    "--environment", default="", help="Environment of the workloads, for example production; selects policies."
)
@click.option(
    "--kubernetes-version",
    metavar="X.Y",
    help="Kubernetes version whose Pod Security Standards apply. Default: the newest.",
)
@click.option(
    "--scan-images", is_flag=True, help="Scan the image of each workload here, and include it in the verdict."
)
@click.option(
    "--server",
    envvar="DOCKWARDEN_SERVER",
    metavar="URL",
    help="Ask this Dockwarden server for the verdict on each image.",
)
@click.option("--token", envvar="DOCKWARDEN_TOKEN", help="API token with scope 'gate' (better: DOCKWARDEN_TOKEN).")
@wait_option("the server's scan")
@click.option("--ca-file", type=FILE, help="CA certificates (PEM) to trust for the server and for registries.")
@click.option("--all", "show_all", is_flag=True, help="Show all reasons instead of the first ten of each workload.")
@pass_settings
def audit(
    settings: Settings,
    targets: tuple[str, ...],
    policy_file: Path | None,
    format_: str,
    output: Path | None,
    report_files: tuple[str, ...],
    environment: str,
    kubernetes_version: str | None,
    scan_images: bool,
    server: str | None,
    token: str | None,
    wait: int,
    ca_file: Path | None,
    show_all: bool,
) -> Exit:
    """Check how containers are run.

    Each finding names the file and line to change. --scan-images or --server also judge the images.
    """
    if (
        scan_images
        # DOCKWARDEN_SERVER may be set for other commands: only an explicit --server contradicts --scan-images.
        and server
        and click.get_current_context().get_parameter_source("server") is not click.core.ParameterSource.ENVIRONMENT
    ):
        raise UsageError("use --scan-images or --server, not both")
    files = parse_report_files(report_files)
    renderer = choose(catalog.reports(), format_, "report format")
    for name in (format_, *(name for name, _ in files)):
        if name not in _formats():
            hint = f"use one of: {', '.join(_formats())}"
            raise UsageError(f"the format {name} describes the content of images, not how they run", hint=hint)
    policy = read_policy(policy_file)
    version = _kubernetes_version(kubernetes_version)
    answers: _Answers
    if scan_images:
        answers = _ScannedHere(replace(settings, ca_file=ca_file or settings.ca_file), policy)
    elif server:
        answers = _Server(server, token, ca_file, environment, wait)
    else:
        answers = _Answers()
    # A scan makes garbage; an audit makes none.
    with nullcontext() if scan_images else without_garbage_collection():
        # Nothing holds the report after its last use: it is gone before the garbage collector, which would visit all
        # of it, runs again.
        return _write_report(
            _audited(targets, policy, environment, version, answers), renderer, output, files, show_all=show_all
        )


def _audited(
    targets: tuple[str, ...], policy: Policy, environment: str, version: str, answers: _Answers
) -> AuditReport:
    now = datetime.now(UTC)
    builds, found = _read_targets(targets, version)
    reports = [dockerfiles.judge(each, policy, now, environment) for each in builds]
    with answers as asked:
        images = [asked.answer(workload) for workload in found]
        shared = workloads.Checked()
        # One after the other, unless a server is asked: what was just made is still in the processor's cache.
        checked = (shared.check(each, subject) for each, (_, subject) in zip(found, images, strict=True))
        for each, results, (image, _) in zip(found, asked.joined(found, checked), images, strict=True):
            reports.append(workloads.decide(each, results, policy, now, environment, image))
    return AuditReport(targets, tuple(reports), policy.name, now, __version__, environment)


def _write_report(
    report: AuditReport,
    renderer: ReportFormat,
    output: Path | None,
    files: Sequence[tuple[str, Path]],
    *,
    show_all: bool,
) -> Exit:
    # https://no-color.org: set and not empty.
    color = output is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    titles = {identifier: check.title for identifier, check in catalog.checks().items()}
    shown = AuditSubject(
        report, titles, catalog.remedies(), color=color, width=terminal_width(output), show_all=show_all
    )
    write(renderer.render_audit(shown), output)
    for name, file in files:
        # A file is read later and by programs: everything, without colours.
        write(catalog.reports()[name].render_audit(replace(shown, color=False, width=WIDTH, show_all=True)), file)
    if report.verdict is not Verdict.DENY:
        return Exit.OK
    return Exit.UNDECIDED if report.undecided else Exit.DENIED


def _read_targets(targets: Sequence[str], version: str) -> tuple[list[dockerfiles.Dockerfile], list[Workload]]:
    builds: list[dockerfiles.Dockerfile] = []
    found: list[Workload] = []
    for target in targets:
        if dockerfiles.is_target(target):
            builds.extend(dockerfiles.read_target(target, read_stdin))
        else:
            found.extend(workloads.read_target(target, read_stdin))
    if not found and not builds:
        tell("no workload was found in the targets")
    return builds, [workloads.with_kubernetes_version(each, version) for each in found]


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Keep the garbage collector from visiting the objects of 10,000 documents again and again, in vain."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _kubernetes_version(text: str | None) -> str:
    if text is None:
        return ""
    if _VERSION.fullmatch(text) is None:
        raise UsageError(f"not a Kubernetes version: {text!r}", hint="write --kubernetes-version 1.34")
    return text.removeprefix("v")


class _Answers(nullcontext["_Answers"]):
    """No image verdicts."""

    def __init__(self) -> None:
        super().__init__(self)

    def answer(self, workload: Workload) -> tuple[ImageAnswer | None, ImageSubject | None]:
        """Return the verdict of the worst image that the workload uses, and its own image's evidence if it was scanned
        here.
        """
        return None, None

    def joined(
        self, found: Sequence[Workload], checked: Iterable[tuple[CheckResult, ...]]
    ) -> Iterable[tuple[CheckResult, ...]]:
        """Return the results of the checks with what is known elsewhere."""
        return checked


class _ImageAnswers(_Answers):
    """Verdicts of images. Each image is looked up once, even if several workloads run it."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, tuple[ImageAnswer | None, ImageSubject | None]] = {}

    def answer(self, workload: Workload) -> tuple[ImageAnswer | None, ImageSubject | None]:
        """See ``_Answers.answer``."""
        # What runs, where the source knows it: the tag in the configuration may have been moved since.
        image = workload.running_digest or workload.image
        own, subject = self._lookup(image) if image else (None, None)
        for use in workload.mounted_images:
            named = use.image or "-"  # not a reference, so it cannot be scanned
            if (found := self._lookup(named)[0]) is not None:
                own = _joined_answer(own, use, found)
        return own, subject

    def _lookup(self, image: str) -> tuple[ImageAnswer | None, ImageSubject | None]:
        if image not in self._known:
            self._known[image] = self._ask(image)
        return self._known[image]

    def _ask(self, image: str) -> tuple[ImageAnswer | None, ImageSubject | None]:
        return None, None


def _joined_answer(own: ImageAnswer | None, use: ImageUse, mounted: ImageAnswer) -> ImageAnswer:
    """Return the answer about a workload's image and an image that it mounts: the worse verdict counts."""
    if own is None:
        own = ImageAnswer(Verdict.ALLOW)
    # Unknown is not clean: an image without a verdict counts as denied, and as undecided.
    verdict = mounted.verdict or Verdict.DENY
    if verdict is Verdict.ALLOW:
        return own
    text = f"{use.text} {clean_text(use.image, 300)}: " + ("; ".join(mounted.reasons) or mounted.message or verdict)
    worst = max(own.verdict or Verdict.DENY, verdict, key=lambda one: one.rank)
    gaps = [
        each.undecided or each.verdict is None
        for each in (own, mounted)
        if (each.verdict or Verdict.DENY) is Verdict.DENY
    ]
    # One violation is enough to deny for good; only if every denial is for want of evidence may a later audit allow.
    undecided = worst is Verdict.DENY and all(gaps)
    reasons = own.reasons if own.verdict is worst else ()
    if verdict is worst:
        reasons = (text, *reasons)  # first: a report shows only some of its own image's
    return ImageAnswer(worst, undecided, own.digest, own.message, reasons)


class _ScannedHere(_ImageAnswers):
    """Verdicts from scans in this process, by the policy of the audit."""

    def __init__(self, settings: Settings, policy: Policy) -> None:
        super().__init__()
        self._settings, self._policy = settings, policy

    def _ask(self, image: str) -> tuple[ImageAnswer | None, ImageSubject | None]:
        from scanner.model.scan import Lane, ScanRequest
        from scanner.scanning import pipeline

        tell(f"scanning {image}")
        # The lane says nothing here: there is no queue in this process.
        request = ScanRequest(image, None, self._settings.engine, Lane.GATE, source="cli")
        try:
            with pipeline.local_services(self._settings) as services:
                report = pipeline.run(request, services, lambda progress: None)
        # An image that cannot be scanned is undecided. The audit of the other workloads goes on.
        except ScannerError as error:
            return ImageAnswer(None, True, message=str(error)), None
        decision = pipeline.decide(report, self._policy)
        reasons = tuple(reason.message for reason in decision.reasons if reason.action is decision.verdict)
        answer = ImageAnswer(decision.verdict, decision.undecided, str(report.digest), reasons=reasons[:_REASONS])
        return answer, workloads.image_subject(report)


class _Server(_ImageAnswers):
    """Verdicts from the gate of a server."""

    def __init__(self, url: str, token: str | None, ca_file: Path | None, environment: str, wait: int) -> None:
        from scanner.commands._client import Client

        super().__init__()
        self._client = Client(url, Secret(token or ""), ca_file)
        self._environment, self._wait = environment, wait

    def _ask(self, image: str) -> tuple[ImageAnswer | None, ImageSubject | None]:
        tell(f"asking about {image}")
        answer = self._client.gate(image, environment=self._environment, workload=None, wait=self._wait, progress=tell)
        if answer.pending:
            return ImageAnswer(None, True, message="the scan has not finished; run the audit again"), None
        verdict = Verdict(answer.verdict)
        digest = answer.document.get("digest")
        reasons = tuple(_messages(answer.document.get("reasons"), verdict))
        return ImageAnswer(verdict, answer.undecided, digest if isinstance(digest, str) else "", reasons=reasons), None

    def joined(
        self, found: Sequence[Workload], checked: Iterable[tuple[CheckResult, ...]]
    ) -> Iterable[tuple[CheckResult, ...]]:
        """See ``_Answers.joined``. The server knows the images' evidence and what other environments run."""
        checked = tuple(checked)
        documents = {number: workload_documents.document(each) for number, each in enumerate(found)}
        asked = [number for number, each in documents.items() if _is_accepted(each)]
        if len(asked) < len(found):
            most = f"{workload_documents.MOST_BYTES >> 10} KiB"
            left = number_of(len(found) - len(asked), "workload")
            tell(f"the server is not asked about {left} that it would refuse, such as those above {most}")
        answers: list[tuple[CheckResult, ...]] = []
        try:
            for start in range(0, len(asked), _CHECKED_AT_ONCE):
                few = [documents[number] for number in asked[start : start + _CHECKED_AT_ONCE]]
                answers += self._client.check_workloads(few, environment=self._environment)
        except UsageError as error:
            if error.reason != "not_found":
                raise
            # The gate has answered about the images, so the verdict is only less complete: as with no --server.
            tell("the server is too old to check workloads: its evidence and inventory are not compared; update it")
            return checked
        known = dict(zip(asked, map(_by_id, answers), strict=True))
        return [
            tuple(_joined_result(each, known.get(number, {}).get(each.check, each)) for each in ours)
            for number, ours in enumerate(checked)
        ]


def _is_accepted(document: Mapping[str, Any]) -> bool:
    """Whether a server reads this document. One that it refuses must not stop the audit of the others."""
    try:
        return len(workload_documents.encode(document)) <= workload_documents.MOST_BYTES
    except UsageError:
        return False


def _by_id(results: Sequence[CheckResult]) -> Mapping[str, CheckResult]:
    return {each.check: each for each in results}


def _joined_result(own: CheckResult, theirs: CheckResult) -> CheckResult:
    """Return the server's result where it knows more. Where both say the same, the own one has every position."""
    return own if _result_texts(own) == _result_texts(theirs) else theirs


def _result_texts(result: CheckResult) -> tuple[str, ...]:
    evidence = result.outcome.evidence if isinstance(result.outcome, Failed) else ()
    return (result.outcome.kind, *(each.message for each in evidence))


def _messages(reasons: object, verdict: Verdict) -> Iterator[str]:
    items: Sequence[object] = reasons if isinstance(reasons, list) else []
    # Only reasons of the verdict: a warning does not explain a denial.
    found = (each for each in items if isinstance(each, dict) and each.get("action") == verdict)
    yield from (str(each.get("message", "")) for _, each in zip(range(_REASONS), found, strict=False))
