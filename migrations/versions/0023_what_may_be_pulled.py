"""what may be pulled

The blobs of each image, filled from the evidence that is there; and which door a call came to.

Revision ID: 0023
Revises: 0022
"""

from __future__ import annotations

import json
import zlib

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    door = sa.Column("door", sa.String(16), nullable=False, server_default="kubernetes")
    op.add_column("admission_review", door)
    op.create_index("ix_admission_review_door", "admission_review", ["door", "id"])
    blobs = op.create_table(
        "image_blob",
        sa.Column("blob", sa.String(140), primary_key=True),
        sa.Column("subject", sa.String(140), primary_key=True),
        sa.Column("digest", sa.String(140), primary_key=True),
    )
    op.create_index("ix_image_blob_subject", "image_blob", ["subject"])
    bind = op.get_bind()
    listed = bind.execute(sa.text("SELECT DISTINCT report_id FROM listing ORDER BY report_id")).scalars().all()
    seen: set[tuple[str, str, str]] = set()
    for report_id in listed:  # one at a time: a report may have megabytes
        found = bind.execute(sa.text("SELECT digest, body FROM report WHERE id = :id"), {"id": report_id}).one()
        rows = _blobs(found.digest, json.loads(zlib.decompress(found.body))) - seen
        seen |= rows
        if rows:
            names = ("blob", "subject", "digest")
            op.bulk_insert(blobs, [dict(zip(names, row, strict=True)) for row in sorted(rows)])


def _blobs(subject: str, document: dict[str, object]) -> set[tuple[str, str, str]]:
    rows = set()
    for item in document["images"]:  # type: ignore[attr-defined]
        image = item["image"]
        for blob in (image["config"]["digest"], *(layer["digest"] for layer in image["layers"])):
            rows.add((blob, subject, image["manifest"]["digest"]))
    return rows


def downgrade() -> None:
    op.drop_table("image_blob")
    op.drop_index("ix_admission_review_door", "admission_review")
    with op.batch_alter_table("admission_review") as table:
        table.drop_column("door")
