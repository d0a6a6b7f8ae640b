"""agents of a source

Which agents report a source, how often the current one does, and which one was refused because of it. Sources that
report already have no agent until their next report.

Revision ID: 0042
Revises: 0041
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None

_TABLE = "inventory_source"


def upgrade() -> None:
    op.add_column(_TABLE, sa.Column("agents", sa.JSON, nullable=False, server_default="[]"))
    op.add_column(_TABLE, sa.Column("every_seconds", sa.Integer, nullable=False, server_default="0"))
    op.add_column(_TABLE, sa.Column("refused_agent", sa.String(600), nullable=False, server_default=""))
    op.add_column(_TABLE, sa.Column("refused_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    # Not as a batch: on SQLite that drops and replaces the table, and with it the workloads that refer to its rows.
    for name in ("refused_at", "refused_agent", "every_seconds", "agents"):
        op.drop_column(_TABLE, name)
