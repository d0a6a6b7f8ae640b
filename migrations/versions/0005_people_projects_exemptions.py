"""people, projects, exemptions

Projects own repositories, policies and members; users may come from an identity provider; what people accepted and
what suppliers stated is kept beside the policies.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _added() -> tuple[tuple[str, sa.Column[object]], ...]:
    return (
        ("project", sa.Column("description", sa.String(400), nullable=False, server_default="")),
        ("project", sa.Column("patterns", sa.JSON, nullable=False, server_default="[]")),
        ("project", sa.Column("groups", sa.JSON, nullable=False, server_default="[]")),
        ("user_account", sa.Column("issuer", sa.String(400), nullable=False, server_default="")),
        ("user_account", sa.Column("subject", sa.String(255), nullable=False, server_default="")),
        ("user_account", sa.Column("signed_in_at", _MOMENT)),
        ("web_session", sa.Column("address", sa.String(64), nullable=False, server_default="")),
        ("web_session", sa.Column("agent", sa.String(200), nullable=False, server_default="")),
        ("policy", sa.Column("project", sa.String(64), nullable=False, server_default="")),
    )


def upgrade() -> None:
    for table, column in _added():
        op.add_column(table, column)
    op.create_index(
        "ux_user_account_subject",
        "user_account",
        ["issuer", "subject"],
        unique=True,
        sqlite_where=sa.text("issuer <> ''"),
        postgresql_where=sa.text("issuer <> ''"),
    )
    op.create_index("ix_verdict_valid_until", "verdict", ["valid_until"])
    op.create_table(
        "project_member",
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("added_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["user_account.id"], name="fk_project_member_user_id_user_account"),
        sa.PrimaryKeyConstraint("user_id", "project", name="pk_project_member"),
    )
    op.create_index("ix_project_member_project", "project_member", ["project"])
    op.create_table(
        "exemption",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("images", sa.JSON, nullable=False),
        sa.Column("rule", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("purl", sa.String(1000), nullable=False),
        sa.Column("justification", sa.String(2000), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("owner_id", sa.String(50), nullable=False),
        sa.Column("requested_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("decided_by", sa.String(200), nullable=False),
        sa.Column("decided_at", _MOMENT),
        sa.Column("ended_by", sa.String(200), nullable=False),
        sa.Column("ended_at", _MOMENT),
        sa.Column("note", sa.String(2000), nullable=False),
        sa.Column("while_unfixed", sa.Boolean, nullable=False),
        sa.Column("while_unexploited", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_exemption"),
    )
    op.create_index("ix_exemption_project", "exemption", ["project", "state"])
    op.create_index("ix_exemption_requested", "exemption", ["requested_at", "id"])
    op.create_table(
        "vex_document",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("name", sa.String(1000), nullable=False),
        sa.Column("author", sa.String(400), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(140), nullable=False),
        sa.Column("statements", sa.Integer, nullable=False),
        sa.Column("imported_by", sa.String(200), nullable=False),
        sa.Column("imported_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_vex_document"),
        sa.UniqueConstraint("project", "digest", name="uq_vex_document_project_digest"),
    )
    op.create_table(
        "vex_statement",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("document_id", sa.String(36), nullable=False),
        sa.Column("vulnerability", sa.String(128), nullable=False),
        sa.Column("products", sa.JSON, nullable=False),
        sa.Column("subcomponents", sa.JSON, nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("justification", sa.String(200), nullable=False),
        sa.Column("impact", sa.String(2000), nullable=False),
        sa.Column("stated_at", _MOMENT),
        sa.ForeignKeyConstraint(["document_id"], ["vex_document.id"], name="fk_vex_statement_document_id_vex_document"),
        sa.PrimaryKeyConstraint("id", name="pk_vex_statement"),
    )
    op.create_index("ix_vex_statement_document_id", "vex_statement", ["document_id"])
    op.create_index("ix_vex_statement_vulnerability", "vex_statement", ["vulnerability"])


def downgrade() -> None:
    for table in ("vex_statement", "vex_document", "exemption", "project_member"):
        op.drop_table(table)
    op.drop_index("ix_verdict_valid_until", "verdict")
    op.drop_index("ux_user_account_subject", "user_account")
    for table, column in reversed(_added()):
        op.drop_column(table, column.name)
