"""how repositories are found

An administrator can choose where the repositories of a registry are listed, instead of the best list that answers.

Revision ID: 0039
Revises: 0037
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0037"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("registry_poll", sa.Column("list_by", sa.String(16), nullable=False, server_default="auto"))


def downgrade() -> None:
    with op.batch_alter_table("registry_poll") as table:
        table.drop_column("list_by")
