"""signed receipts

Keys, receipts and what is written beside images; a setting of each registry allows writing.

Revision ID: 0028
Revises: 0030
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("registry", sa.Column("write_receipts", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "receipt_key",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("public_pem", sa.Text(), nullable=False),
        sa.Column("private", sa.LargeBinary()),
        sa.Column("signs_from", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("number"),
    )
    op.create_table(
        "receipt",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("digest", sa.String(140), nullable=False),
        sa.Column("repository", sa.String(600), nullable=False),
        sa.Column("environment", sa.String(64), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("decision_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("undecided", sa.Boolean(), nullable=False),
        sa.Column("policy", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_until", sa.Float(), nullable=False),
        sa.Column("envelopes", sa.JSON(), nullable=False),
        sa.Column("superseded_at", sa.DateTime(timezone=True)),
    )
    current = sa.text("superseded_at IS NULL")
    op.create_index(
        "ix_receipt_current",
        "receipt",
        ["digest", "repository", "environment"],
        unique=True,
        sqlite_where=current,
        postgresql_where=current,
    )
    op.create_index("ix_receipt_digest", "receipt", ["digest", "issued_at"])
    op.create_index("ix_receipt_valid_until", "receipt", ["valid_until"])
    op.create_table(
        "receipt_push",
        sa.Column("digest", sa.String(140), primary_key=True),
        sa.Column("repository", sa.String(600), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("message", sa.String(1000), nullable=False),
        sa.Column("pushed_at", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_receipt_push_due", "receipt_push", ["state", "next_at"])


def downgrade() -> None:
    op.drop_table("receipt_push")
    op.drop_table("receipt")
    op.drop_table("receipt_key")
    with op.batch_alter_table("registry") as table:
        table.drop_column("write_receipts")
