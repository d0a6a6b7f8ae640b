"""``dockwarden scan``: scan one image in this process, without a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scanner import __version__
from scanner.commands._console import (
    FILE,
    REPORT_FILES,
    Exit,
    ListedOption,
    check_output,
    choose,
    exit_of_decision,
    parse_report_files,
    pass_settings,
    read,
    read_policy,
    tell,
    terminal_width,
    write,
)
from scanner.config import Settings
from scanner.errors import ScannerError

if TYPE_CHECKING:
    from scanner.model.scan import Progress, ScanRequest
    from scanner.policy.named_images import NamedImage
    from scanner.policy.rules import Policy
    from scanner.scanning.pipeline import Services
    from scanner.services.workloads import AskedWorkload


def _engines() -> Iterable[str]:
    from scanner import catalog

    return catalog.engine_choices()


def _formats() -> Iterable[str]:
    from scanner import catalog

    return catalog.reports()


@click.command()
@click.argument("target")
@click.option("--engine", cls=ListedOption, listed=_engines, help="Engine to scan with. Default: DOCKWARDEN_ENGINE.")
@click.option("--policy", "policy_file", type=FILE, help="Policy file. Default: the built-in policy.")
@click.option(
    "--format", "format_", cls=ListedOption, listed=_formats, default="table", show_default=True, help="Report format."
)
@click.option("-o", "--output", type=FILE, help="Write the report to a file instead of stdout.")
@REPORT_FILES
@click.option("--platform", help="OS/ARCH to select from an image index. Default: this machine's.")
@click.option(
    "--insecure-registry",
    multiple=True,
    metavar="HOST",
    help="Use plain HTTP, or TLS without verification, for this host.",
)
@click.option("--ca-file", type=FILE, help="CA certificates (PEM) to trust for registries.")
@click.option(
    "--workload",
    "workload_file",
    type=FILE,
    help="Workload that runs the image (any TARGET of 'audit'), included in the verdict.",
)
@click.option("--all", "show_all", is_flag=True, help="Do not shorten lists in the table report.")
@click.option("--force", is_flag=True, help="Examine the image again, even if its result is remembered.")
@click.option("--fix-hints", is_flag=True, help="Also print a corrected Dockerfile fragment.")
@pass_settings
def scan(
    settings: Settings,
    target: str,
    engine: str | None,
    policy_file: Path | None,
    format_: str,
    output: Path | None,
    report_files: tuple[str, ...],
    platform: str | None,
    insecure_registry: tuple[str, ...],
    ca_file: Path | None,
    workload_file: Path | None,
    show_all: bool,
    force: bool,
    fix_hints: bool,
) -> Exit:
    """Scan TARGET without a server and print the decision.

    TARGET: host/repo:tag, host/repo@sha256:…, oci:DIR[:TAG], archive:FILE (docker save or OCI, plain or gzip),
    docker:NAME.
    """
    from scanner import catalog
    from scanner.model.reference import Platform
    from scanner.model.scan import Lane, ScanRequest
    from scanner.policy import named_images
    from scanner.policy.rules import Policy
    from scanner.reports.base import RefusedScan, ReportSubject
    from scanner.scanning import pipeline
    from scanner.scanning.results import Results

    color = output is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    renderer = choose(catalog.reports(), format_, "report format")
    # Every mistake in the options is reported before the scan starts: a scan may take minutes.
    choose(dict.fromkeys(catalog.engine_choices()), engine or settings.engine, "engine")
    results = Results.under(settings.home)
    policy = read_policy(policy_file) if policy_file else results.derived("default policy", Policy, read_policy)
    check_output(output)
    files = parse_report_files(report_files)
    asked: AskedWorkload | None = None
    if workload_file:
        from scanner.services import workloads  # imports a YAML parser

        asked = workloads.for_target(read(workload_file, "the workload"), str(workload_file), target)
    settings = replace(
        settings,
        insecure_registries=settings.insecure_registries + insecure_registry,
        ca_file=ca_file or settings.ca_file,
    )
    request = ScanRequest(
        target,
        Platform.parse(platform) if platform else None,
        engine or settings.engine,
        Lane.GATE,
        force,
        source="cli",
    )
    try:
        with pipeline.local_services(settings, remember=True) as services, progress_on_stderr() as progress:
            report = pipeline.run(request, services, progress)
            others = _others(asked, request, policy, services, progress) if asked else []
    except ScannerError as error:
        # A CI system that reads the report file (JUnit, SARIF) shows the reason there; the error itself still ends the
        # command.
        refused = RefusedScan(target, error.reason, str(error), error.hint, datetime.now(UTC), __version__)
        if text := renderer.render_refused(refused):
            write(text, output)
        for name, file in files:
            write(catalog.reports()[name].render_refused(refused), file)
        raise
    own = asked.containers if asked else ()
    remedies = results.derived("remedies", dict[str, str], lambda: dict(catalog.remedies()))
    decision = pipeline.decide(report, policy, own, workloads.examine(own, report) if own else (), remedies)
    decision = named_images.joined_decision(decision, others)
    hints: tuple[str, ...] = ()
    if fix_hints:
        from scanner.checks import _hints

        hints = tuple(_hints.fragment(image, catalog.checks()) for image in report.images)
    width = terminal_width(output)
    shown = ReportSubject(report, decision, color=color, width=width, fix_hints=hints, show_all=show_all)
    write(renderer.render(shown), output)
    for name, file in files:
        write(catalog.reports()[name].render(ReportSubject(report, decision, fix_hints=hints, show_all=True)), file)
    return exit_of_decision(decision)


def _others(
    asked: AskedWorkload, request: ScanRequest, policy: Policy, services: Services, progress: Callable[[Progress], None]
) -> list[NamedImage]:
    """Scan the other images that the workload names. One that cannot be scanned makes the decision incomplete."""
    from scanner.policy import named_images
    from scanner.scanning import pipeline
    from scanner.services import workloads

    local = "docker:" if request.target.startswith("docker:") else ""
    found = []
    for each in asked.others.values():
        tell(f"{each.use.text} {each.use.image}")
        try:
            report = pipeline.run(replace(request, target=f"{local}{each.use.image}"), services, progress)
        except ScannerError as error:
            found.append(named_images.unknown(each.use, str(error)))
            continue
        results = workloads.examine(each.containers, report) if each.containers else ()
        decision = pipeline.decide(report, policy, each.containers, results)
        found.append(named_images.of_decision(each.use, decision, str(report.digest)))
    return found


@contextmanager
def progress_on_stderr() -> Iterator[Callable[[Progress], None]]:
    """Report progress: one updated line on a terminal, one line for each stage elsewhere (for CI logs)."""
    live = sys.stderr.isatty()
    seen: set[str] = set()

    def show(progress: Progress) -> None:
        share = f" {progress.done * 100 // progress.total}%" if progress.total else ""
        line = f"{progress.stage}: {progress.message}".rstrip(": ")
        if live:
            click.echo(f"\r\x1b[K{line}{share}", err=True, nl=False)
        elif line not in seen:
            seen.add(line)
            tell(line)

    yield show
    if live:
        click.echo("\r\x1b[K", err=True, nl=False)
