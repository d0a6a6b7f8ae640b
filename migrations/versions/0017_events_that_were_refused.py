"""events that were refused

A delivery keeps its events that were not taken, each with the reason, so that one bad event refuses no good one.

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Not in a batch: SQLite would make the table anew, and other rows refer to it.
    op.add_column("delivery", sa.Column("refused", sa.JSON(), nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("delivery", "refused")
