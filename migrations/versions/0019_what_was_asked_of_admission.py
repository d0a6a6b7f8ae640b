"""what was asked of admission

Reviews of the admission webhook, for people to look at; and scans by the evidence that they found.

Revision ID: 0019
Revises: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "admission_review",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("token", sa.String(200), nullable=False),
        sa.Column("user", sa.String(253), nullable=False),
        sa.Column("operation", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(253), nullable=False),
        sa.Column("namespace", sa.String(253), nullable=False),
        sa.Column("name", sa.String(253), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("environment", sa.String(64), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("images", sa.JSON(), nullable=False),
        sa.Column("message", sa.String(1000), nullable=False),
    )
    op.create_index("ix_admission_review_outcome", "admission_review", ["outcome", "id"])
    op.create_index("ix_admission_review_at", "admission_review", ["at"])
    op.create_index("ix_scan_report", "scan", ["report_id"])


def downgrade() -> None:
    op.drop_index("ix_scan_report", "scan")
    op.drop_table("admission_review")
