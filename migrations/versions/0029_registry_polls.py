"""registry polls

Revision ID: 0029
Revises: 0033
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "registry_poll",
        sa.Column("registry_id", sa.String(36), sa.ForeignKey("registry.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("seconds", sa.Integer(), nullable=False),
        sa.Column("include", sa.JSON(), nullable=False),
        sa.Column("exclude", sa.JSON(), nullable=False),
        sa.Column("next_epoch", sa.Float(), nullable=False),
        sa.Column("baseline_at", sa.DateTime(timezone=True)),
        sa.Column("last_at", sa.DateTime(timezone=True)),
        sa.Column("last", sa.JSON(), nullable=False),
    )
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "found_tag",
        sa.Column("id", serial, primary_key=True, autoincrement=True),
        sa.Column("registry_id", sa.String(36), sa.ForeignKey("registry.id", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("webhook_id", sa.String(36), sa.ForeignKey("webhook.id", ondelete="SET NULL")),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("repository", sa.String(600), nullable=False),
        sa.Column("tag", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(140), nullable=False),
        sa.Column("former", sa.String(140), nullable=False),
        sa.Column("scan_id", sa.String(36)),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_found_tag_registry", "found_tag", ["registry_id", "kind", "id"])
    op.create_index("ix_found_tag_webhook", "found_tag", ["webhook_id"])
    op.create_index("ix_found_tag_job", "found_tag", ["job_id"])
    op.create_index("ix_found_tag_found_at", "found_tag", ["found_at"])
    op.create_index("ix_scan_target", "scan", ["target"])


def downgrade() -> None:
    op.drop_index("ix_scan_target", "scan")
    op.drop_table("found_tag")
    op.drop_table("registry_poll")
