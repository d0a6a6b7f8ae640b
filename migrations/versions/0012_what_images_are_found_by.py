"""what images are found by

Whether something in them is exploited, who signed them, what they were built on: for the filters of the list.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("listing") as table:
        table.add_column(sa.Column("exploited", sa.Integer(), nullable=False, server_default="0"))
        table.add_column(sa.Column("signer", sa.String(length=200), nullable=False, server_default=""))
        table.add_column(sa.Column("base", sa.String(length=600), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("listing") as table:
        for name in ("base", "signer", "exploited"):
            table.drop_column(name)
