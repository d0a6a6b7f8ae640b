"""vulnerabilities, worst first

An index that lists the vulnerabilities of a severity in the order of their names.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_vulnerability_severity"), "vulnerability", ["severity", "name"])


def downgrade() -> None:
    op.drop_index(op.f("ix_vulnerability_severity"), table_name="vulnerability")
