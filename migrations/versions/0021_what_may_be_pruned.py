"""what may be pruned

Indexes for what retention asks before it deletes, and two rules of the database itself: a decision is deleted by
retention only, and an entry of the audit log only where a checkpoint covers it.

Revision ID: 0021
Revises: 0020
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# A foreign key's referring column needs an index: without one, each deleted row is a scan of the whole referring table.
_INDEXES = {
    "ix_delivery_scan_scan_id": ("delivery_scan", ["scan_id"]),
    "ix_scan_merged_into": ("scan", ["merged_into"]),
    "ix_idempotency_scan_id": ("idempotency", ["scan_id"]),
    "ix_listing_report_id": ("listing", ["report_id"]),
    "ix_finding_component": ("finding", ["component_id", "vulnerability_id"]),
    "ix_first_seen_component": ("first_seen", ["component_id"]),
    "ix_first_seen_vulnerability": ("first_seen", ["vulnerability_id"]),
    "ix_decision_scan_id": ("decision", ["scan_id"]),
    "ix_verdict_decision_id": ("verdict", ["decision_id"]),
    "ix_verdict_report_id": ("verdict", ["report_id"]),
}
_PERMITS = {
    "decision": ("a decision is not deleted", "SELECT 1 FROM job WHERE kind = 'retention' AND state = 'running'"),
    "audit_log": ("the audit log is only added to", "SELECT 1 FROM audit_checkpoint WHERE seq >= OLD.id"),
}


def upgrade() -> None:
    op.create_table(
        "audit_checkpoint",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mac", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_checkpoint")),
    )
    for name, (table, columns) in _INDEXES.items():
        op.create_index(name, table, columns)
    for table, (message, permit) in _PERMITS.items():
        _drop(table)
        if op.get_bind().dialect.name == "sqlite":
            op.execute(
                f"CREATE TRIGGER {table}_kept BEFORE DELETE ON {table} WHEN NOT EXISTS ({permit}) "
                f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
            )
            continue
        body = f"BEGIN IF NOT EXISTS ({permit}) THEN RAISE EXCEPTION '{message}'; END IF; RETURN OLD; END"
        op.execute(f"CREATE FUNCTION {table}_kept() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
        op.execute(f"CREATE TRIGGER {table}_kept BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_kept()")


def downgrade() -> None:
    for table, (message, _) in _PERMITS.items():
        _drop(table)
        if op.get_bind().dialect.name == "sqlite":
            op.execute(
                f"CREATE TRIGGER {table}_kept BEFORE DELETE ON {table} BEGIN SELECT RAISE(ABORT, '{message}'); END"
            )
            continue
        body = f"BEGIN RAISE EXCEPTION '{message}'; END"
        op.execute(f"CREATE FUNCTION {table}_kept() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
        op.execute(f"CREATE TRIGGER {table}_kept BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_kept()")
    for name, (table, _) in _INDEXES.items():
        op.drop_index(name, table)
    op.drop_table("audit_checkpoint")


def _drop(table: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"DROP TRIGGER {table}_kept")
        return
    op.execute(f"DROP TRIGGER {table}_kept ON {table}")
    op.execute(f"DROP FUNCTION {table}_kept()")
