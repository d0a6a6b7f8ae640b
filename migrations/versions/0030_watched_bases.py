"""watched bases

The base of each image as a row, and the tags of bases that are polled. Filled from the evidence that there is.

Revision ID: 0030
Revises: 0026
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    image_base = op.create_table(
        "image_base",
        sa.Column("listing_id", number, nullable=False),
        sa.Column("image", sa.String(length=140), nullable=False),
        sa.Column("repository", sa.String(length=600), nullable=False),
        sa.Column("tag", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=140), nullable=False),
        sa.ForeignKeyConstraint(
            ["listing_id"], ["listing.id"], name=op.f("fk_image_base_listing_id_listing"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("listing_id", "image", name=op.f("pk_image_base")),
    )
    op.create_index("ix_image_base_name", "image_base", ["repository", "tag"])
    base_watch = op.create_table(
        "base_watch",
        sa.Column("repository", sa.String(length=600), nullable=False),
        sa.Column("tag", sa.String(length=128), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=140), nullable=False, server_default=""),
        sa.Column("members", sa.JSON(), nullable=False, server_default="[]"),
        sa.Column("seen_at", sa.DateTime(timezone=True)),
        sa.Column("asked_at", sa.DateTime(timezone=True)),
        sa.Column("ask_epoch", sa.Float(), nullable=False, server_default="0"),
        sa.Column("look_epoch", sa.Float(), nullable=False, server_default="0"),
        sa.Column("failures", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("reason", sa.String(length=64), nullable=False, server_default=""),
        sa.Column("message", sa.String(length=1000), nullable=False, server_default=""),
        sa.Column("scans", sa.JSON(), nullable=False, server_default="[]"),
        sa.Column("reported", sa.String(length=140), nullable=False, server_default=""),
        sa.Column("comparison", sa.JSON()),
        sa.PrimaryKeyConstraint("repository", "tag", "project", name=op.f("pk_base_watch")),
    )
    op.create_index("ix_base_watch_ask", "base_watch", ["ask_epoch"])
    op.create_index("ix_base_watch_look", "base_watch", ["look_epoch"])
    _fill(op.get_bind(), image_base, base_watch)


def downgrade() -> None:
    op.drop_table("base_watch")
    op.drop_table("image_base")


def _fill(bind: sa.Connection, image_base: sa.Table, base_watch: sa.Table) -> None:
    """One report at a time: a body is a megabyte, and there may be thousands."""
    listing = sa.table("listing", sa.column("id"), sa.column("project"), sa.column("report_id"))
    report = sa.table("report", sa.column("id"), sa.column("body", sa.LargeBinary))
    rows = bind.execute(sa.select(listing.c.id, listing.c.project, listing.c.report_id).order_by(listing.c.report_id))
    watched: set[tuple[str, str, str]] = set()
    last, bases = "", list[dict[str, str]]()
    for row in rows.all():
        if row.report_id != last:
            body = bind.execute(sa.select(report.c.body).where(report.c.id == row.report_id)).scalar_one()
            last, bases = row.report_id, _bases(json.loads(zlib.decompress(body)))
        for base in bases:
            bind.execute(image_base.insert().values(listing_id=row.id, **base))
            name = (base["repository"], base["tag"], row.project)
            if name not in watched:
                watched.add(name)
                values = dict(zip(("repository", "tag", "project"), name, strict=True))
                bind.execute(base_watch.insert().values(**values, members=[], scans=[]))


def _bases(document: dict[str, Any]) -> list[dict[str, str]]:
    """The tagged base of each image, once for each image."""
    found = {}
    for item in document["images"]:
        base = item.get("base") or {}
        repository, _, tag = base.get("reference", "").partition("@")[0].rpartition(":")
        if repository and "/" not in tag and len(repository) <= 600 and len(tag) <= 128:
            image = item["image"]["manifest"]["digest"]
            digest = base.get("digest") or ""
            found[image] = {"image": image, "repository": repository, "tag": tag, "digest": digest}
    return list(found.values())
