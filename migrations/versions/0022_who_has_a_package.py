"""who has a package

The images of a package are read in the order of the index, so that a page of them costs what it shows.

Revision ID: 0022
Revises: 0021
"""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_INDEX = "ix_image_component_component"


def upgrade() -> None:
    op.drop_index(_INDEX, "image_component")
    op.create_index(_INDEX, "image_component", ["component_id", "image_id"])


def downgrade() -> None:
    op.drop_index(_INDEX, "image_component")
    op.create_index(_INDEX, "image_component", ["component_id"])
