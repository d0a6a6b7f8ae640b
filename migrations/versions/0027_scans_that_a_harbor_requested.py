"""scans that a Harbor requested

A registry says whether it is a Harbor that may request scans. The credentials of a request are kept, encrypted, until
its scan ends.

Revision ID: 0027
Revises: 0031
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("registry", sa.Column("harbor", sa.String(16), nullable=False, server_default="off"))
    op.create_table(
        "harbor_scan",
        sa.Column("id", sa.String(36), sa.ForeignKey("scan.id"), primary_key=True),
        sa.Column("token_id", sa.String(36), nullable=False),
        sa.Column("credentials", sa.LargeBinary()),
    )


def downgrade() -> None:
    op.drop_table("harbor_scan")
    op.drop_column("registry", "harbor")
