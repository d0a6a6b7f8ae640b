"""evidence is about what was asked

A scan of one platform of an index used to decide for the whole index. Verdicts and listed images that rest on such a
scan go: the gate asks for a new scan. The evidence and its decisions stay. It is also noted of which scans the gate
has told that they failed.

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op
from sqlalchemy.engine import Connection

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_scan = sa.table("scan", sa.column("platform"), sa.column("report_id"))
_report = sa.table("report", sa.column("id"), sa.column("digest"), sa.column("body", sa.LargeBinary))
_verdict = sa.table("verdict", sa.column("report_id"))
_listing = sa.table("listing", sa.column("id"), sa.column("report_id"))
_dependants = [sa.table(name, sa.column("listing_id")) for name in ("listing_package", "rests_on")]


def upgrade() -> None:
    op.create_table(
        "scan_told",
        sa.Column("scan_id", sa.String(length=36), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["scan_id"], ["scan.id"], name=op.f("fk_scan_told_scan_id_scan"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("scan_id", name=op.f("pk_scan_told")),
    )
    connection = op.get_bind()
    for identifier in list(_partial(connection)):
        connection.execute(_verdict.delete().where(_verdict.c.report_id == identifier))
        listed = sa.select(_listing.c.id).where(_listing.c.report_id == identifier)
        for table in _dependants:
            connection.execute(table.delete().where(table.c.listing_id.in_(listed)))
        connection.execute(_listing.delete().where(_listing.c.report_id == identifier))


def _partial(connection: Connection) -> Iterator[str]:
    """Evidence of scans that were narrowed to a platform whose subject is not the one image that was examined."""
    narrowed = sa.select(_scan.c.report_id).where(_scan.c.platform.is_not(None), _scan.c.report_id.is_not(None))
    for identifier in connection.execute(narrowed.distinct()).scalars().all():
        row = connection.execute(sa.select(_report.c.digest, _report.c.body).where(_report.c.id == identifier)).first()
        if row is None:
            continue
        images = json.loads(zlib.decompress(row.body))["images"]
        if [item["image"]["manifest"]["digest"] for item in images] != [row.digest]:
            yield identifier


def downgrade() -> None:
    op.drop_table("scan_told")
