"""credentials of cloud registries

What a registry's user name and password are: its own, or those of a cloud that gives out tokens. And a token service
that gets them.

Revision ID: 0034
Revises: 0032
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0032"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("registry", sa.Column("credentials", sa.String(16), nullable=False, server_default="static"))
    op.add_column("registry", sa.Column("machine_role", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("registry", sa.Column("tenant", sa.String(255), nullable=False, server_default=""))
    op.add_column("registry", sa.Column("token_service", sa.String(261), nullable=False, server_default=""))


def downgrade() -> None:
    # The former version would send a cloud's secret to the registry as a password.
    op.execute("UPDATE registry SET username = '', password = NULL WHERE credentials <> 'static'")
    with op.batch_alter_table("registry") as table:
        table.drop_column("token_service")
        table.drop_column("tenant")
        table.drop_column("machine_role")
        table.drop_column("credentials")
