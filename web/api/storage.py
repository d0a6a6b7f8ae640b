"""Storage: what takes how much room, what a pruning removed, and asking for one."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from flask import Response
from pydantic import Field

from scanner.model.scan import ScanState
from scanner.services import retention
from web.api.base import Model, answer, blueprint
from web.auth import everywhere, permission, principal
from web.resources import resources

api = blueprint("storage", "Storage", "What is kept, for how long, and how much room it takes.")


class TableOut(Model):
    table: str
    rows: int
    bytes: int = Field(description="With its indexes.")


class DirectoryOut(Model):
    name: str
    bytes: int


class KeptOut(Model):
    setting: str
    kept: str = Field(description="Such as 90d; never: it is not pruned.")


class RemovedOut(Model):
    table: str
    label: str
    rows: int


class PruningOut(Model):
    id: UUID
    state: ScanState
    requested_by: str
    started_at: datetime
    finished_at: datetime | None
    removed: list[RemovedOut]
    message: str


class StorageOut(Model):
    """``measured_at``: when the tables were measured, at the end of the last pruning; null: now."""

    total_bytes: int = Field(description="Of the whole database.")
    measured_at: datetime | None
    tables: list[TableOut]
    directories: list[DirectoryOut] = Field(description="On the machine of this server.")
    kept: list[KeptOut]
    last_pruning: PruningOut | None


def show_run(run: retention.Run) -> PruningOut:
    removed = [
        RemovedOut(table=table, label=retention.label_of(table), rows=rows)
        for table, rows in sorted(run.removed.items(), key=lambda item: (-item[1], item[0]))
    ]
    return PruningOut(
        id=UUID(run.id),
        state=run.state,
        requested_by=run.requested_by,
        started_at=run.started_at,
        finished_at=run.finished_at,
        removed=removed,
        message=run.message,
    )


@api.get("/storage", responses={"200": StorageOut})
@permission("manage")
def index() -> Response:
    """What takes how much room, and what the last pruning removed"""
    everywhere()
    settings = resources().settings
    with resources().database.read() as session:
        found = retention.storage(session, settings)
    tables = [TableOut(table=size.table, rows=size.rows, bytes=size.bytes) for size in found.tables]
    document = StorageOut(
        total_bytes=found.total,
        measured_at=found.measured_at,
        tables=tables,
        directories=[DirectoryOut(name=name, bytes=size) for name, size in found.directories.items()],
        kept=[KeptOut(setting=item.variable, kept=str(item.kept)) for item in retention.kept(settings)],
        last_pruning=show_run(found.last) if found.last else None,
    )
    return answer(document)


@api.post("/storage/prune", responses={"202": PruningOut})
@permission("manage")
def prune() -> Response:
    """Remove now what is older than it is kept

    A worker does it, in small transactions; one at a time.
    """
    with resources().database.session() as session:
        job = retention.request(session, principal())
    return answer(show_run(retention.run_from_job(job)), 202)
