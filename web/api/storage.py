"""Storage: sizes, retention, results of the last pruning, and requests for one."""

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

api = blueprint("storage", "Storage", "Sizes and retention of stored data.")


class TableOut(Model):
    table: str
    rows: int
    bytes: int = Field(description="Including indexes.")


class DirectoryOut(Model):
    name: str
    bytes: int


class KeptOut(Model):
    setting: str
    kept: str = Field(description="Retention period such as 90d; never: not pruned.")


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
    """``measured_at``: when the tables were measured, at the end of the last pruning; null: just now."""

    total_bytes: int = Field(description="Size of the whole database.")
    measured_at: datetime | None
    tables: list[TableOut]
    directories: list[DirectoryOut] = Field(description="Directories on this server's machine.")
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
    """Read sizes, retention and the last pruning"""
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
        kept=[KeptOut(setting=item.variable, kept=str(item.kept)) for item in retention.retention_settings(settings)],
        last_pruning=show_run(found.last) if found.last else None,
    )
    return answer(document)


@api.post("/storage/prune", responses={"202": PruningOut})
@permission("manage")
def prune() -> Response:
    """Prune data beyond its retention period now

    A worker does it in small transactions, one run at a time.
    """
    with resources().database.session() as session:
        job = retention.request(session, principal())
    return answer(show_run(retention.run_from_job(job)), 202)
