"""``dockwarden audit-log``: list, verify and export the audit log."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from scanner.commands._console import FILE, Exit, administration, cannot_write, complain, pass_settings, replacing, tell
from scanner.config import Settings, audit_key
from scanner.errors import UsageError
from scanner.model.plurals import number_of
from scanner.model.untrusted import clean_text
from scanner.services import audit_anchors
from scanner.services import audit_log as use_cases
from scanner.store import audit


@click.group("audit-log")
def audit_log() -> None:
    """The audit log (who did what): list, verify, export."""


@audit_log.command("verify")
@click.option(
    "--anchors",
    "file",
    type=FILE,
    help="File with the anchors of the chain. Default: DOCKWARDEN_AUDIT_ANCHORS, else a file under DOCKWARDEN_HOME.",
)
@pass_settings
def verify(settings: Settings, file: Path | None) -> Exit:
    """Verify that no entry was changed, removed, inserted or cut off the end.

    Exits with 3 and names the first broken entry if the log was changed."""
    # The default file may be missing, because no worker has written it yet. One that the user names must exist:
    # without it, a log whose end was cut off would verify as intact.
    if file is not None and not file.exists():
        raise UsageError(f"cannot read {file}: there is no such file")
    noted = audit_anchors.read(settings, file, warn=tell)
    with administration(settings) as session:
        found = audit.verify(session, audit_key(settings), noted)
    if found.broken is not None:
        complain(f"entry {found.broken}: {found.why}", hint=f"the {found.entries} entries before it are unchanged")
        return Exit.UNDECIDED
    elsewhere = (
        f"{len(noted)} of them anchored outside the database"
        if noted
        else "none of them anchored outside the database yet, so removed newest entries cannot be detected"
    )
    pruned = f"; {found.pruned} older ones were pruned, and a signed checkpoint stands for them" if found.pruned else ""
    tell(f"the chain is intact: {number_of(found.entries, 'entry', 'entries')}, {elsewhere}{pruned}")
    return Exit.OK


@audit_log.command("list")
@click.option("--actor", default="", help="Only this actor: a user's name, 'token NAME' or 'command line'.")
@click.option("--action", default="", help="Only actions with this prefix, such as policy or user.create.")
@click.option("--object", "object_", default="", help="Only entries about this target.")
@click.option(
    "--since",
    type=click.DateTime(),
    metavar="TIME",
    help="Only entries since this time (UTC): 2026-11-01 or 2026-11-01T12:00:00.",
)
@click.option(
    "-n", "--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="Maximum number of entries."
)
@pass_settings
def list_entries(settings: Settings, actor: str, action: str, object_: str, since: datetime | None, limit: int) -> None:
    """Show the newest entries, one sentence each. Use 'export' for JSON."""
    chosen = audit.Filter(actor, action, object_, since.replace(tzinfo=UTC) if since else None)
    with administration(settings) as session:
        shown = use_cases.readable(session, audit.list_entries(session, chosen, limit=limit).items)
    for line in shown:
        notes = f"  ({'; '.join(line.notes)})" if line.notes else ""
        place = f"  from {line.entry.address}" if line.entry.address else ""
        click.echo(f"{line.entry.at:%Y-%m-%d %H:%M:%S}  {clean_text(line.text + notes, 1000)}{place}")
    if not shown:
        tell("no entry matches" if chosen != audit.Filter() else "the audit log is empty")


@audit_log.command("export")
@click.option("-o", "--output", type=FILE, help="Write to this file instead of stdout.")
@click.option(
    "--since",
    type=click.DateTime(),
    metavar="TIME",
    help="Only entries since this time (UTC): 2026-11-01 or 2026-11-01T12:00:00.",
)
@click.option("--action", default="", help="Only actions with this prefix, such as policy or user.create.")
@pass_settings
def export(settings: Settings, output: Path | None, since: datetime | None, action: str) -> None:
    """Export entries as JSON lines, oldest first."""
    chosen = audit.Filter(action=action, since=since.replace(tzinfo=UTC) if since else None)
    with administration(settings) as session:
        if output is None:
            sys.stdout.buffer.writelines(audit.lines(session, chosen))
            sys.stdout.flush()
            return
        try:
            # A pipe or device is written to directly; a regular file is replaced only after the last line, never
            # half-written.
            with output.open("wb") if output.exists() and not output.is_file() else replacing(output) as out:
                out.writelines(audit.lines(session, chosen))
        except OSError as error:
            raise cannot_write(str(output), error) from error
