"""the index of queued requests

The condition of the index of queued requests is one that no other index can serve. PostgreSQL took the index of ready
scans for the same question, and read every queued scan for each delivery of a burst.

Revision ID: 0041
Revises: 0040
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

_NAME = "ux_scan_request_key"


def upgrade() -> None:
    _create("lower(state) = 'queued'")


def downgrade() -> None:
    _create("state = 'queued'")


def _create(condition: str) -> None:
    where = sa.text(condition)
    op.drop_index(_NAME, "scan")
    op.create_index(_NAME, "scan", ["request_key"], unique=True, sqlite_where=where, postgresql_where=where)
