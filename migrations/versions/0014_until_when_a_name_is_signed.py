"""until when a name is signed

When the first verified signature of a name ends, to be warned before it does.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("name_signature") as table:
        table.add_column(sa.Column("expires_at", sa.DateTime(timezone=True)))
        table.create_index(op.f("ix_name_signature_expires_at"), ["expires_at"])


def downgrade() -> None:
    with op.batch_alter_table("name_signature") as table:
        table.drop_index(op.f("ix_name_signature_expires_at"))
        table.drop_column("expires_at")
