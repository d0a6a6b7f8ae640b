"""how each day ended

Figures of each day and project, for the overview's trend; and an index for what is new since yesterday.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_FIGURES = ("allow", "warn", "deny", "undecided", "critical", "high", "medium", "low", "unknown", "fixable")


def upgrade() -> None:
    op.create_table(
        "trend",
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in _FIGURES),
        sa.PrimaryKeyConstraint("project", "day", name=op.f("pk_trend")),
    )
    op.create_index(op.f("ix_first_seen_at"), "first_seen", ["at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_first_seen_at"), table_name="first_seen")
    op.drop_table("trend")
