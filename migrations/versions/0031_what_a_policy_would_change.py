"""what a policy would change

Revision ID: 0031
Revises: 0028
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dry_run",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("owner_id", sa.String(200), nullable=False),
        sa.Column("projects", sa.JSON()),
        sa.Column("policy", sa.String(64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True)),
        sa.Column("images", sa.JSON(), nullable=False),
        sa.Column("workloads", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_dry_run_owner", "dry_run", ["owner_id", "policy", "created_at"])
    op.create_table(
        "dry_run_change",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("dry_run_id", sa.String(36), sa.ForeignKey("dry_run.id", ondelete="CASCADE"), nullable=False),
        sa.Column("subject", sa.String(16), nullable=False),
        sa.Column("change", sa.String(16), nullable=False),
        sa.Column("name", sa.String(1100), nullable=False),
        sa.Column("reference", sa.String(140), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("environment", sa.String(64), nullable=False),
        sa.Column("verdict_before", sa.String(16), nullable=False),
        sa.Column("verdict_after", sa.String(16), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("reasons", sa.Text(), nullable=False),
    )
    op.create_index("ix_dry_run_change_run", "dry_run_change", ["dry_run_id", "id"])


def downgrade() -> None:
    op.drop_table("dry_run_change")
    op.drop_table("dry_run")
    op.execute("DELETE FROM job WHERE kind = 'policy-dry-run'")
