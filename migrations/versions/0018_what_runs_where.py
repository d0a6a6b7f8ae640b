"""what runs where

A source (a host, a cluster, a project of Compose) reports its workloads as one snapshot. Each has its own decision.

Revision ID: 0018
Revises: 0017
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "inventory_source",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("environment", sa.String(64), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("workloads", sa.Integer(), nullable=False),
        sa.Column("reported_by", sa.String(200), nullable=False),
        sa.Column("reported_at", _TIME, nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_inventory_source"),
        sa.UniqueConstraint("environment", "source", "name", name="uq_inventory_source_environment_source_name"),
    )
    op.create_table(
        "running_workload",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uid", sa.String(36), nullable=False),
        sa.Column("source_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(400), nullable=False),
        sa.Column("facts_digest", sa.String(64), nullable=False),
        sa.Column("facts", sa.LargeBinary(), nullable=False),
        sa.Column("environment", sa.String(64), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("namespace", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("image", sa.String(1024), nullable=False),
        sa.Column("repository", sa.String(600), nullable=False),
        sa.Column("tag", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(140), nullable=False),
        sa.Column("by_tag", sa.Boolean(), nullable=False),
        sa.Column("first_seen", _TIME, nullable=False),
        sa.Column("image_since", _TIME, nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("undecided", sa.Boolean(), nullable=False),
        sa.Column("image_verdict", sa.String(16), nullable=False),
        sa.Column("image_undecided", sa.Boolean(), nullable=False),
        sa.Column("failed", sa.JSON(), nullable=False),
        sa.Column("results", sa.LargeBinary(), nullable=False),
        sa.Column("checked_with", sa.String(100), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("decided_at", _TIME, nullable=False),
        sa.Column("valid_until", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["source_id"],
            ["inventory_source.id"],
            name="fk_running_workload_source_id_inventory_source",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_running_workload"),
        sa.UniqueConstraint("source_id", "name", name="uq_running_workload_source_id_name"),
        sa.UniqueConstraint("uid", name="uq_running_workload_uid"),
    )
    for name, columns in (
        ("ix_running_workload_worst", ["rank", "id"]),
        ("ix_running_workload_environment", ["environment", "rank", "id"]),
        ("ix_running_workload_digest", ["digest", "environment"]),
        ("ix_running_workload_image", ["repository", "tag"]),
        ("ix_running_workload_valid_until", ["valid_until"]),
    ):
        op.create_index(name, "running_workload", columns)


def downgrade() -> None:
    op.drop_table("running_workload")
    op.drop_table("inventory_source")
