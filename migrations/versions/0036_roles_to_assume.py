"""roles to assume

The role in AWS that a registry's credentials assume, with the external ID that its trust policy asks for.

Revision ID: 0036
Revises: 0034
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0034"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("registry", sa.Column("role_arn", sa.String(600), nullable=False, server_default=""))
    op.add_column("registry", sa.Column("external_id", sa.String(1224), nullable=False, server_default=""))


def downgrade() -> None:
    # The former version would use the key or the machine's identity itself, which may be allowed much more.
    op.execute(
        "UPDATE registry SET username = '', password = NULL, machine_role = false, credentials = 'static'"
        " WHERE role_arn <> ''"
    )
    with op.batch_alter_table("registry") as table:
        table.drop_column("external_id")
        table.drop_column("role_arn")
