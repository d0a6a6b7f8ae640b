"""scans in traces

The trace context of the request that asked for a scan, so that a worker continues its trace.

Revision ID: 0033
Revises: 0027
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("scan", sa.Column("trace", sa.String(55), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("scan", "trace")
