"""images below images

The stack of layers of each image, so that it is recognised as another's base. Filled from the evidence that there is.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import hashlib
import json
import zlib
from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = op.create_table(
        "image_stack",
        sa.Column("subject", sa.String(length=140), nullable=False),
        sa.Column("digest", sa.String(length=140), nullable=False),
        sa.Column("chain", sa.String(length=140), nullable=False),
        sa.Column("layers", sa.Integer(), nullable=False),
        sa.Column("history", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("subject", "digest", name=op.f("pk_image_stack")),
    )
    op.create_index(op.f("ix_image_stack_chain"), "image_stack", ["chain"])
    op.create_index("ix_image_stack_digest", "image_stack", ["digest"])
    _fill(op.get_bind(), table)


def downgrade() -> None:
    op.drop_table("image_stack")


def _fill(bind: sa.Connection, table: sa.Table) -> None:
    """One report at a time: a body is a megabyte, and there may be thousands."""
    report = sa.table("report", sa.column("id"), sa.column("digest"), sa.column("body", sa.LargeBinary))
    seen: set[tuple[str, str]] = set()
    for identifier in bind.execute(sa.select(report.c.id).order_by(report.c.id)).scalars().all():
        body = bind.execute(sa.select(report.c.body).where(report.c.id == identifier)).scalar_one()
        document = json.loads(zlib.decompress(body))
        subject = document["subject"]["digest"]
        for item in document["images"]:
            digest, config = item["image"]["manifest"]["digest"], item["image"]["config"]
            if config["diff_ids"] and (subject, digest) not in seen:
                seen.add((subject, digest))
                bind.execute(table.insert().values(_row(subject, digest, config)))


def _row(subject: str, digest: str, config: dict[str, object]) -> dict[str, object]:
    diff_ids, history, created = config["diff_ids"], config["history"], config["created"]
    assert isinstance(diff_ids, list) and isinstance(history, list)
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest()
    return {
        "subject": subject,
        "digest": digest,
        "chain": chain,
        "layers": len(diff_ids),
        "history": len(history),
        "created_at": datetime.fromisoformat(str(created)) if created else None,
    }
