"""``dockwarden inventory``: tell a server what runs here. A small agent, with a token that may do nothing else."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from scanner.commands._console import Exit, TargetsCommand, complain, pass_settings, read_stdin, server_options, tell
from scanner.config import Settings
from scanner.errors import Fault, ScannerError, UsageError

_MOST_PAUSE = 600.0  # seconds between two tries while the server is away


@click.group()
def inventory() -> None:
    """What runs where."""


@inventory.command(
    cls=TargetsCommand,
    epilog="Exit codes: 0 reported; 2 wrong usage, a document that cannot be read, or the server refuses; "
    "3 the engine or the server does not answer. With --watch only 2 ends it, and a signal.",
)
@click.argument("target")
@server_options("inventory")
@click.option("--environment", required=True, help="Where it runs, for example production: selects its policies.")
@click.option("--name", default="", help="Of the host, the cluster or the project; this machine's name otherwise.")
@click.option(
    "--watch",
    type=click.IntRange(5, 86_400),
    metavar="SECONDS",
    help="Report again after so many seconds, until stopped. Not with standard input.",
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
    """Report everything that TARGET runs; what is missing from the report is gone.

    Values of environment variables are never sent. Make the token on the server: dockwarden token create NAME --scope
    inventory
    """
    from scanner.commands import _client

    if watch and target.endswith(":-"):
        raise UsageError(
            "--watch cannot read standard input again", hint="run the pipe again from a CronJob, or a loop"
        )
    client = _client.of(settings, server, token, ca_file)
    agent = _Agent(client, target, environment, name or socket.gethostname())
    if watch is None:
        agent.report()
        return Exit.OK
    return agent.watch(watch)


class _Agent:
    """Reads what runs and reports it."""

    def __init__(self, client: Any, target: str, environment: str, name: str) -> None:
        self._client, self._target = client, target
        self._environment, self._name = environment, name
        self._stop = threading.Event()

    def report(self) -> None:
        """Read and report once. Raises ScannerError."""
        # Before anything is read: of two agents that report the same source, the one that looked last is right.
        generation = time.time_ns() // 1_000_000
        documents = _read(self._target)
        body = {
            "environment": self._environment,
            "source": self._target.partition(":")[0],
            "name": self._name,
            "generation": generation,
            "workloads": documents,
        }
        _, answer = self._client.post("/api/v1/inventory", body)
        tell(_describe(answer, len(documents)))

    def watch(self, seconds: int) -> Exit:
        """Report until a signal comes. A server or an engine that is away is asked again, ever more slowly."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        failures = 0
        while not self._stop.is_set():
            try:
                self.report()
                failures = 0
            except ScannerError as error:
                # A report that came too late is not the agent's fault: the next one is newer.
                if error.fault is Fault.CALLER and error.reason not in ("out_of_order", "rate_limited", "bad_workload"):
                    raise
                failures += 1
                complain(str(error), error.hint)
            pause = float(seconds) if not failures else min(_MOST_PAUSE, max(5.0, seconds) * 2 ** min(failures - 1, 10))
            self._stop.wait(pause)
        return Exit.OK


def _read(target: str) -> list[dict[str, Any]]:
    from scanner.services import workload_documents, workloads

    found = workloads.read_target(target, read_stdin)
    return [workload_documents.document(each) for each in found]


def _describe(answer: Mapping[str, Any], count: int) -> str:
    words = [f"{count} workload{'' if count == 1 else 's'} reported"]
    changes = [f"{answer[name]} {name}" for name in ("added", "changed", "removed") if answer.get(name)]
    words.append(", ".join(changes) or "nothing changed")
    queued: Sequence[object] = answer.get("scans") or ()
    if queued:
        words.append(f"{len(queued)} image{'' if len(queued) == 1 else 's'} queued for a scan")
    return "; ".join(words)
