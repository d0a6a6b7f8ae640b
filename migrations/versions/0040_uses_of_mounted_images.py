"""uses of mounted images

An index of the images that running workloads mount, so that a vulnerability, a search for packages and retention count
them as they count the images that run.

Revision ID: 0040
Revises: 0039
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None

_AT_ONCE = 500


def upgrade() -> None:
    table = op.create_table(
        "running_mount",
        sa.Column(
            "workload_id",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            sa.ForeignKey("running_workload.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("repository", sa.String(600), nullable=False),
        sa.Column("tag", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(140), nullable=False),
    )
    op.create_index("ix_running_mount_digest", "running_mount", ["digest"])
    op.create_index("ix_running_mount_image", "running_mount", ["repository", "tag"])
    workload = sa.table("running_workload", sa.column("id", sa.BigInteger), sa.column("mounted", sa.JSON))
    named = sa.cast(workload.c.mounted, sa.Text) != "[]"
    rows = [
        {"workload_id": row.id, "position": position, **{name: each[name] for name in ("repository", "tag", "digest")}}
        for row in op.get_bind().execute(sa.select(workload).where(named))
        for position, each in enumerate(row.mounted)
    ]
    for start in range(0, len(rows), _AT_ONCE):
        op.bulk_insert(table, rows[start : start + _AT_ONCE])


def downgrade() -> None:
    op.drop_table("running_mount")
