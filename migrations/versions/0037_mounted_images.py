"""mounted images

The images whose files a running workload mounts, with what was decided about each. Workloads that were reported before
are evaluated again, because their verdict did not include these images.

Revision ID: 0037
Revises: 0036
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("running_workload", sa.Column("mounted", sa.JSON, nullable=False, server_default="[]"))
    op.execute("UPDATE running_workload SET valid_until = 0")


def downgrade() -> None:
    with op.batch_alter_table("running_workload") as table:
        table.drop_column("mounted")
    op.execute("UPDATE running_workload SET valid_until = 0")
