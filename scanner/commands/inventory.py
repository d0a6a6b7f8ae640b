"""``dockwarden inventory``: report to a server what runs here. The agent's token has the scope inventory only."""

from __future__ import annotations

import json
import re
import signal
import socket
import textwrap
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from scanner import __version__
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
from scanner.errors import Fault, RefusedError, ScannerError, UsageError
from scanner.model.untrusted import clean_text

_MAX_PAUSE = 600.0  # seconds between two tries while the server is away
# A failure that lasts is repeated in the output this often, so that the end of a log says that it lasts.
_REMIND_SECONDS = 3600.0
# Refusals of one report, not of the agent: a later report is newer and may be accepted.
_PASSING = frozenset(("out_of_order", "another_agent", "rate_limited", "bad_workload"))
_AGENT_LENGTH = 200
# What a server answers that does not know the request, a member of it, or a field of a workload.
_OF_ANOTHER_VERSION = frozenset(("not_found", "method_not_allowed", "invalid", "bad_workload"))


@click.group()
def inventory() -> None:
    """Inventory of running workloads."""


@inventory.command(
    cls=TargetsCommand,
    epilog="Exit codes: 0 reported; 2 wrong usage, an unreadable document, or a refusal by the server; "
    "3 no answer from the engine or the server. With --watch, an outage does not end the command. A wrong start and a "
    "token that the server refuses (2), and a signal (0) end it.",
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
@click.option(
    "--allow-empty",
    is_flag=True,
    help="Accept standard input without a workload: everything is then recorded as stopped.",
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
    allow_empty: bool,
) -> Exit:
    """Report everything that TARGET runs. Workloads that are missing from the report are recorded as stopped.

    A program that fails halfway writes half of what runs: write to a file, and push it only if the program succeeded.

    One agent reports a source: while it does, another one with the same --environment and --name is refused.

    Values of environment variables are never sent. Create the token on the server: dockwarden token create NAME --scope
    inventory
    """
    from scanner.commands import _client

    if watch and target.endswith(":-"):
        raise UsageError("--watch cannot read standard input again", hint="run the pipe from a CronJob or in a loop")
    client = _client.of(settings, server, token, ca_file)
    agent = _Agent(client, target, environment, name or socket.gethostname(), watch or 0, allow_empty=allow_empty)
    if watch is None:
        tell(agent.report())
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

    def __init__(
        self, client: Any, target: str, environment: str, name: str, every: int, *, allow_empty: bool = False
    ) -> None:
        self._client, self._target, self._allow_empty = client, target, allow_empty
        self._environment, self._name, self._every = environment, name, every
        self._stop = threading.Event()

    def report(self) -> str:
        """Read and report once. Returns what the server did with it. Raises ScannerError."""
        # Taken before reading: of two agents that report the same source, the one that read last has the newer state.
        generation = time.time_ns() // 1_000_000
        # Read completely before anything is sent: what a broken answer does not contain would be recorded as stopped.
        documents = _read_documents(self._target)
        # A file or an engine that runs nothing is read on purpose. A pipe is empty if the program before it failed.
        if not documents and self._target.endswith(":-") and not self._allow_empty:
            raise UsageError(
                "standard input has no workload: everything that this source runs would be recorded as stopped",
                hint="check the program before the pipe; if nothing runs any more, add --allow-empty",
            )
        body = {
            "environment": self._environment,
            "source": self._target.partition(":")[0],
            "name": self._name,
            "generation": generation,
            # The target, too: on one host, two projects are reported under the host's name by mistake.
            "agent": clean_text(f"{socket.gethostname()} {self._target}", _AGENT_LENGTH),
            "every_seconds": self._every,
            "workloads": documents,
        }
        try:
            _, answer = self._client.post("/api/v1/inventory", body)
        except ScannerError as error:
            # The server's hint is about its own setting, which the person at this host may not change.
            if error.reason == "too_large":
                error.hint = "report each namespace or host as a source of its own: --name"
            elif error.reason in _OF_ANOTHER_VERSION:
                hint = f"if the server is older than this agent ({__version__}), update it"
                error.hint = f"{hint}; {error.hint}" if error.hint else hint
            raise
        return _describe(answer, len(documents))

    def watch(self, seconds: int) -> Exit:
        """Report until a signal arrives. While a report fails, the pauses double up to 10 minutes.

        An error before the first report that the caller must mend, such as a misspelt file, ends it: nobody looks at
        the output later. Afterwards only a refused token does. Raises ScannerError.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            # The handler only sets a flag: a report in progress is sent completely, then the loop ends.
            signal.signal(number, lambda *_: self._stop.set())
        told, failures = "", _Failures()
        while not self._stop.is_set():
            try:
                done = self.report()
            except ScannerError as error:
                if self._ends(error, reported=bool(told)):
                    raise
                failures.add(error)
            else:
                # Once, and not each minute: the last message still holds.
                if done != told or failures.number:
                    tell(f"{failures.ended()}{done}")
                told, failures = done, _Failures()
            # Doubled, so that a thousand agents do not hinder a server that comes back.
            doubled = max(5.0, seconds) * 2 ** min(failures.number - 1, 10)
            self._stop.wait(min(_MAX_PAUSE, doubled) if failures.number else float(seconds))
        return Exit.OK

    @staticmethod
    def _ends(error: ScannerError, *, reported: bool) -> bool:
        if isinstance(error, RefusedError):
            # The token of this process stays the same, so no repetition helps. A supervisor starts it with the new one.
            error.hint = (
                "the token expired, was revoked or was replaced: create one on the server (dockwarden token create "
                "NAME --scope inventory), and start the agent again with it as DOCKWARDEN_TOKEN"
                if reported
                else error.hint
            )
            return True
        return error.fault is Fault.CALLER and error.reason not in _PASSING and not reported


class _Failures:
    """Failed reports in a row. Each kind is written once, and again after an hour."""

    def __init__(self) -> None:
        self.number = 0
        self._since = self._written = time.monotonic()
        self._last = ""

    def add(self, error: ScannerError) -> None:
        """Count a failure, and write it if it is another one than the last."""
        # Times and generations differ in each message about the same thing.
        kind = re.sub(r"[0-9]+", "", f"{error.reason} {error}")
        now = time.monotonic()
        self._since = self._since if self.number else now
        self.number += 1
        if kind != self._last:
            complain(str(error), error.hint)
            tell("the last report stays; trying again with growing pauses, up to 10 minutes")
        elif now - self._written >= _REMIND_SECONDS:
            complain(f"for {(now - self._since) / 60:.0f} minutes: {error}", error.hint)
        else:
            return
        self._last, self._written = kind, now

    def ended(self) -> str:
        """Return the beginning of the message about the next report that was accepted."""
        tries = f"{self.number} failed tr{'y' if self.number == 1 else 'ies'}"
        return f"reported again after {tries}: " if self.number else ""


def _read_documents(target: str) -> list[dict[str, Any]]:
    from scanner.services import workload_documents, workloads

    found = workloads.read_target(target, _read_whole_stdin)
    return [workload_documents.document(each) for each in found]


def _read_whole_stdin() -> bytes:
    """Read standard input. Raises UsageError if it ends in the middle of a line, which is where a program failed.

    JSON that was cut off is no JSON. YAML often still is YAML, with fewer workloads or settings.
    """
    data = read_stdin()
    if data.strip() and not data.endswith(b"\n") and data.rstrip()[-1:] not in (b"}", b"]"):
        raise UsageError(
            "standard input ends in the middle of a line: the program before the pipe seems to have failed",
            hint="check that it succeeds; a complete text ends with a newline",
        )
    return data


def _describe(answer: Mapping[str, Any], count: int) -> str:
    parts = [f"{count} workload{'' if count == 1 else 's'} reported"]
    changes = [f"{answer[name]} {name}" for name in ("added", "changed", "removed") if answer.get(name)]
    parts.append(", ".join(changes) or "nothing changed")
    source = answer.get("source")
    if isinstance(source, dict) and source.get("contested") is True:
        other = clean_text(str(source.get("refused_agent") or ""), 300)
        parts.append(
            f"warning: another agent reports this source and was refused: {other}. Give it a --name of its own"
        )
    queued: Sequence[object] = answer.get("scans") or ()
    if queued:
        parts.append(f"{len(queued)} image{'' if len(queued) == 1 else 's'} queued for a scan")
    return "; ".join(parts)
