"""The command line ``dockwarden``: a table of thin commands over the rooms. Findings go to stdout or ``-o``, messages to stderr.

Exit codes are part of the interface (``Exit``). A user's mistake is one line and a hint, never a traceback.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from scanner import __version__, commands
from scanner.commands._console import FILE, Exit, choose, complain, exit_of, pass_settings, read, tell, write
from scanner.config import Secret, Settings, load
from scanner.errors import ScannerError

if TYPE_CHECKING:
    from scanner.model.decision import Decision
    from scanner.model.scan import Progress
    from scanner.policy.rules import Policy


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Entry point. Translates every error a user may see into one line, a hint and an exit code."""
    try:
        sys.exit(
            cli.main(args=list(argv) if argv is not None else None, prog_name="dockwarden", standalone_mode=False) or 0
        )
    except click.UsageError as error:
        error.show()
        sys.exit(Exit.USAGE)
    except click.ClickException as error:
        complain(error.format_message())
        sys.exit(Exit.USAGE)
    except (click.Abort, KeyboardInterrupt):
        complain("stopped")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.OK)
    except ScannerError as error:
        complain(str(error), error.hint)
        sys.exit(exit_of(error))


def read_policy(file: Path | None) -> Policy:
    """The policy of a file, checked against the catalogue; the built-in default without one."""
    from scanner import catalog
    from scanner.policy.rules import default_policy, parse_policy

    if file is None:
        return default_policy(catalog.known())
    return parse_policy(read(file, "the policy"), name=str(file), known=catalog.known())


def exit_of_decision(decision: Decision) -> Exit:
    from scanner.model.decision import Verdict

    if decision.verdict is not Verdict.DENY:
        return Exit.OK
    return Exit.UNDECIDED if decision.undecided else Exit.DENIED


class Table(click.Group):
    """The commands of this module, and each group of ``scanner.commands``, imported only when it is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [*super().list_commands(context), *self._modules()]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """See ``click.Group.get_command``."""
        own = super().get_command(context, name)
        if own is None and name in self._modules():
            module = name.replace("-", "_")
            found = getattr(importlib.import_module(f"scanner.commands.{module}"), module)
            assert isinstance(found, click.Command)
            return found
        return own

    @staticmethod
    def _modules() -> list[str]:
        return [info.name.replace("_", "-") for info in pkgutil.iter_modules(commands.__path__) if info.name[0] != "_"]


@click.group(cls=Table, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dockwarden")
@click.option(
    "--config", type=FILE, envvar="DOCKWARDEN_CONFIG", help="TOML file with settings (environment variables win)."
)
@click.pass_context
def cli(context: click.Context, config: Path | None) -> None:
    """Scan container images, check how they are built and run, verify who signed them, and decide by policy.

    Exit codes: 0 allow or warn; 1 denied by a violation; 2 wrong usage or bad input; 3 could not be decided;
    4 still pending when the wait ended.
    """
    if config is not None:
        os.environ["DOCKWARDEN_CONFIG"] = str(config.absolute())  # for processes of our own that this one starts
    context.obj = load(file=config)


@cli.command()
@click.argument("target")
@click.option("--engine", help="Engine to scan with; the setting's otherwise (trivy).")
@click.option("--policy", "policy_file", type=FILE, help="Policy to decide by; the built-in default otherwise.")
@click.option("--format", "format_", default="table", show_default=True, help="Report format: table, json, sarif, …")
@click.option("-o", "--output", type=FILE, help="Write the report to a file instead of stdout.")
@click.option("--platform", help="OS/ARCH of an image index; the host's otherwise.")
@click.option(
    "--insecure-registry",
    multiple=True,
    metavar="HOST",
    help="Speak plain HTTP, or TLS without verification, to this host.",
)
@click.option("--ca-file", type=FILE, help="CA certificates (PEM) to trust for registries.")
@click.option("--fix-hints", is_flag=True, help="Print a corrected Dockerfile fragment as well.")
@pass_settings
def scan(
    settings: Settings, target: str, engine: str | None, policy_file: Path | None, format_: str, output: Path | None, platform: str | None,
    insecure_registry: tuple[str, ...], ca_file: Path | None, fix_hints: bool,
) -> Exit:  # fmt: skip
    """Scan TARGET here and now, without a server, and decide.

    TARGET: host/repo:tag, host/repo@sha256:…, oci:DIR[:TAG], archive:FILE (docker save or OCI, plain or gzip), docker:NAME.
    """
    from scanner import catalog
    from scanner.checks import _hints
    from scanner.model.reference import Platform
    from scanner.model.scan import Lane, ScanRequest
    from scanner.reports.base import ReportSubject
    from scanner.scanning import pipeline

    color = output is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    renderer = choose(catalog.reports(), format_, "report format")
    choose(dict.fromkeys(catalog.engine_choices()), engine or settings.engine, "engine")
    policy = read_policy(policy_file)
    settings = replace(
        settings,
        insecure_registries=settings.insecure_registries + insecure_registry,
        ca_file=ca_file or settings.ca_file,
    )
    request = ScanRequest(
        target, Platform.parse(platform) if platform else None, engine or settings.engine, Lane.GATE, source="cli"
    )
    with pipeline.local_services(settings) as services, progress_on_stderr() as progress:
        report = pipeline.run(request, services, progress)
    decision = pipeline.decide(report, policy)
    hints = tuple(_hints.fragment(image, catalog.checks()) for image in report.images) if fix_hints else ()
    write(renderer.render(ReportSubject(report, decision, color=color, fix_hints=hints)), output)
    return exit_of_decision(decision)


@contextmanager
def progress_on_stderr() -> Iterator[Callable[[Progress], None]]:
    """A live line on a terminal, one line a stage elsewhere (a CI log wants no carriage returns)."""
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


@cli.command()
@click.argument("image")
@click.option(
    "--server", envvar="DOCKWARDEN_SERVER", required=True, metavar="URL", help="The Dockwarden server to ask."
)
@click.option("--token", envvar="DOCKWARDEN_TOKEN", help="API token with scope 'gate' (better: DOCKWARDEN_TOKEN).")
@click.option("--wait", default=600, show_default=True, metavar="SECONDS", help="How long to wait for a pending scan.")
@click.option("--workload", "workload_file", type=FILE, help="How the image will be run; judged with it.")
@click.option("--environment", default="", help="Where it is to run: selects the policies that match.")
@click.option("--format", "format_", default="table", show_default=True, type=click.Choice(["table", "json"]))
@click.option("--ca-file", type=FILE, help="CA certificates (PEM) to trust for the server.")
def gate(
    image: str,
    server: str,
    token: str | None,
    wait: int,
    workload_file: Path | None,
    environment: str,
    format_: str,
    ca_file: Path | None,
) -> Exit:
    """Ask a server whether IMAGE may be shipped."""
    from scanner.commands import _client

    workload = read(workload_file, "the workload") if workload_file else None
    client = _client.Client(server, Secret(token or ""), ca_file)
    answer = client.gate(image, environment=environment, workload=workload, wait=wait, progress=tell)
    write(json.dumps(answer.document, indent=2) if format_ == "json" else _client.describe(answer), None)
    if answer.pending:
        return Exit.PENDING
    return Exit.OK if answer.verdict in ("allow", "warn") else Exit.UNDECIDED if answer.undecided else Exit.DENIED


@cli.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.")
@click.option("--web-only", is_flag=True, help="Only the web process: workers and beat run elsewhere.")
@pass_settings
def serve(settings: Settings, host: str | None, port: int | None, web_only: bool) -> None:
    """Run the server: web, workers and scheduler in one process tree."""
    from scanner.worker.supervisor import supervise

    supervise(replace(settings, host=host or settings.host, port=port or settings.port), web_only=web_only)


@cli.command()
@click.option("--lanes", default="gate,push,background", show_default=True, help="Lanes to work on.")
@pass_settings
def worker(settings: Settings, lanes: str) -> None:
    """Run a Celery worker."""
    from scanner.worker.supervisor import run_worker

    names = tuple(lane.strip() for lane in lanes.split(",") if lane.strip())
    run_worker(replace(settings, lanes=names))


@cli.command()
@pass_settings
def beat(settings: Settings) -> None:
    """Run the scheduler."""
    from scanner.worker.supervisor import run_beat

    run_beat(settings)


@cli.group()
def db() -> None:
    """The database's schema."""


@db.command("upgrade")
@pass_settings
def db_upgrade(settings: Settings) -> None:
    """Bring the schema to this version's."""
    from scanner.store.session import Database

    tell(f"the database is at {Database.of(settings).upgrade()}")


@db.command("check")
@pass_settings
def db_check(settings: Settings) -> None:
    """Say whether the schema is this version's. Exit 3 if it is not."""
    from scanner.store.session import Database

    Database.of(settings).check_head()
    tell("the database is at head")


@cli.group()
def policy() -> None:
    """Policies: validate, test, simulate."""


@policy.command("check")
@click.argument("file", type=FILE)
def policy_check(file: Path) -> None:
    """Validate FILE. Problems are listed with line and column."""
    checked = read_policy(file)
    tell(f"{file}: ok: policy {checked.name!r}, {len(checked.rules)} rules")


@policy.command("simulate")
@click.argument("file", type=FILE)
@click.option(
    "--server", envvar="DOCKWARDEN_SERVER", required=True, metavar="URL", help="The server whose evidence to use."
)
@click.option("--token", envvar="DOCKWARDEN_TOKEN", help="API token with scope 'read' (better: DOCKWARDEN_TOKEN).")
@click.option("--most", default=1000, show_default=True, type=click.IntRange(1), help="How many images to look at.")
@click.option("--format", "format_", default="table", show_default=True, type=click.Choice(["table", "json"]))
@click.option("--ca-file", type=FILE, help="CA certificates (PEM) to trust for the server.")
def policy_simulate(file: Path, server: str, token: str | None, most: int, format_: str, ca_file: Path | None) -> Exit:
    """Try FILE on what a server knows: who would newly be blocked or released, by which rule, and whose it is.

    Nothing is changed and nothing is scanned. Exit 1 when something would newly be blocked.
    """
    from scanner.commands import _client

    client = _client.Client(server, Secret(token or ""), ca_file)
    found = client.simulate(read_policy(file).name, read(file, "the policy"), most=most, progress=tell)
    write(json.dumps(found, indent=2) if format_ == "json" else _client.describe_simulation(found), None)
    return Exit.DENIED if found["newly_denied"] else Exit.OK


@policy.command("test")
@click.argument("file", type=FILE)
@click.argument("cases", type=FILE)
def policy_test(file: Path, cases: Path) -> Exit:
    """Assert on fixtures: decide every case of CASES by FILE and compare. Exit 1 when one differs."""
    from scanner.policy import fixtures

    results = fixtures.run(read_policy(file), fixtures.parse(read(cases, "the cases"), cases))
    for result in results:
        click.echo(
            f"{'ok  ' if result.passed else 'FAIL'} {result.name}" + (f": {result.message}" if result.message else "")
        )
    return Exit.OK if all(result.passed for result in results) else Exit.DENIED


@cli.command()
@click.option(
    "--format", "format_", default="table", type=click.Choice(["table", "json", "markdown"]), show_default=True
)
def checks(format_: str) -> None:
    """The catalogue: every check, what it looks at and what it cannot see."""
    from scanner import catalog
    from scanner.checks import _catalogue

    click.echo(_catalogue.render(format_, catalog.checks()).rstrip())


@cli.command()
@click.option("--keep", is_flag=True, envvar="KEEP", help="Leave the server running at the end.")
@pass_settings
def demo(settings: Settings, keep: bool) -> Exit:
    """Build sample images, serve, scan, print the decisions and the UI's address."""
    from scanner.demo.run import run as demonstration

    return Exit.OK if demonstration(settings, keep=keep, tell=tell) else Exit.UNDECIDED


if __name__ == "__main__":
    main()
