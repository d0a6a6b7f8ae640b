"""``dockwarden advisories``: status, update and import of the vulnerability database and the exploit feeds."""

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
    """Vulnerability database and exploit feeds (KEV, EPSS): status, update, import, revoke."""


def _text(line: Overview) -> list[str]:
    status, source = line.status, line.source
    if status is None:
        lines = [f"{source.name}: none"]
    else:
        built = (
            f"built {status.updated_at:%Y-%m-%d %H:%M} UTC, {_span(line.age)} ago"
            if status.updated_at and line.age
            else "no date"
        )
        lines = [f"{source.name} {status.version}: {built}{'  TOO OLD' if line.stale else ''}"]
        obtained = f"downloaded {status.downloaded_at:%Y-%m-%d %H:%M}" if status.downloaded_at else "in use"
        digest = status.digest.short if status.digest else "no digest"
        lines.append(f"  {obtained}{' from ' + source.origin if source.origin else ''}; {digest}")
        if status.next_update:
            due = "was" if status.next_update <= datetime.now(UTC) else "is"
            lines.append(f"  the publisher's next edition {due} due {status.next_update:%Y-%m-%d %H:%M} UTC")
    if line.mirror:
        next_check = (
            f"next check {datetime.fromtimestamp(source.next_check, UTC):%Y-%m-%d %H:%M} UTC"
            if source.next_check
            else "next check soon"
        )
        lines.append(f"  mirror {line.mirror}: {next_check}")
    else:
        lines.append("  no mirror is configured: import advisories from a file, see docs/advisories.md")
    if source.failure:
        failed = datetime.fromtimestamp(source.failed, UTC)
        lines.append(
            f"  the last update FAILED {failed:%Y-%m-%d %H:%M} UTC ({source.failures} in a row): {source.failure}"
        )
    return lines


def _span(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


@advisories.command("status")
@click.option("--format", "format_", default="table", type=click.Choice(["table", "json"]), show_default=True)
@pass_settings
def show_status(settings: Settings, format_: str) -> Exit:
    """Show the age and origin of the advisories and the result of the last update.

    Exits with 3 if there is no vulnerability database, or if it is older than DOCKWARDEN_ADVISORIES_MAX_AGE_HOURS.
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
    # The vulnerability database. The feeds only add to it, so their age does not decide.
    first = lines[0]
    if first.status is None:
        complain(
            "there is no vulnerability database: no scan can report an image as free of vulnerabilities",
            "dockwarden advisories import FILE (docs/advisories.md says where to get one)",
        )
    return Exit.OK if first.status and not first.stale else Exit.UNDECIDED


def _other_engines(settings: Settings) -> dict[str, dict[str, str | None]]:
    """Status of the engines that keep their own advisories, by engine id, as JSON members."""
    from scanner import catalog

    found: dict[str, dict[str, str | None]] = {}
    for engine in catalog.engines().values():
        # Clair is asked only if it is configured: a request to an empty address would look like an outage.
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
    """Download new advisories from the configured mirrors and use them.

    SOURCE: trivy-db, trivy-java-db, kev or epss. Without SOURCE: all that are configured. If an update fails, the
    current advisories stay in use.
    """
    from scanner.advisories import sources

    mirrors = sources.configured_mirrors(settings)
    for name in names:
        if name not in mirrors:
            raise UsageError(
                f"no mirror is configured for {name!r}",
                hint="configured: " + (", ".join(mirrors) or "none; see docs/advisories.md"),
            )
    if not mirrors:
        raise UsageError(
            "no mirror is configured",
            hint="set DOCKWARDEN_ADVISORIES_SOURCE, or: dockwarden advisories import FILE (docs/advisories.md)",
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
    if failed:
        tell("The advisories that were in use stay in use. Without a network: dockwarden advisories import FILE")
    return Exit.UNDECIDED if failed else Exit.OK


def _database(settings: Settings) -> Database | None:
    # With a database, the update is a job under a lease; without one there is nobody to coordinate with.
    """Open this installation's database, or return None if there is none: scans on the command line need none."""
    if settings.embedded and not (settings.home / "dockwarden.db").exists():
        return None
    return database_at_head(settings)


def _needed_database(settings: Settings) -> Database:
    found = _database(settings)
    if found is None:
        raise UsageError(
            "there is no database here yet", hint="run the command on the server, with the server's settings"
        )
    return found


def _update_as_job(settings: Settings, database: Database, names: Sequence[str]) -> Exit:
    """Update under the lease that workers use, so that only one update runs at a time on any machine."""
    from scanner.store import jobs
    from scanner.worker import maintenance

    # Advisories are files of one machine. The key of the job names the directory, so that workers of other machines
    # do not wait for this one.
    place = maintenance.Upkeep(settings, database).place
    with database.session() as session:
        job_id = jobs.request(session, jobs.UPDATE, place, "command line", {"sources": list(names)})
    return _work_or_follow(settings, database, job_id, {jobs.UPDATE: [place]})


def _work_or_follow(settings: Settings, database: Database, job_id: str, kinds: Mapping[str, Sequence[str]]) -> Exit:
    """Run the job here, or follow the worker that runs it. Returns 3 if the job failed."""
    import time

    from scanner.scanning.slots import claim_slot
    from scanner.store import jobs
    from scanner.worker import maintenance
    from scanner.worker.worker import Attempt, of_job

    # Claim first: if no worker holds the job, this process does it, and the command also works with no worker running.
    with database.session() as session:
        job = jobs.claim(session, "command line", kinds, settings.lease_seconds)
    if job is not None:
        with claim_slot(settings.home / "slots") as slot:
            attempt = Attempt(settings, database, of_job(job))
            own = maintenance.Upkeep(settings, database, slot, attempt.cancelled)

            def work(report: Callable[[Progress], None]) -> None:
                def show_and_report(progress: Progress) -> None:
                    _show(progress)
                    report(progress)

                maintenance.run(job, own, show_and_report)

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
    # Thousands of images take minutes: every hundredth line is enough for a CI log.
    if progress.done % 100 == 0:
        tell(f"{progress.message}" + (f" ({progress.done} of {progress.total})" if progress.total else ""))


@advisories.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@pass_settings
def import_(settings: Settings, file: Path) -> None:
    """Import advisories from a FILE, for sites without internet access.

    FILE: a Trivy database (db.tar.gz, javadb.tar.gz, or a directory), CISA's KEV catalogue (JSON or CSV), EPSS
    scores (CSV, CSV.gz).
    """
    from scanner.advisories import sources

    tell(_describe(sources.import_file(settings, file)))


def _describe(status: AdvisoryStatus | None) -> str:
    if status is None:
        return "in use"
    built = f"{status.updated_at:%Y-%m-%d %H:%M} UTC" if status.updated_at else "an unknown date"
    return f"in use: {status.source} {status.version}, built {built}, {status.digest}"


@advisories.command("rematch")
@click.option("--no-wait", is_flag=True, help="Queue the job for a worker and return.")
@click.option("--cancel", is_flag=True, help="Stop the running job. Its results so far are kept.")
@pass_settings
def rematch(settings: Settings, no_wait: bool, cancel: bool) -> Exit:
    """Match all scanned images against the current advisories.

    Looks up every package, and updates findings and decisions. Workers do this when the advisories change. No
    registry is contacted and no image is read.
    """
    from scanner import catalog
    from scanner.services import jobs as job_use_cases
    from scanner.store import jobs
    from scanner.worker import maintenance

    database = _needed_database(settings)
    if cancel:
        with database.session() as session:
            running = [j for j in jobs.list_jobs(session, [jobs.REMATCH]) if not j.state.terminal]
            for job in running:
                job_use_cases.cancel(session, COMMAND_LINE, job.id)
        tell(f"{len(running)} jobs stopped" if len(running) != 1 else "1 job stopped")
        return Exit.OK
    engine = choose(catalog.engines(), settings.engine, "engine")
    if not engine.looks_up:
        raise UsageError(
            f"{engine.id} cannot look packages up without an image",
            hint="Clair notifies Dockwarden of new advisories: see docs/advisories.md",
        )
    with database.read() as session:
        on = maintenance.current(settings, engine, session)
    job_id = maintenance.request_rematch(database, on, "command line")
    if no_wait:
        tell(f"queued: {job_id}")
        return Exit.OK
    return _work_or_follow(settings, database, job_id, {jobs.REMATCH: [maintenance.key_of(on)]})


@advisories.command("revoke")
@click.option("--engine", default="", help="Name of the engine; needs --version.")
@click.option("--version", "version_", default="", help="Version of the engine to revoke.")
@click.option(
    "--database",
    "digest",
    default="",
    metavar="DIGEST",
    help="Digest of the advisory database to revoke (see 'status').",
)
@click.option("--binary", default="", metavar="DIGEST", help="Digest of the engine's binary to revoke.")
@click.option("--reason", default="", help="Reason, shown with every affected decision.")
@pass_settings
def revoke(settings: Settings, engine: str, version_: str, digest: str, binary: str, reason: str) -> None:
    """Revoke an engine or an advisory database.

    Lists every decision that is based on it. These decisions are undecided from now on, and new scans are queued.
    """
    from scanner.services import revocations as use_cases
    from scanner.store import revocations

    if digest and binary:
        raise UsageError(
            "give exactly one of --engine with --version, --database, --binary",
            hint="--database DIGEST or --binary DIGEST",
        )
    what = revocations.parse_revoked(engine, version_, digest or binary)
    with _needed_database(settings).session() as session:
        revocation = use_cases.revoke(session, COMMAND_LINE, what, reason)
        names = revocations.affected_listings(session, what)
    for name in names:
        click.echo(
            f"{name.verdict:5}  {name.repository}{':' + name.tag if name.tag else ''}@{name.digest}  "
            f"{name.engine} {name.version}"
        )
    tell(
        f"revoked: {what} ({revocation.id}); {len(names)}{' or more' if len(names) >= 1000 else ''} decisions are "
        "based on it, and new scans of these images are queued"
    )


@advisories.command("revocations")
@click.option("--lift", metavar="ID", help="Lift the revocation.")
@pass_settings
def list_revocations(settings: Settings, lift: str | None) -> None:
    """List revocations, with those that were lifted."""
    from scanner.services import revocations as use_cases
    from scanner.store import revocations

    with _needed_database(settings).session() as session:
        if lift:
            use_cases.lift(session, COMMAND_LINE, lift)
        for item in revocations.list_revocations(session):
            state = f"lifted {item.lifted_at:%Y-%m-%d} by {item.lifted_by}" if item.lifted_at else "active"
            click.echo(
                f"{item.id}  {item.what}  {item.revoked_at:%Y-%m-%d %H:%M} by {item.revoked_by}: {state}  {item.reason}"
            )
