"""trust roots

Whose signatures count, by name; and what verifiers remember, so that a rollback is noticed.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from scanner.store.schema import Moment, SafeText

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "trust_root",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("removed", sa.Boolean(), nullable=False),
        sa.Column("updated_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_trust_root")),
    )
    op.create_table(
        "trust_root_version",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("scheme", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.JSON(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("author", sa.String(length=200), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.ForeignKeyConstraint(["name"], ["trust_root.name"], name=op.f("fk_trust_root_version_name_trust_root")),
        sa.PrimaryKeyConstraint("name", "version", name=op.f("pk_trust_root_version")),
    )
    op.create_table(
        "trust_state",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("name", SafeText(1000), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_trust_state")),
    )


def downgrade() -> None:
    op.drop_table("trust_state")
    op.drop_table("trust_root_version")
    op.drop_table("trust_root")
