"""the version that fixes a finding, when a vulnerability was published, and saved views of more pages

Revision ID: 0032
Revises: 0029
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("finding", sa.Column("fixed", sa.String(200)))
    op.add_column("vulnerability", sa.Column("published", sa.Float(), nullable=False, server_default="0"))
    op.create_index("ix_vulnerability_newest", "vulnerability", ["severity", "published", "name"])
    op.drop_index("ix_vulnerability_severity", table_name="vulnerability")
    _saved_views(["owner", "page", "name"], "SELECT owner, 'images', name, query FROM saved_view", with_page=True)


def downgrade() -> None:
    former = "SELECT owner, name, query FROM saved_view WHERE page = 'images'"
    _saved_views(["owner", "name"], former, with_page=False)
    op.create_index("ix_vulnerability_severity", "vulnerability", ["severity", "name"])
    op.drop_index("ix_vulnerability_newest", table_name="vulnerability")
    with op.batch_alter_table("vulnerability") as batch:
        batch.drop_column("published")
    with op.batch_alter_table("finding") as batch:
        batch.drop_column("fixed")


def _saved_views(key: list[str], rows: str, *, with_page: bool) -> None:
    """Write the table anew: SQLite cannot change a primary key."""

    def page() -> list[sa.Column[str]]:
        return [sa.Column("page", sa.String(20), nullable=False, server_default="images")] if with_page else []

    op.create_table(
        "saved_view_new",
        sa.Column("owner", sa.String(64), nullable=False),
        *page(),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("query", sa.String(1000), nullable=False),
    )
    op.execute(f"INSERT INTO saved_view_new {rows}")
    op.drop_table("saved_view")
    op.create_table(
        "saved_view",
        sa.Column("owner", sa.String(64), nullable=False),
        *page(),
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("query", sa.String(1000), nullable=False),
        sa.PrimaryKeyConstraint(*key),
    )
    op.execute("INSERT INTO saved_view SELECT * FROM saved_view_new")
    op.drop_table("saved_view_new")
