"""what registries are like

Each examination of a registry: asked for, running, ended, with what was found.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "registry_check",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("registry_id", sa.String(36), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("requested_by", sa.String(200), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("lease_until", sa.Float),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_epoch", sa.Float, nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("message", sa.String(1000), nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("incomplete", sa.Integer, nullable=False),
        sa.Column("document", sa.Text),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registry_check")),
        sa.ForeignKeyConstraint(
            ["registry_id"], ["registry.id"], name=op.f("fk_registry_check_registry_id_registry"), ondelete="CASCADE"
        ),
    )
    op.create_index("ix_registry_check_newest", "registry_check", ["registry_id", "created_epoch"])
    open_ = sa.text("ended_at IS NULL")
    op.create_index(
        "ux_registry_check_open",
        "registry_check",
        ["registry_id"],
        unique=True,
        sqlite_where=open_,
        postgresql_where=open_,
    )


def downgrade() -> None:
    op.drop_table("registry_check")
