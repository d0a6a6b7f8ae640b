"""two secrets while rotating

A webhook keeps its former secret, valid as well, until the registry has been moved to the new one.

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("webhook") as table:
        table.add_column(sa.Column("previous_secret", sa.LargeBinary))
        table.add_column(sa.Column("rotated_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    with op.batch_alter_table("webhook") as table:
        table.drop_column("rotated_at")
        table.drop_column("previous_secret")
