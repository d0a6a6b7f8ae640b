"""``dockwarden advisories``: how old they are, where they come from, and how they are renewed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scanner.commands._console import Exit, choose, complain, database_at_head, pass_settings, tell
from scanner.config import Settings
from scanner.errors import ScannerError, UsageError
from scanner.model.actor import COMMAND_LINE

if TYPE_CHECKING:
    from scanner.advisories.sources import Overview
    from scanner.model.finding import AdvisoryStatus
    from scanner.model.scan import Progress
    from scanner.store.session import Database


@click.group()
def advisories() -> None:
    """The vulnerability database, and the feeds about what is exploited."""


def _text(line: Overview) -> list[str]:
    found, said = line.status, line.source
    if found is None:
        lines = [f"{said.name}: none"]
    else:
        built = (
            f"built {found.updated_at:%Y-%m-%d %H:%M} UTC, {_span(line.age)} ago"
            if found.updated_at and line.age
            else "no date"
        )
        lines = [f"{said.name} {found.version}: {built}{'  TOO OLD' if line.stale else ''}"]
        came = f"came {found.downloaded_at:%Y-%m-%d %H:%M}" if found.downloaded_at else "in force"
        digest = found.digest.short if found.digest else "no digest"
        lines.append(f"  {came}{' from ' + said.origin if said.origin else ''}; {digest}")
        if found.next_update:
            lines.append(f"  its publisher's next one was due {found.next_update:%Y-%m-%d %H:%M} UTC")
    if line.mirror:
        again = (
            f"asked again {datetime.fromtimestamp(said.next_check, UTC):%Y-%m-%d %H:%M} UTC"
            if said.next_check
            else "asked soon"
        )
        lines.append(f"  mirror {line.mirror}: {again}")
    else:
        lines.append("  no mirror is configured: import files")
    if said.failure:
        failed = datetime.fromtimestamp(said.failed, UTC)
        lines.append(f"  the last update FAILED {failed:%Y-%m-%d %H:%M} UTC ({said.failures} in a row): {said.failure}")
    return lines


def _span(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


@advisories.command("status")
@click.option("--format", "format_", default="table", type=click.Choice(["table", "json"]), show_default=True)
@pass_settings
def show_status(settings: Settings, format_: str) -> Exit:
    """How old the advisories are, where they came from, and how the last update went.

    Exit 3 when there is no vulnerability database, or one older than DOCKWARDEN_ADVISORIES_MAX_AGE_HOURS.
    """
    from scanner.advisories import sources

    lines, others = sources.overview(settings), _other_engines(settings)
    if format_ == "json":
        document = {"engine": settings.engine, "sources": [dict(line.document) for line in lines], "engines": others}
        click.echo(json.dumps(document, indent=2, default=datetime.isoformat))
    else:
        click.echo("\n".join(text for line in lines for text in _text(line)))
        for name, status in others.items():
            click.echo(f"{name}: " + ", ".join(f"{key} {value}" for key, value in status.items() if value))
    first = lines[0]
    if first.status is None:
        complain(
            "there is no vulnerability database: nothing that is scanned can be called clean",
            "dockwarden advisories import FILE",
        )
    return Exit.OK if first.status and not first.stale else Exit.UNDECIDED


def _other_engines(settings: Settings) -> dict[str, dict[str, str | None]]:
    """What engines that keep their own advisories say of them."""
    from scanner import catalog

    found: dict[str, dict[str, str | None]] = {}
    for engine in catalog.engines().values():
        if engine.looks_up or not (engine.id == settings.engine or settings.clair_url):
            continue
        try:
            status = engine.advisories(settings)
        except ScannerError as error:
            found[engine.id] = {"failure": f"{error.reason}: {error}"}
        else:
            built = status.updated_at.isoformat() if status.updated_at else None
            found[engine.id] = {"version": status.version, "updated_at": built}
    return found


@advisories.command("update")
@click.argument("names", nargs=-1, metavar="[SOURCE]...")
@pass_settings
def update(settings: Settings, names: tuple[str, ...]) -> Exit:
    """Ask the configured mirrors now, and put what is new in force.

    SOURCE: trivy-db, trivy-java-db, kev, epss; all that are configured without. What is in force stays so when an
    update fails.
    """
    from scanner.advisories import sources

    mirrors = sources.configured(settings)
    for name in names:
        if name not in mirrors:
            raise UsageError(
                f"no mirror of {name!r} is configured",
                hint="configured: " + (", ".join(mirrors) or "none; see docs/advisories.md"),
            )
    if not mirrors:
        raise UsageError(
            "no mirror is configured", hint="set DOCKWARDEN_ADVISORIES_SOURCE, or: dockwarden advisories import FILE"
        )
    database = _database(settings)
    if database is not None:
        return _update_as_job(settings, database, names or tuple(mirrors))
    failed = False
    for name in names or mirrors:
        try:
            changed = sources.update(settings, name)
        except ScannerError as error:
            complain(f"{name}: {error}", error.hint)
            failed = True
        else:
            tell(f"{name}: " + (_describe(sources.in_force(settings, name)) if changed else "nothing new"))
    return Exit.UNDECIDED if failed else Exit.OK


def _database(settings: Settings) -> Database | None:
    """This installation's database, at head; None where there is none yet: a command line alone needs none."""
    if settings.embedded and not (settings.home / "dockwarden.db").exists():
        return None
    return database_at_head(settings)


def _needed_database(settings: Settings) -> Database:
    found = _database(settings)
    if found is None:
        raise UsageError(
            "nothing was recorded here yet", hint="this is for a server: run it where the server's settings are"
        )
    return found


def _update_as_job(settings: Settings, database: Database, names: Sequence[str]) -> Exit:
    """Under the same lease as the workers' own updates: one at a time, wherever they run."""
    from scanner.store import jobs
    from scanner.worker import maintenance

    place = maintenance.Upkeep(settings, database).place
    with database.session() as session:
        job_id = jobs.request(session, jobs.UPDATE, place, "command line", {"sources": list(names)})
    return _work_or_follow(settings, database, job_id, {jobs.UPDATE: [place]})


def _work_or_follow(settings: Settings, database: Database, job_id: str, kinds: Mapping[str, Sequence[str]]) -> Exit:
    """Do the job here, or watch the worker that has it. Exit 3 when it did not end well."""
    import time

    from scanner.scanning.slots import claim_slot
    from scanner.store import jobs
    from scanner.worker import maintenance
    from scanner.worker.worker import Attempt, of_job

    with database.session() as session:
        job = jobs.claim(session, "command line", kinds, settings.lease_seconds)
    if job is not None:
        with claim_slot(settings.home / "slots") as slot:
            attempt = Attempt(settings, database, of_job(job))
            own = maintenance.Upkeep(settings, database, slot, attempt.cancelled)

            def work(report: Callable[[Progress], None]) -> None:
                def told(progress: Progress) -> None:
                    _show(progress)
                    report(progress)

                maintenance.run(job, own, told)

            attempt.run(work)
    shown = ""
    while True:
        with database.read() as session:
            view = jobs.get(session, job_id)
        if view.state.terminal:
            break
        line = (
            f"{view.state}: {view.progress.message} {view.progress.done}/{view.progress.total}"
            if view.progress
            else str(view.state)
        )
        if line != shown:
            tell(line)
            shown = line
        time.sleep(1)
    (tell if view.state == "done" else complain)(view.message or str(view.state))
    return Exit.OK if view.state == "done" else Exit.UNDECIDED


def _show(progress: Progress) -> None:
    if progress.done % 100 == 0:
        tell(f"{progress.message}" + (f" ({progress.done} of {progress.total})" if progress.total else ""))


@advisories.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@pass_settings
def import_(settings: Settings, file: Path) -> None:
    """Verify a file and put it in force, atomically: what an air-gapped site does.

    FILE: a Trivy database (db.tar.gz, javadb.tar.gz, or a directory), CISA's KEV catalogue (JSON or CSV), EPSS
    scores (CSV, CSV.gz).
    """
    from scanner.advisories import sources

    tell(_describe(sources.import_file(settings, file)))


def _describe(status: AdvisoryStatus | None) -> str:
    if status is None:
        return "in force"
    built = f"{status.updated_at:%Y-%m-%d %H:%M} UTC" if status.updated_at else "an unknown date"
    return f"in force: {status.source} {status.version}, built {built}, {status.digest}"


@advisories.command("rematch")
@click.option("--no-wait", is_flag=True, help="Only ask for it: a worker does it.")
@click.option("--cancel", is_flag=True, help="Stop the one that runs; what it has done stays.")
@pass_settings
def rematch(settings: Settings, no_wait: bool, cancel: bool) -> Exit:
    """Look every package of the fleet up in the advisories in force, and decide anew what that changes.

    Workers do this by themselves when the advisories change. No registry is asked and no image is read.
    """
    from scanner import catalog
    from scanner.services import jobs as job_use_cases
    from scanner.store import jobs
    from scanner.worker import maintenance

    database = _needed_database(settings)
    if cancel:
        with database.session() as session:
            running = [j for j in jobs.list_(session, [jobs.REMATCH]) if not j.state.terminal]
            for job in running:
                job_use_cases.cancel(session, COMMAND_LINE, job.id)
        tell(f"{len(running)} stopped")
        return Exit.OK
    engine = choose(catalog.engines(), settings.engine, "engine")
    if not engine.looks_up:
        raise UsageError(
            f"{engine.id} cannot look packages up without an image", hint="it tells of news itself: docs/advisories.md"
        )
    with database.read() as session:
        on = maintenance.current(settings, engine, session)
    job_id = maintenance.request_rematch(database, on, "command line")
    if no_wait:
        tell(f"asked for: {job_id}")
        return Exit.OK
    return _work_or_follow(settings, database, job_id, {jobs.REMATCH: [maintenance.key_of(on)]})


@advisories.command("revoke")
@click.option("--engine", default="", help="An engine, with --version.")
@click.option("--version", "version_", default="", help="The version of the engine that must not be believed.")
@click.option(
    "--database", "digest", default="", metavar="DIGEST", help="An advisory database, by its digest (see status)."
)
@click.option("--binary", default="", metavar="DIGEST", help="One build of an engine, by its binary's digest.")
@click.option("--reason", default="", help="Why; people will read it.")
@pass_settings
def revoke(settings: Settings, engine: str, version_: str, digest: str, binary: str, reason: str) -> None:
    """Believe an engine or an advisory database no more.

    Every decision that rests on it is listed, is "not known" from this moment on, and is queued to be looked at again.
    """
    from scanner.services import revocations as use_cases
    from scanner.store import revocations

    if digest and binary:
        raise UsageError("name one thing", hint="--database DIGEST or --binary DIGEST")
    what = revocations.named(engine, version_, digest or binary)
    with _needed_database(settings).session() as session:
        made = use_cases.revoke(session, COMMAND_LINE, what, reason)
        names = revocations.resting(session, what)
    for name in names:
        click.echo(
            f"{name.verdict:5}  {name.repository}{':' + name.tag if name.tag else ''}@{name.digest}  "
            f"{name.engine} {name.version}"
        )
    tell(
        f"revoked: {what} ({made.id}); {len(names)} decisions rest on "
        f"it{' or more' if len(names) >= 1000 else ''}, scans of them are queued"
    )


@advisories.command("revocations")
@click.option("--lift", metavar="ID", help="Believe it again.")
@pass_settings
def list_revocations(settings: Settings, lift: str | None) -> None:
    """What must not be believed, and what is believed again."""
    from scanner.services import revocations as use_cases
    from scanner.store import revocations

    with _needed_database(settings).session() as session:
        if lift:
            use_cases.lift(session, COMMAND_LINE, lift)
        for item in revocations.list_(session):
            state = f"lifted {item.lifted_at:%Y-%m-%d} by {item.lifted_by}" if item.lifted_at else "in force"
            click.echo(
                f"{item.id}  {item.what}  {item.revoked_at:%Y-%m-%d %H:%M} by {item.revoked_by}: {state}  {item.reason}"
            )
