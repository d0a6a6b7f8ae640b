"""``dockwarden inventory``: report to a server what runs here. The agent's token has the scope inventory only."""

from __future__ import annotations

import json
import signal
import socket
import textwrap
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from scanner.commands._console import (
    FILE,
    Exit,
    TargetsCommand,
    complain,
    pass_settings,
    read_stdin,
    server_options,
    tell,
    write,
)
from scanner.config import Settings
from scanner.errors import Fault, ScannerError, UsageError
from scanner.model.untrusted import clean_text

_MAX_PAUSE = 600.0  # seconds between two tries while the server is away


@click.group()
def inventory() -> None:
    """Inventory of running workloads."""


@inventory.command(
    cls=TargetsCommand,
    epilog="Exit codes: 0 reported; 2 wrong usage, an unreadable document, or a refusal by the server; "
    "3 no answer from the engine or the server. With --watch only 2 and a signal end the command.",
)
@click.argument("target")
@server_options("inventory")
@click.option("--environment", required=True, help="Environment, for example production; selects policies.")
@click.option("--name", default="", help="Name of the host, cluster or project. Default: this machine's name.")
@click.option(
    "--watch",
    type=click.IntRange(5, 86_400),
    metavar="SECONDS",
    help="Repeat the report at this interval, until stopped. Not with standard input.",
)
@pass_settings
def push(
    settings: Settings,
    target: str,
    server: str | None,
    token: str | None,
    ca_file: Path | None,
    environment: str,
    name: str,
    watch: int | None,
) -> Exit:
    """Report everything that TARGET runs. Workloads that are missing from the report are recorded as stopped.

    Values of environment variables are never sent. Create the token on the server: dockwarden token create NAME --scope
    inventory
    """
    from scanner.commands import _client

    if watch and target.endswith(":-"):
        raise UsageError("--watch cannot read standard input again", hint="run the pipe from a CronJob or in a loop")
    client = _client.of(settings, server, token, ca_file)
    agent = _Agent(client, target, environment, name or socket.gethostname())
    if watch is None:
        agent.report()
        return Exit.OK
    return agent.watch(watch)


@inventory.command("list", epilog="Exit codes: 0 answered; 2 wrong usage; 3 the server does not answer.")
@server_options("read")
@click.option("--environment", default="", help="Only workloads of this environment.")
@click.option(
    "--check",
    default="",
    metavar="ID",
    help="Only workloads for which this check failed, for example digest-differs-elsewhere.",
)
@click.option("--most", default=200, show_default=True, type=click.IntRange(1, 100_000), help="Rows to print.")
@click.option("--format", "format_", default="table", show_default=True, type=click.Choice(["table", "json"]))
@click.option("-o", "--output", type=FILE, help="Write to a file instead of stdout.")
@pass_settings
def list_workloads(
    settings: Settings,
    server: str | None,
    token: str | None,
    ca_file: Path | None,
    environment: str,
    check: str,
    most: int,
    format_: str,
    output: Path | None,
) -> Exit:
    """List what runs, the worst first, with the verdict on workload and image and the checks that failed."""
    from scanner import catalog
    from scanner.commands import _client

    # A misspelt check would match nothing and look like good news.
    if check and check not in catalog.workload_checks():
        raise UsageError(f"not a check of workloads: {check!r}", hint="dockwarden checks lists them")
    client = _client.of(settings, server, token, ca_file)
    rows: list[Mapping[str, Any]] = []
    more = False
    asked = {"environment": environment, "check": check}
    for page in client.pages("/api/v1/workloads", asked, most):
        rows += _client.objects(page.get("items"))
        more = bool(page.get("next_cursor"))
    document = {"items": rows, "more": more}
    write(json.dumps(document, indent=2) if format_ == "json" else _table(rows, more=more), output)
    return Exit.OK


def _table(rows: Sequence[Mapping[str, Any]], *, more: bool) -> str:
    if not rows:
        return "No workload matches."
    lines = []
    for row in rows:
        name, image = (clean_text(str(row.get(member) or ""), 300) for member in ("name", "image"))
        where, verdict = (clean_text(str(row.get(member) or ""), 63) for member in ("environment", "overall"))
        lines.append(f"{verdict.upper():<9}  {where}  {name}  {image}")
        failed = row.get("failed_checks")
        checks = [clean_text(str(each), 64) for each in failed] if isinstance(failed, list) else []
        lines += textwrap.wrap(
            ", ".join(checks), 120, initial_indent=" " * 11, subsequent_indent=" " * 11, break_on_hyphens=False
        )
    return "\n".join([*lines, "… and more (--most)"] if more else lines)


class _Agent:
    """Reads what runs and reports it."""

    def __init__(self, client: Any, target: str, environment: str, name: str) -> None:
        self._client, self._target = client, target
        self._environment, self._name = environment, name
        self._stop = threading.Event()

    def report(self) -> None:
        """Read and report once. Raises ScannerError."""
        # Taken before reading: of two agents that report the same source, the one that read last has the newer state.
        generation = time.time_ns() // 1_000_000
        documents = _read_documents(self._target)
        body = {
            "environment": self._environment,
            "source": self._target.partition(":")[0],
            "name": self._name,
            "generation": generation,
            "workloads": documents,
        }
        try:
            _, answer = self._client.post("/api/v1/inventory", body)
        except ScannerError as error:
            # The server's hint is about its own setting, which the person at this host may not change.
            if error.reason == "too_large":
                error.hint = "report each namespace or host as a source of its own: --name"
            raise
        tell(_describe(answer, len(documents)))

    def watch(self, seconds: int) -> Exit:
        """Report until a signal arrives. While the server or engine is unavailable, the pauses double up to 10 minutes.

        Raises ScannerError for mistakes that repeating cannot fix, such as an invalid token.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            # The handler only sets a flag: a report in progress is sent completely, then the loop ends.
            signal.signal(number, lambda *_: self._stop.set())
        failures = 0
        while not self._stop.is_set():
            try:
                self.report()
                failures = 0
            except ScannerError as error:
                # These are refusals of one report, not of the agent: the next report is newer and may be accepted.
                if error.fault is Fault.CALLER and error.reason not in ("out_of_order", "rate_limited", "bad_workload"):
                    raise
                failures += 1
                complain(str(error), error.hint)
            # Doubled, so that a thousand agents do not hinder a server that comes back.
            pause = float(seconds) if not failures else min(_MAX_PAUSE, max(5.0, seconds) * 2 ** min(failures - 1, 10))
            self._stop.wait(pause)
        return Exit.OK


def _read_documents(target: str) -> list[dict[str, Any]]:
    from scanner.services import workload_documents, workloads

    found = workloads.read_target(target, read_stdin)
    return [workload_documents.document(each) for each in found]


def _describe(answer: Mapping[str, Any], count: int) -> str:
    parts = [f"{count} workload{'' if count == 1 else 's'} reported"]
    changes = [f"{answer[name]} {name}" for name in ("added", "changed", "removed") if answer.get(name)]
    parts.append(", ".join(changes) or "nothing changed")
    queued: Sequence[object] = answer.get("scans") or ()
    if queued:
        parts.append(f"{len(queued)} image{'' if len(queued) == 1 else 's'} queued for a scan")
    return "; ".join(parts)
