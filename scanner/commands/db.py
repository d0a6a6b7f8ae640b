"""``dockwarden db``: the database of this installation."""

from __future__ import annotations

import os
import secrets
import socket
import time
from typing import TYPE_CHECKING

import click

from scanner.commands._console import Exit, complain, database_at_head, pass_settings, tell
from scanner.config import Settings
from scanner.model.actor import COMMAND_LINE
from scanner.model.plurals import number_of

if TYPE_CHECKING:
    from scanner.store import jobs
    from scanner.store.session import Database

# Pruning renews its lease between small transactions; five minutes cover the slowest of them.
_LEASE_SECONDS, _LOOK_SECONDS = 300.0, 0.5


@click.group()
def db() -> None:
    """The database: its schema and its retention."""


@db.command("upgrade")
@pass_settings
def db_upgrade(settings: Settings) -> None:
    """Upgrade the schema to this version."""
    from scanner.services import trust_roots
    from scanner.store.session import Database

    database = Database.of(settings)
    tell(f"the database is at {database.upgrade()}")
    with database.session() as session:
        for name in trust_roots.erase_private_keys(session, COMMAND_LINE):
            tell(f"trust root {name!r} held a private key, which is erased, and the root is removed")
            tell(f"  make a new key, and write the root again with: dockwarden trust root add {name} FILE")


@db.command("check")
@pass_settings
def db_check(settings: Settings) -> None:
    """Check that the schema matches this version. Exits with 2 if it does not, with 3 if it cannot be read."""
    from scanner.store.session import Database

    Database.of(settings).check_head()
    tell("the database is at head")


@db.command("prune")
@click.option("--dry-run", is_flag=True, help="Print what would be removed, and remove nothing.")
@pass_settings
def db_prune(settings: Settings, dry_run: bool) -> Exit:
    """Remove data that is older than its retention period: DOCKWARDEN_RETENTION_*, see docs/storage.md.

    Works in small transactions with pauses, while the server keeps running. A worker does the same every night.
    """
    from scanner.services import retention
    from scanner.worker import storage

    database = database_at_head(settings)
    if dry_run:
        with database.read() as session:
            lines = retention.plan(session, settings)
        for line in lines:
            click.echo(_line(line.label, number_of(line.rows, "row"), line.bytes))
        files = storage.prune_files(settings, dry_run=True)
        _files(settings, files)
        total = sum(line.bytes for line in lines) + sum(files.values())
        rows = sum(line.rows for line in lines)
        tell(f"{rows} rows and about {_size(total)} would be removed" if rows or files else "nothing would be removed")
        return Exit.OK
    job = _prune(settings, database)
    run = retention.run_from_job(job)
    for table, rows in sorted(run.removed.items(), key=lambda item: -item[1]):
        click.echo(_line(retention.label_of(table), number_of(rows, "row")))
    _files(settings, storage.prune_files(settings))
    if job.state != "done":
        complain(f"the pruning ended as {job.state}: {job.message}")
        return Exit.UNDECIDED
    tell(f"{run.rows} rows removed" if run.rows else "nothing is older than its retention period")
    return Exit.OK


def _prune(settings: Settings, database: Database) -> jobs.JobView:
    """Run the job here, or wait for the worker that already runs it. Returns the ended job."""
    from scanner.model.actor import COMMAND_LINE
    from scanner.model.scan import Progress
    from scanner.services import retention
    from scanner.store import jobs

    name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
    with database.session() as session:
        asked = retention.request(session, COMMAND_LINE)
    while True:
        with database.session() as session:
            # A worker may claim the job first. This command then waits for it, so that two prunings never run at
            # once.
            held = jobs.claim(session, name, {jobs.RETENTION: {jobs.ANYWHERE}}, _LEASE_SECONDS)
        if held is not None:

            def report(progress: Progress, held: jobs.Job = held) -> None:
                with database.session() as session:
                    jobs.heartbeat(session, held, _LEASE_SECONDS, progress)

            retention.Pruning(settings, database, held, COMMAND_LINE, report).run()
        with database.read() as session:
            found = jobs.get(session, asked.id)
        if found.state.terminal:
            return found
        if held is None:
            time.sleep(_LOOK_SECONDS)


def _files(settings: Settings, freed: object) -> None:
    labels = {"blobs": "Layers that no scan used", "advisories": "Former advisory databases"}
    for name, size in dict(freed).items():  # type: ignore[call-overload]
        click.echo(_line(labels[name], "files", size))


def _line(label: str, rows: str, size: int | None = None) -> str:
    return f"{label:46} {rows:>16}" + ("" if size is None else f" {_size(size):>12}")


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
