"""who let a digest through

Revision ID: 0026
Revises: 0025
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "break_glass",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("digest", sa.String(140), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("opened_by", sa.String(200), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
        sa.Column("ended_by", sa.String(200), nullable=False, server_default=""),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_break_glass_digest", "break_glass", ["digest", "until"])


def downgrade() -> None:
    op.drop_table("break_glass")
