"""what was decided stays

Decisions and the audit log could not be changed, but deleted; evidence and the versions of policies could be changed.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_KEPT = {
    "decision": ("DELETE", "a decision is not deleted"),
    "audit_log": ("DELETE", "the audit log is only added to"),
    "report": ("UPDATE", "evidence does not change"),
    "policy_version": ("UPDATE", "a version of a policy does not change"),
}


def upgrade() -> None:
    for table, (what, message) in _KEPT.items():
        name = f"{table}_kept"
        if op.get_bind().dialect.name == "sqlite":
            op.execute(f"CREATE TRIGGER {name} BEFORE {what} ON {table} BEGIN SELECT RAISE(ABORT, '{message}'); END")
            continue
        op.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{message}'; END $$"
        )
        op.execute(f"CREATE TRIGGER {name} BEFORE {what} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()")


def downgrade() -> None:
    for table in _KEPT:
        if op.get_bind().dialect.name == "sqlite":
            op.execute(f"DROP TRIGGER {table}_kept")
            continue
        op.execute(f"DROP TRIGGER {table}_kept ON {table}")
        op.execute(f"DROP FUNCTION {table}_kept()")
