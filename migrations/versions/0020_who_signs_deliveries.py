"""who signs deliveries

A webhook names the service account or the topic whose signature its deliveries must bear.

Revision ID: 0020
Revises: 0019
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not in a batch: SQLite would make the table anew, and other rows refer to it.
    op.add_column("webhook", sa.Column("sender", sa.String(400), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("webhook", "sender")
