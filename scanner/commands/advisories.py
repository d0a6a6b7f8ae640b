"""``dockwarden advisories``: how old they are, where they come from, and how they are renewed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scanner.config import Settings
from scanner.console import Exit, complain, pass_settings, tell
from scanner.errors import ScannerError, UsageError

if TYPE_CHECKING:
    from scanner.advisories.sources import Source
    from scanner.model.finding import AdvisoryStatus


@click.group()
def advisories() -> None:
    """The vulnerability database, and the feeds about what is exploited."""


@dataclass(frozen=True)
class _Line:
    """One source, as ``status`` shows it. ``status`` None: there is nothing of it."""

    source: Source
    status: AdvisoryStatus | None
    mirror: str
    stale: bool

    def document(self) -> dict[str, object]:
        found, said = self.status, self.source
        return {
            "source": said.name,
            "version": found.version if found else None,
            "updated_at": _iso(found.updated_at) if found else None,
            "downloaded_at": _iso(found.downloaded_at) if found else None,
            "next_update": _iso(found.next_update) if found else None,
            "digest": found.digest if found else None,
            "age_hours": round(_age(found).total_seconds() / 3600, 1) if found and found.updated_at else None,
            "stale": self.stale,
            "origin": said.origin or None,
            "mirror": self.mirror or None,
            "checked_at": _iso(_moment(said.checked)),
            "next_check_at": _iso(_moment(said.next_check)) if self.mirror else None,
            "failed_at": _iso(_moment(said.failed)),
            "failures": said.failures,
            "failure": said.failure or None,
        }

    def text(self) -> list[str]:
        found, said = self.status, self.source
        if found is None:
            head = f"{said.name}: none"
        else:
            built = (
                f"built {found.updated_at:%Y-%m-%d %H:%M} UTC, {_span(_age(found))} ago"
                if found.updated_at
                else "no date"
            )
            head = f"{said.name} {found.version}: {built}{'  TOO OLD' if self.stale else ''}"
        lines = [head]
        if found is not None:
            came = f"came {found.downloaded_at:%Y-%m-%d %H:%M}" if found.downloaded_at else "in force"
            lines.append(
                f"  {came}{' from ' + said.origin if said.origin else ''}; {found.digest.short if found.digest else 'no digest'}"
            )
            if found.next_update:
                lines.append(f"  its publisher's next one was due {found.next_update:%Y-%m-%d %H:%M} UTC")
        next_check = _moment(said.next_check)
        asked = f"asked again {next_check:%Y-%m-%d %H:%M} UTC" if next_check else "asked at the next start"
        lines.append(f"  mirror {self.mirror}: {asked}" if self.mirror else "  no mirror is configured: import files")
        failed = _moment(said.failed)
        if said.failure and failed:
            lines.append(
                f"  the last update FAILED {failed:%Y-%m-%d %H:%M} UTC ({said.failures} in a row): {said.failure}"
            )
        return lines


def _age(status: AdvisoryStatus) -> timedelta:
    assert status.updated_at is not None
    return datetime.now(UTC) - status.updated_at


def _span(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


@advisories.command("status")
@click.option("--format", "format_", default="table", type=click.Choice(["table", "json"]), show_default=True)
@pass_settings
def show_status(settings: Settings, format_: str) -> Exit:
    """How old the advisories are, where they came from, and how the last update went.

    Exit 3 when there is no vulnerability database, or one older than DOCKWARDEN_ADVISORIES_MAX_AGE_HOURS.
    """
    from scanner.advisories import sources

    noted, mirrors = sources.known(settings), sources.configured(settings)
    oldest = timedelta(hours=settings.advisories_max_age_hours)
    lines = []
    for name in sources.SOURCES:
        status = sources.in_force(settings, name)
        if name == sources.JAVA and not mirrors.get(name):
            continue
        stale = bool(status and (status.updated_at is None or _age(status) > oldest))
        lines.append(_Line(noted[name], status, mirrors.get(name, ""), stale))
    if format_ == "json":
        click.echo(json.dumps({"engine": settings.engine, "sources": [line.document() for line in lines]}, indent=2))
    else:
        click.echo("\n".join(text for line in lines for text in line.text()))
    first = lines[0]
    if first.status is None:
        complain(
            "there is no vulnerability database: nothing that is scanned can be called clean",
            "dockwarden advisories import FILE",
        )
    return Exit.OK if first.status and not first.stale else Exit.UNDECIDED


@advisories.command("update")
@click.argument("names", nargs=-1, metavar="[SOURCE]...")
@pass_settings
def update(settings: Settings, names: tuple[str, ...]) -> Exit:
    """Ask the configured mirrors now, and put what is new in force.

    SOURCE: trivy-db, trivy-java-db, kev, epss; all that are configured without. What is in force stays so when an update fails.
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


@advisories.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@pass_settings
def import_(settings: Settings, file: Path) -> None:
    """Verify a file and put it in force, atomically: what an air-gapped site does.

    FILE: a Trivy database (db.tar.gz, javadb.tar.gz, or a directory), CISA's KEV catalogue (JSON or CSV), EPSS scores (CSV, CSV.gz).
    """
    from scanner.advisories import sources

    tell(_describe(sources.import_file(settings, file)))


def _describe(status: AdvisoryStatus | None) -> str:
    if status is None:
        return "in force"
    built = f"{status.updated_at:%Y-%m-%d %H:%M} UTC" if status.updated_at else "an unknown date"
    return f"in force: {status.source} {status.version}, built {built}, {status.digest}"
