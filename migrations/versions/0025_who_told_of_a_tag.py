"""who told of a tag

The ledger of tags says which source saw each move.

Revision ID: 0025
Revises: 0024
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tag_move", sa.Column("source", sa.String(32), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("tag_move", "source")
