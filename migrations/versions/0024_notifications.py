"""notifications

Channels, subscriptions and messages. The outbox is read from now on, and its rows have another form: those of before
were read by nothing, and go.

Revision ID: 0024
Revises: 0023
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.drop_table("outbox")
    op.create_table(
        "outbox",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("event_id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(300), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("routed_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("event_id", name="uq_outbox_event_id"),
    )
    _partial("ix_outbox_unrouted", "outbox", ["id"], "routed_at IS NULL")
    op.create_index("ix_outbox_created_at", "outbox", ["created_at"])
    op.create_table(
        "notification_channel",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("format", sa.String(64), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("secrets", sa.LargeBinary()),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(200), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("delivered_at", _TIME),
        sa.Column("message", sa.String(1000), nullable=False),
        sa.Column("paused_until", sa.Float()),
        sa.Column("lease_until", sa.Float()),
        sa.Column("worker", sa.String(100), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notification_channel"),
    )
    op.create_table(
        "notification_subscription",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("channel_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("owner_id", sa.String(36), nullable=False),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("recipient", sa.String(320), nullable=False),
        sa.Column("kinds", sa.JSON(), nullable=False),
        sa.Column("condition", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(16), nullable=False),
        sa.Column("group_seconds", sa.Integer(), nullable=False),
        sa.Column("quiet_from", sa.String(5), nullable=False),
        sa.Column("quiet_to", sa.String(5), nullable=False),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(200), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notification_subscription"),
        _channel_key("notification_subscription"),
    )
    op.create_index("ix_notification_subscription_channel_id", "notification_subscription", ["channel_id"])
    op.create_index("ix_notification_subscription_owner_id", "notification_subscription", ["owner_id"])
    op.create_table(
        "notification",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("uid", sa.String(36), nullable=False),
        sa.Column("channel_id", sa.String(36), nullable=False),
        sa.Column("subscription_id", sa.String(36), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("group_key", sa.String(700), nullable=False),
        sa.Column("resolved", sa.Boolean(), nullable=False),
        sa.Column("title", sa.String(400), nullable=False),
        sa.Column("level", sa.String(16), nullable=False),
        sa.Column("recipient", sa.String(320), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Float(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("message", sa.String(1000), nullable=False),
        sa.Column("answer", sa.String(1000), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notification"),
        sa.UniqueConstraint("uid", name="uq_notification_uid"),
        _channel_key("notification"),
    )
    op.create_index("ix_notification_due", "notification", ["channel_id", "state", "next_at"])
    op.create_index("ix_notification_state", "notification", ["state", "id"])
    op.create_index("ix_notification_ended_at", "notification", ["ended_at"])
    _partial(
        "ux_notification_collecting",
        "notification",
        ["subscription_id", "group_key"],
        "state = 'collecting'",
        unique=True,
    )
    op.create_table(
        "notification_subject",
        sa.Column("notification_id", _SERIAL, nullable=False),
        sa.Column("subject", sa.String(300), nullable=False),
        sa.Column("subscription_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("notification_id", "subject", name="pk_notification_subject"),
        sa.ForeignKeyConstraint(
            ["notification_id"],
            ["notification.id"],
            name="fk_notification_subject_notification_id_notification",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "ix_notification_subject_order", "notification_subject", ["subscription_id", "subject", "notification_id"]
    )
    op.create_table(
        "alert",
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("project", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(300), nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("kind", "project", "subject", name="pk_alert"),
    )


def downgrade() -> None:
    for table in ("alert", "notification_subject", "notification", "notification_subscription", "notification_channel"):
        op.drop_table(table)
    op.drop_table("outbox")
    op.create_table(
        "outbox",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(140), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("sent_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )


def _channel_key(table: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_channel_id_notification_channel"
    return sa.ForeignKeyConstraint(["channel_id"], ["notification_channel.id"], name=name, ondelete="CASCADE")


def _partial(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)
