"""The tables.

Packages, vulnerabilities and images are stored once and linked. Decisions and evidence are immutable. Ids are random
UUIDs as text, times are UTC. ``…_epoch`` columns are seconds since 1970 by the database's clock, for comparisons in
SQL.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Moment(TypeDecorator[datetime]):
    """A timezone-aware datetime in UTC, also on SQLite, which stores no time zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class SafeText(TypeDecorator[str]):
    """Untrusted text. Characters that a database refuses (NUL, lone surrogates) become U+FFFD.

    Otherwise one package name in an image could make its whole scan fail.
    """

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return (
            value.replace("\0", "\N{REPLACEMENT CHARACTER}")
            .encode("utf-16", "surrogatepass")
            .decode("utf-16", "replace")
        )


class LongSafeText(SafeText):
    """``SafeText`` of any length."""

    impl = sa.Text
    cache_ok = True


def _id() -> sa.Column[str]:
    return sa.Column("id", sa.String(36), primary_key=True)


def _serial() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True)


project = sa.Table(
    "project",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("description", sa.String(400), nullable=False, default="", server_default=""),
    sa.Column("engine", sa.String(64), nullable=False, default="", server_default=""),  # "": the server's
    # Globs over host/repository that it owns.
    sa.Column("patterns", sa.JSON, nullable=False, default=list, server_default="[]"),
    # Groups of the identity provider whose users are members.
    sa.Column("groups", sa.JSON, nullable=False, default=list, server_default="[]"),
)
project_member = sa.Table(
    "project_member",
    metadata,
    sa.Column("user_id", sa.String(36), sa.ForeignKey("user_account.id"), primary_key=True),
    sa.Column("project", sa.String(64), primary_key=True),
    # "local": added by an administrator; "oidc": by a group at the last sign-in.
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("added_at", Moment, nullable=False),
    sa.Index("ix_project_member_project", "project"),
)

# Accounts

user = sa.Table(
    "user_account",
    metadata,
    _id(),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("password_hash", sa.String(400), nullable=False),
    sa.Column("role", sa.String(32), nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("created_at", Moment, nullable=False),
    # "": a local user with a password.
    sa.Column("issuer", sa.String(400), nullable=False, default="", server_default=""),
    sa.Column("subject", sa.String(255), nullable=False, default="", server_default=""),
    sa.Column("signed_in_at", Moment),
    sa.Index(
        "ux_user_account_subject",
        "issuer",
        "subject",
        unique=True,
        sqlite_where=sa.text("issuer <> ''"),
        postgresql_where=sa.text("issuer <> ''"),
    ),
)
token = sa.Table(
    "api_token",
    metadata,
    _id(),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("prefix", sa.String(32), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("projects", sa.JSON, nullable=False),
    sa.Column("owner_id", sa.String(36), sa.ForeignKey("user_account.id")),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("expires_at", Moment),
    sa.Column("last_used_at", Moment),
    sa.Column("revoked_at", Moment),
)
web_session = sa.Table(
    "web_session",
    metadata,
    sa.Column("id_hash", sa.String(64), primary_key=True),
    sa.Column("user_id", sa.String(36), sa.ForeignKey("user_account.id"), index=True),
    sa.Column("token_id", sa.String(36), sa.ForeignKey("api_token.id")),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("seen_at", Moment, nullable=False),
    sa.Column("expires_at", Moment, nullable=False),
    sa.Column("address", sa.String(64), nullable=False, default="", server_default=""),
    sa.Column("agent", SafeText(200), nullable=False, default="", server_default=""),
)
saved_view = sa.Table(
    "saved_view",
    metadata,
    sa.Column("owner", sa.String(64), primary_key=True),  # a principal's id
    sa.Column("page", sa.String(20), primary_key=True, default="images", server_default="images"),
    sa.Column("name", sa.String(60), primary_key=True),
    sa.Column("query", sa.String(1000), nullable=False),
)
audit_log = sa.Table(
    "audit_log",
    metadata,
    _serial(),
    sa.Column("at", Moment, nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("object", sa.String(400), nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("detail", sa.JSON, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)
# The beginning of the chain after pruning, signed; at most one row. See ``scanner.store.audit``.
audit_checkpoint = sa.Table(
    "audit_checkpoint",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, nullable=False),  # id of the last pruned entry
    sa.Column("hash", sa.String(64), nullable=False),  # of that entry
    sa.Column("entries", sa.BigInteger, nullable=False),  # number of pruned entries
    sa.Column("until", Moment, nullable=False),  # when that entry was written
    sa.Column("mac", sa.String(64), nullable=False),
)

# Registries, webhooks and deliveries

registry = sa.Table(
    "registry",
    metadata,
    _id(),
    sa.Column("host", sa.String(261), nullable=False, unique=True),
    sa.Column("insecure", sa.Boolean, nullable=False, default=False),
    sa.Column("ca_pem", sa.Text, nullable=False, default=""),
    sa.Column("username", sa.String(400), nullable=False, default=""),
    sa.Column("password", sa.LargeBinary),  # encrypted: scanner.store.secrets
    sa.Column("project", sa.String(64), nullable=False, default="default"),
    sa.Column("aliases", sa.JSON, nullable=False),
    # Whether it is a Harbor that may request scans, and what it then gets: off, vulnerabilities, findings.
    sa.Column("harbor", sa.String(16), nullable=False, default="off", server_default="off"),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("write_receipts", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    # What user name and password are: static, or those of a cloud (ecr, gar, acr). machine_role: no stored secret.
    sa.Column("credentials", sa.String(16), nullable=False, default="static", server_default="static"),
    sa.Column("machine_role", sa.Boolean, nullable=False, default=False, server_default=sa.false()),
    sa.Column("tenant", sa.String(255), nullable=False, default="", server_default=""),
    # The role in AWS that the credentials assume.
    sa.Column("role_arn", sa.String(600), nullable=False, default="", server_default=""),
    sa.Column("external_id", sa.String(1224), nullable=False, default="", server_default=""),
    # Another host that gets the credentials: the token service of the registry.
    sa.Column("token_service", sa.String(261), nullable=False, default="", server_default=""),
)
webhook = sa.Table(
    "webhook",
    metadata,
    _id(),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("format", sa.String(64), nullable=False),
    sa.Column("registry_id", sa.String(36), sa.ForeignKey("registry.id"), nullable=False),
    sa.Column("header", sa.String(64), nullable=False, default="Authorization"),  # empty: the format's default
    # The required signer of deliveries (a service account, a topic), for formats that are signed. Empty: none.
    sa.Column("sender", sa.String(400), nullable=False, default="", server_default=""),
    sa.Column("secret", sa.LargeBinary, nullable=False),  # encrypted
    # During a rotation: the old secret, which stays valid until the registry uses the new one. Encrypted.
    sa.Column("previous_secret", sa.LargeBinary),
    sa.Column("rotated_at", Moment),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
)
delivery = sa.Table(
    "delivery",
    metadata,
    _id(),
    sa.Column("webhook_id", sa.String(36), sa.ForeignKey("webhook.id"), nullable=False),
    sa.Column("key", sa.String(128), nullable=False),
    sa.Column("events", sa.Integer, nullable=False),
    sa.Column("outcome", sa.String(200), nullable=False),
    sa.Column("received_at", Moment, nullable=False),
    sa.Column("refused", sa.JSON, nullable=False, default=list, server_default="[]"),  # the first refused events
    sa.UniqueConstraint("webhook_id", "key"),
    sa.Index("ix_delivery_received_at", "received_at"),
)
delivery_scan = sa.Table(
    "delivery_scan",
    metadata,
    sa.Column("delivery_id", sa.String(36), sa.ForeignKey("delivery.id"), primary_key=True),
    sa.Column("scan_id", sa.String(36), sa.ForeignKey("scan.id"), primary_key=True),
    sa.Index("ix_delivery_scan_scan_id", "scan_id"),
)

# Reconciliation: how each registry is polled, and the tags that polls and imports found.
registry_poll = sa.Table(
    "registry_poll",
    metadata,
    sa.Column("registry_id", sa.String(36), sa.ForeignKey("registry.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seconds", sa.Integer, nullable=False, default=0),  # the interval; 0: no polls
    sa.Column("include", sa.JSON, nullable=False),  # patterns over repositories; none: all
    sa.Column("exclude", sa.JSON, nullable=False),
    sa.Column("list_by", sa.String(16), nullable=False, default="auto"),  # where repositories are listed: ListBy
    sa.Column("next_epoch", sa.Float, nullable=False, default=0.0),
    sa.Column("baseline_at", Moment),  # the end of the first complete poll: tags that are new since were pushed since
    sa.Column("last_at", Moment),  # the end of the last poll
    sa.Column("last", sa.JSON, nullable=False),  # its counts and errors
)
found_tag = sa.Table(
    "found_tag",
    metadata,
    _serial(),
    sa.Column("registry_id", sa.String(36), sa.ForeignKey("registry.id", ondelete="CASCADE"), nullable=False),
    # lost: of a webhook. unannounced: the registry has no webhook. first: there before the first poll. import.
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("webhook_id", sa.String(36), sa.ForeignKey("webhook.id", ondelete="SET NULL")),  # that lost the event
    sa.Column("job_id", sa.String(36), nullable=False),
    sa.Column("repository", sa.String(600), nullable=False),  # host/repository, as in the tag ledger
    sa.Column("tag", sa.String(128), nullable=False),
    sa.Column("digest", sa.String(140), nullable=False),
    sa.Column("former", sa.String(140), nullable=False, default=""),  # what the tag named before; empty: unknown
    sa.Column("scan_id", sa.String(36)),
    sa.Column("found_at", Moment, nullable=False),
    sa.Index("ix_found_tag_registry", "registry_id", "kind", "id"),
    sa.Index("ix_found_tag_webhook", "webhook_id"),
    sa.Index("ix_found_tag_job", "job_id"),
    sa.Index("ix_found_tag_found_at", "found_at"),
)

# Checks of registries with their results, and the queue of requested ones. The newest has the largest
# ``created_epoch``.
registry_check = sa.Table(
    "registry_check",
    metadata,
    _id(),
    sa.Column("registry_id", sa.String(36), sa.ForeignKey("registry.id", ondelete="CASCADE"), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("requested_by", sa.String(200), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("lease_until", sa.Float),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("created_epoch", sa.Float, nullable=False),
    sa.Column("ended_at", Moment),
    sa.Column("reason", sa.String(64), nullable=False, default=""),
    sa.Column("message", SafeText(1000), nullable=False, default=""),
    sa.Column("failed", sa.Integer, nullable=False, default=0),
    sa.Column("incomplete", sa.Integer, nullable=False, default=0),
    sa.Column("document", LongSafeText),  # the Posture's JSON
    sa.Index("ix_registry_check_newest", "registry_id", "created_epoch"),
    sa.Index(
        "ux_registry_check_open",
        "registry_id",
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    ),
)

# Trust roots, and the state of verifiers against rollback

trust_root = sa.Table(
    "trust_root",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("removed", sa.Boolean, nullable=False),  # its versions are kept, because decisions refer to them
    sa.Column("updated_at", Moment, nullable=False),
)
trust_root_version = sa.Table(
    "trust_root_version",
    metadata,
    sa.Column("name", sa.String(64), sa.ForeignKey("trust_root.name"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("scheme", sa.String(64), nullable=False),
    sa.Column("scope", sa.JSON, nullable=False),  # of host/repository
    sa.Column("document", sa.Text, nullable=False),  # JSON, public keys and certificates only
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
)
# The last result of each signature scheme for each name, for reports over all repositories.
name_signature = sa.Table(
    "name_signature",
    metadata,
    _serial(),
    sa.Column("project", sa.String(64), nullable=False),
    sa.Column("repository", sa.String(600), nullable=False),
    sa.Column("tag", sa.String(128), nullable=False),
    sa.Column("digest", sa.String(140), nullable=False),
    sa.Column("answers", sa.JSON, nullable=False),  # Verifications without the predicates of attestations
    sa.Column("updated_at", Moment, nullable=False),
    sa.Column("expires_at", Moment, index=True),  # of the verified signature that expires first; NULL: none expires
    sa.UniqueConstraint("project", "repository", "tag"),
)
trust_state = sa.Table(
    "trust_state",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),  # hex of the sha256 of ``name``
    sa.Column("name", SafeText(1000), nullable=False),  # the subject, such as a GUN, and its trust anchor
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("state", sa.LargeBinary, nullable=False),
    sa.Column("updated_at", Moment, nullable=False),
)

# Scans

# As a condition of SQL that the index of ready scans cannot serve. With ``state = 'queued'``, PostgreSQL may ask that
# index for a request's key: its statistics tell of few queued scans until a burst is analyzed, and then it reads them
# all for each key. Written out, because a bound parameter does not match the condition of a partial index.
IS_QUEUED = "lower(state) = 'queued'"
scan = sa.Table(
    "scan",
    metadata,
    _id(),
    sa.Column("target", sa.String(1024), nullable=False),
    sa.Column("platform", sa.String(100)),
    sa.Column("engine", sa.String(64), nullable=False),
    sa.Column("lane", sa.String(16), nullable=False),
    sa.Column("force", sa.Boolean, nullable=False, default=False),
    sa.Column("project", sa.String(64), nullable=False),
    sa.Column("requested_by", sa.String(200), nullable=False),
    sa.Column("source", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("stage", sa.String(16), nullable=False, default=""),
    sa.Column("progress", sa.JSON),
    sa.Column("reason", sa.String(64), nullable=False, default=""),
    sa.Column("message", SafeText(1000), nullable=False, default=""),
    sa.Column("digest", sa.String(140)),
    sa.Column("request_key", sa.String(64)),  # single flight while queued
    sa.Column("key", sa.String(64)),  # single flight while running: digest, platform, engine, advisories
    sa.Column("fence", sa.Integer, nullable=False, default=0),
    sa.Column("worker", sa.String(100), nullable=False, default=""),
    sa.Column("lease_until", sa.Float),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("lost", sa.Integer, nullable=False, default=0),
    sa.Column("next_at", sa.Float, nullable=False),
    sa.Column("created_epoch", sa.Float, nullable=False),
    sa.Column("kicked_epoch", sa.Float),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("started_at", Moment),
    sa.Column("finished_at", Moment),
    sa.Column("supersedes", sa.String(36)),
    sa.Column("merged_into", sa.String(36)),
    sa.Column("report_id", sa.String(64)),
    sa.Column("trace", sa.String(55), nullable=False, default="", server_default=""),  # W3C context; "": traces are off
    sa.Index("ix_scan_ready", "state", "lane", "next_at"),
    sa.Index("ix_scan_created", "created_epoch", "id"),
    sa.Index("ix_scan_digest", "digest"),
    sa.Index("ix_scan_target", "target"),
    sa.Index("ix_scan_report", "report_id"),
    sa.Index("ix_scan_merged_into", "merged_into"),
    sa.Index(
        "ux_scan_request_key",
        "request_key",
        unique=True,
        sqlite_where=sa.text(IS_QUEUED),
        postgresql_where=sa.text(IS_QUEUED),
    ),
    sa.Index(
        "ux_scan_key",
        "key",
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    ),
)
# What a Harbor sent with a scan that it requested. One row a scan.
harbor_scan = sa.Table(
    "harbor_scan",
    metadata,
    sa.Column("id", sa.String(36), sa.ForeignKey("scan.id"), primary_key=True),
    sa.Column("token_id", sa.String(36), nullable=False),  # nobody else gets the report by its id
    sa.Column("credentials", sa.LargeBinary),  # encrypted; NULL: none were sent, or the scan has ended
)
scan_attempt = sa.Table(
    "scan_attempt",
    metadata,
    sa.Column("scan_id", sa.String(36), sa.ForeignKey("scan.id"), primary_key=True),
    sa.Column("fence", sa.Integer, primary_key=True),
    sa.Column("worker", sa.String(100), nullable=False),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("ended_at", Moment),
    sa.Column("reason", sa.String(64), nullable=False, default=""),
    sa.Column("message", SafeText(1000), nullable=False, default=""),
)
# Failed scans that the gate has reported. A separate table, because ended rows of ``scan`` do not change.
scan_told = sa.Table(
    "scan_told",
    metadata,
    sa.Column("scan_id", sa.String(36), sa.ForeignKey("scan.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("told_at", Moment, nullable=False),
)
idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("key", sa.String(250), primary_key=True),
    sa.Column("scan_id", sa.String(36), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Index("ix_idempotency_scan_id", "scan_id"),
)
worker = sa.Table(
    "worker",
    metadata,
    sa.Column("id", sa.String(100), primary_key=True),
    sa.Column("seen_epoch", sa.Float, nullable=False),
    sa.Column("lanes", sa.String(100), nullable=False),
)

# Evidence

report = sa.Table(
    "report",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),  # hex of the evidence digest
    sa.Column("digest", sa.String(140), nullable=False, index=True),
    sa.Column("repository", sa.String(600), nullable=False),
    sa.Column("tag", sa.String(128), nullable=False),
    sa.Column("engine", sa.String(64), nullable=False),
    sa.Column("engine_version", sa.String(64), nullable=False),
    sa.Column("advisories", sa.String(100), nullable=False),
    sa.Column("platform", sa.String(100), nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),  # zlib of the ScanReport's JSON
)
image = sa.Table(
    "image",
    metadata,
    _serial(),
    sa.Column("digest", sa.String(140), nullable=False, unique=True),
    sa.Column("config_digest", sa.String(140), nullable=False),
    sa.Column("platform", sa.String(100), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created_at", Moment),
    sa.Column("first_seen", Moment, nullable=False),
)
# The layers of each image (chain id), to recognise base images. ``subject``: the digest of its tag, maybe an index.
image_stack = sa.Table(
    "image_stack",
    metadata,
    sa.Column("subject", sa.String(140), primary_key=True),
    sa.Column("digest", sa.String(140), primary_key=True),
    sa.Column("chain", sa.String(140), nullable=False, index=True),
    sa.Column("layers", sa.Integer, nullable=False),
    sa.Column("history", sa.Integer, nullable=False),
    sa.Column("created_at", Moment),
    sa.Index("ix_image_stack_digest", "digest"),
)
# Digests of the config and the layers of each image and artifact, as the registry stores them: which blobs may be
# pulled. ``subject``: the digest that the image's name resolved to, of an index or of the image itself.
image_blob = sa.Table(
    "image_blob",
    metadata,
    sa.Column("blob", sa.String(140), primary_key=True),
    sa.Column("subject", sa.String(140), primary_key=True),
    sa.Column("digest", sa.String(140), primary_key=True),
    sa.Index("ix_image_blob_subject", "subject"),
)
# One row for each name of a digest, for lists and searches.
listing = sa.Table(
    "listing",
    metadata,
    _serial(),
    sa.Column("project", sa.String(64), nullable=False),
    sa.Column("repository", sa.String(600), nullable=False),
    sa.Column("tag", sa.String(128), nullable=False),
    sa.Column("digest", sa.String(140), nullable=False),
    sa.Column("report_id", sa.String(64), sa.ForeignKey("report.id"), nullable=False),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("undecided", sa.Boolean, nullable=False),
    sa.Column("critical", sa.Integer, nullable=False),
    sa.Column("high", sa.Integer, nullable=False),
    sa.Column("medium", sa.Integer, nullable=False),
    sa.Column("low", sa.Integer, nullable=False),
    sa.Column("unknown", sa.Integer, nullable=False),
    sa.Column("fixable", sa.Integer, nullable=False),
    sa.Column("failed_checks", sa.Integer, nullable=False),
    sa.Column("incomplete", sa.Integer, nullable=False),
    sa.Column("exploited", sa.Integer, nullable=False, server_default="0"),  # findings known to be exploited
    sa.Column("signer", SafeText(200), nullable=False, server_default=""),  # the first verified signer by name
    sa.Column("base", SafeText(600), nullable=False, server_default=""),  # reference of the base image
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("scanned_at", Moment, nullable=False),
    sa.Column("scanned_epoch", sa.Float, nullable=False),
    sa.UniqueConstraint("project", "repository", "tag", "digest"),
    sa.Index("ix_listing_scanned", "scanned_epoch", "id"),
    sa.Index("ix_listing_digest", "digest"),
    sa.Index("ix_listing_report_id", "report_id"),
    sa.Index("ix_listing_verdict", "verdict", "scanned_epoch", "id"),
)
tag_move = sa.Table(
    "tag_move",
    metadata,
    _serial(),
    sa.Column("repository", sa.String(600), nullable=False),
    sa.Column("tag", sa.String(128), nullable=False),
    sa.Column("digest", sa.String(140), nullable=False),
    sa.Column("seen_at", Moment, nullable=False),
    sa.Column("source", SafeText(32), nullable=False, server_default=""),  # what asked for the scan that saw it
    sa.Index("ix_tag_move_name", "repository", "tag", "id"),
)
component = sa.Table(
    "component",
    metadata,
    _serial(),
    sa.Column("purl", SafeText(1000), nullable=False),
    sa.Column("name", SafeText(512), nullable=False, index=True),
    sa.Column("version", SafeText(512), nullable=False),
    sa.Column("type", SafeText(64), nullable=False),
    sa.UniqueConstraint("purl"),
)
image_component = sa.Table(
    "image_component",
    metadata,
    sa.Column(
        "image_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.ForeignKey("image.id"), primary_key=True
    ),
    sa.Column(
        "component_id",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        sa.ForeignKey("component.id"),
        primary_key=True,
    ),
    sa.Index("ix_image_component_component", "component_id", "image_id"),
)
vulnerability = sa.Table(
    "vulnerability",
    metadata,
    _serial(),
    sa.Column("name", SafeText(128), nullable=False, unique=True),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("title", SafeText(512), nullable=False),
    sa.Column("description", LongSafeText, nullable=False),
    sa.Column("url", SafeText(1000), nullable=False),
    sa.Column("document", sa.JSON, nullable=False),
    # When its advisory was published, in seconds since 1970. 0: unknown.
    sa.Column("published", sa.Float, nullable=False, default=0.0, server_default="0"),
    sa.Index("ix_vulnerability_newest", "severity", "published", "name"),
)
finding = sa.Table(
    "finding",
    metadata,
    sa.Column(
        "image_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.ForeignKey("image.id"), primary_key=True
    ),
    sa.Column(
        "component_id",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        sa.ForeignKey("component.id"),
        primary_key=True,
    ),
    sa.Column(
        "vulnerability_id",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        sa.ForeignKey("vulnerability.id"),
        primary_key=True,
    ),
    sa.Column("fixable", sa.Boolean, nullable=False),
    # The version to upgrade the package to; empty: none fixes it; NULL: written before the version was kept.
    sa.Column("fixed", SafeText(200)),
    sa.Index("ix_finding_vulnerability", "vulnerability_id", "image_id"),
    sa.Index("ix_finding_component", "component_id", "vulnerability_id"),
)
first_seen = sa.Table(
    "first_seen",
    metadata,
    sa.Column("repository", sa.String(600), primary_key=True),
    sa.Column("component_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("vulnerability_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("at", Moment, nullable=False),
    sa.Index("ix_first_seen_at", "at"),
    sa.Index("ix_first_seen_component", "component_id"),
    sa.Index("ix_first_seen_vulnerability", "vulnerability_id"),
)
# The last figures of each day. See ``scanner.store.trend``.
trend = sa.Table(
    "trend",
    metadata,
    sa.Column("project", sa.String(64), primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("noted_at", Moment, nullable=False),
    *(
        sa.Column(name, sa.Integer, nullable=False)
        for name in ("allow", "warn", "deny", "undecided", "critical", "high", "medium", "low", "unknown", "fixable")
    ),
)

# Policies and decisions

policy = sa.Table(
    "policy",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False, default=True),
    sa.Column("updated_at", Moment, nullable=False),
    sa.Column("project", sa.String(64), nullable=False, default="", server_default=""),  # "": for every project
)
policy_version = sa.Table(
    "policy_version",
    metadata,
    sa.Column("name", sa.String(64), sa.ForeignKey("policy.name"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("digest", sa.String(140), nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
)
decision = sa.Table(
    "decision",
    metadata,
    _serial(),
    sa.Column("digest", sa.String(140), nullable=False),
    sa.Column("repository", sa.String(600), nullable=False),
    sa.Column("policy", sa.String(64), nullable=False),
    sa.Column("policy_version", sa.Integer, nullable=False),
    sa.Column("environment", sa.String(64), nullable=False),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("undecided", sa.Boolean, nullable=False),
    sa.Column("evidence", sa.String(140), nullable=False),
    sa.Column("scan_id", sa.String(36)),
    sa.Column("decided_at", Moment, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Index("ix_decision_digest", "digest", "id"),
    sa.Index("ix_decision_scan_id", "scan_id"),
)
# The current decision for each (digest, repository, environment), for the gate's single look-up.
verdict = sa.Table(
    "verdict",
    metadata,
    sa.Column("digest", sa.String(140), primary_key=True),
    sa.Column("repository", sa.String(600), primary_key=True),
    sa.Column("environment", sa.String(64), primary_key=True),
    sa.Column("project", sa.String(64), nullable=False),
    sa.Column(
        "decision_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.ForeignKey("decision.id"), nullable=False
    ),
    sa.Column("report_id", sa.String(64), nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("valid_until", sa.Float),
    sa.Index("ix_verdict_valid_until", "valid_until"),
    sa.Index("ix_verdict_decision_id", "decision_id"),
    sa.Index("ix_verdict_report_id", "report_id"),
)

# Signed decisions. The keys that sign them; ``private`` is erased when a key has signed its last receipt.
receipt_key = sa.Table(
    "receipt_key",
    metadata,
    _id(),
    sa.Column("number", sa.Integer, nullable=False, unique=True),  # two processes that create the first key agree
    sa.Column("key_id", sa.String(64), nullable=False),
    sa.Column("public_pem", sa.Text, nullable=False),
    sa.Column("private", sa.LargeBinary),  # encrypted
    sa.Column("signs_from", sa.Float, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("revoked_at", Moment),
)
receipt = sa.Table(
    "receipt",
    metadata,
    _id(),
    sa.Column("digest", sa.String(140), nullable=False),
    sa.Column("repository", sa.String(600), nullable=False),
    sa.Column("environment", sa.String(64), nullable=False),
    sa.Column("project", sa.String(64), nullable=False),
    # Of the decision that is signed. No foreign key: decisions are pruned, and the receipt is complete without.
    sa.Column("decision_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("undecided", sa.Boolean, nullable=False),
    sa.Column("policy", sa.String(64), nullable=False),
    sa.Column("key_id", sa.String(64), nullable=False),
    sa.Column("issued_at", Moment, nullable=False),
    sa.Column("valid_until", sa.Float, nullable=False),
    sa.Column("envelopes", sa.JSON, nullable=False),  # DSSE envelopes by predicate type
    sa.Column("superseded_at", Moment),
    sa.Index(
        "ix_receipt_current",
        "digest",
        "repository",
        "environment",
        unique=True,
        sqlite_where=sa.text("superseded_at IS NULL"),
        postgresql_where=sa.text("superseded_at IS NULL"),
    ),
    sa.Index("ix_receipt_digest", "digest", "issued_at"),
    sa.Index("ix_receipt_valid_until", "valid_until"),
)
# What is written beside an image in its registry. One row for each image, with the state of the last attempt.
receipt_push = sa.Table(
    "receipt_push",
    metadata,
    sa.Column("digest", sa.String(140), primary_key=True),
    sa.Column("repository", sa.String(600), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False, default=0),  # raised when the receipts change
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("next_at", sa.Float, nullable=False),
    sa.Column("reason", sa.String(64), nullable=False, default=""),
    sa.Column("message", SafeText(1000), nullable=False, default=""),
    sa.Column("pushed_at", Moment),
    sa.Index("ix_receipt_push_due", "state", "next_at"),
)

# Calls of doors (Kubernetes admission, pulls, engines), for the page Enforcement. Kept for 30 days.
admission_review = sa.Table(
    "admission_review",
    metadata,
    _serial(),
    sa.Column("door", sa.String(16), nullable=False, default="kubernetes", server_default="kubernetes"),
    sa.Column("at", Moment, nullable=False),
    sa.Column("token", SafeText(200), nullable=False),
    sa.Column("user", SafeText(253), nullable=False),
    sa.Column("operation", sa.String(16), nullable=False),
    sa.Column("kind", SafeText(253), nullable=False),
    sa.Column("namespace", SafeText(253), nullable=False),
    sa.Column("name", SafeText(253), nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("environment", sa.String(64), nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("images", sa.JSON, nullable=False),
    sa.Column("message", SafeText(1000), nullable=False),
    sa.Index("ix_admission_review_outcome", "outcome", "id"),
    sa.Index("ix_admission_review_at", "at"),
    sa.Index("ix_admission_review_door", "door", "id"),
)

# Digests that a named person let through in an emergency. ``until`` in seconds of the epoch, for the gate's query.
break_glass = sa.Table(
    "break_glass",
    metadata,
    _id(),
    sa.Column("digest", sa.String(140), nullable=False),
    sa.Column("reason", SafeText(500), nullable=False),
    sa.Column("opened_by", SafeText(200), nullable=False),
    sa.Column("opened_at", Moment, nullable=False),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("ended_by", SafeText(200), nullable=False, default="", server_default=""),
    sa.Column("ended_at", Moment),
    sa.Index("ix_break_glass_digest", "digest", "until"),
)

# Exemptions and VEX statements

exemption = sa.Table(
    "exemption",
    metadata,
    _id(),
    sa.Column("project", sa.String(64), nullable=False),
    sa.Column("images", sa.JSON, nullable=False),
    sa.Column("rule", sa.String(64), nullable=False),
    sa.Column("subject", SafeText(200), nullable=False),
    sa.Column("purl", SafeText(1000), nullable=False),
    sa.Column("justification", SafeText(2000), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("owner", sa.String(200), nullable=False),
    sa.Column("owner_id", sa.String(50), nullable=False),
    sa.Column("requested_at", Moment, nullable=False),
    sa.Column("expires_at", Moment, nullable=False),
    sa.Column("decided_by", sa.String(200), nullable=False, default=""),
    sa.Column("decided_at", Moment),
    sa.Column("ended_by", sa.String(200), nullable=False, default=""),
    sa.Column("ended_at", Moment),
    sa.Column("note", SafeText(2000), nullable=False, default=""),
    sa.Column("while_unfixed", sa.Boolean, nullable=False, default=False),
    sa.Column("while_unexploited", sa.Boolean, nullable=False, default=False),
    sa.Column("version", sa.Integer, nullable=False, default=1),
    sa.Index("ix_exemption_project", "project", "state"),
    sa.Index("ix_exemption_requested", "requested_at", "id"),
)
vex_document = sa.Table(
    "vex_document",
    metadata,
    _id(),
    sa.Column("project", sa.String(64), nullable=False),  # "": for every project
    sa.Column("name", SafeText(1000), nullable=False),
    sa.Column("author", SafeText(400), nullable=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("digest", sa.String(140), nullable=False),
    sa.Column("statements", sa.Integer, nullable=False),
    sa.Column("imported_by", sa.String(200), nullable=False),
    sa.Column("imported_at", Moment, nullable=False),
    sa.UniqueConstraint("project", "digest"),
)
vex_statement = sa.Table(
    "vex_statement",
    metadata,
    _serial(),
    sa.Column("document_id", sa.String(36), sa.ForeignKey("vex_document.id"), nullable=False, index=True),
    sa.Column("vulnerability", SafeText(128), nullable=False, index=True),
    sa.Column("products", sa.JSON, nullable=False),
    sa.Column("subcomponents", sa.JSON, nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("justification", SafeText(200), nullable=False),
    sa.Column("impact", SafeText(2000), nullable=False),
    sa.Column("stated_at", Moment),
)

# Notifications: see ``scanner.store.outbox`` and ``scanner.store.notifications``

# What happened, written in the transaction in which it happened. ``routed_at``: when it became messages.
outbox = sa.Table(
    "outbox",
    metadata,
    _serial(),
    sa.Column("event_id", sa.String(36), nullable=False, unique=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("subject", SafeText(300), nullable=False),
    sa.Column("project", sa.String(64), nullable=False),  # "": the installation's
    sa.Column("body", sa.JSON, nullable=False),  # the rest of the Event
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("routed_at", Moment),
    sa.Index(
        "ix_outbox_unrouted",
        "id",
        sqlite_where=sa.text("routed_at IS NULL"),
        postgresql_where=sa.text("routed_at IS NULL"),
    ),
    sa.Index("ix_outbox_created_at", "created_at"),
)
notification_channel = sa.Table(
    "notification_channel",
    metadata,
    _id(),
    sa.Column("name", SafeText(200), nullable=False),
    sa.Column("format", sa.String(64), nullable=False),
    sa.Column("project", sa.String(64), nullable=False),  # "": events of every project
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("secrets", sa.LargeBinary),  # encrypted JSON of the secret fields
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("created_by", SafeText(200), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False, default=0),  # since the last delivery
    sa.Column("delivered_at", Moment),
    sa.Column("message", SafeText(1000), nullable=False, default=""),  # of the last failure
    sa.Column("paused_until", sa.Float),
    # A worker delivers a channel's messages one after the other, under this lease.
    sa.Column("lease_until", sa.Float),
    sa.Column("worker", sa.String(100), nullable=False, default=""),
    sa.Column("fence", sa.Integer, nullable=False, default=0),
)
notification_subscription = sa.Table(
    "notification_subscription",
    metadata,
    _id(),
    sa.Column(
        "channel_id", sa.String(36), sa.ForeignKey("notification_channel.id", ondelete="CASCADE"), nullable=False
    ),
    sa.Column("name", SafeText(200), nullable=False),
    sa.Column("project", sa.String(64), nullable=False),  # "": every project of the channel
    sa.Column("owner_id", sa.String(36), nullable=False),  # "": shared
    sa.Column("owner", SafeText(200), nullable=False),
    sa.Column("recipient", SafeText(320), nullable=False),  # the owner's own address
    sa.Column("kinds", sa.JSON, nullable=False),  # [] : every kind
    sa.Column("condition", sa.Text, nullable=False),  # CEL
    sa.Column("digest", sa.String(16), nullable=False),  # "", hourly, daily
    sa.Column("group_seconds", sa.Integer, nullable=False),
    sa.Column("quiet_from", sa.String(5), nullable=False),  # 22:00
    sa.Column("quiet_to", sa.String(5), nullable=False),
    sa.Column("timezone", sa.String(64), nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("created_by", SafeText(200), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Index("ix_notification_subscription_channel_id", "channel_id"),
    sa.Index("ix_notification_subscription_owner_id", "owner_id"),
)
# A message to one channel. ``collecting -> sending -> sent | waiting | dead``, ``waiting -> sending``: it takes more
# events while it is collecting only, because what a receiver may have seen under an id never changes.
notification = sa.Table(
    "notification",
    metadata,
    _serial(),
    sa.Column("uid", sa.String(36), nullable=False, unique=True),  # what the receiver sees, at every attempt
    sa.Column(
        "channel_id", sa.String(36), sa.ForeignKey("notification_channel.id", ondelete="CASCADE"), nullable=False
    ),
    sa.Column("subscription_id", sa.String(36), nullable=False),
    sa.Column("project", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("group_key", SafeText(700), nullable=False),
    sa.Column("resolved", sa.Boolean, nullable=False),
    sa.Column("title", SafeText(400), nullable=False),
    sa.Column("level", sa.String(16), nullable=False),
    sa.Column("recipient", SafeText(320), nullable=False),
    sa.Column("events", sa.JSON, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("next_at", sa.Float, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("ended_at", Moment),
    sa.Column("status", sa.String(16), nullable=False, default=""),
    sa.Column("reason", sa.String(64), nullable=False, default=""),
    sa.Column("message", SafeText(1000), nullable=False, default=""),
    sa.Column("answer", SafeText(1000), nullable=False, default=""),
    sa.Index("ix_notification_due", "channel_id", "state", "next_at"),
    sa.Index("ix_notification_state", "state", "id"),
    sa.Index("ix_notification_ended_at", "ended_at"),
    sa.Index(
        "ux_notification_collecting",
        "subscription_id",
        "group_key",
        unique=True,
        sqlite_where=sa.text("state = 'collecting'"),
        postgresql_where=sa.text("state = 'collecting'"),
    ),
)
# What the messages that have not ended are about: a later one about the same subject waits for an earlier one.
notification_subject = sa.Table(
    "notification_subject",
    metadata,
    sa.Column(
        "notification_id",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        sa.ForeignKey("notification.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("subject", SafeText(300), primary_key=True),
    sa.Column("subscription_id", sa.String(36), nullable=False),
    sa.Index("ix_notification_subject_order", "subscription_id", "subject", "notification_id"),
)
# Conditions that are met now and have been reported. They are reported again only after they have ended.
alert = sa.Table(
    "alert",
    metadata,
    sa.Column("kind", sa.String(32), primary_key=True),
    sa.Column("project", sa.String(64), primary_key=True),
    sa.Column("subject", SafeText(300), primary_key=True),
    sa.Column("since", Moment, nullable=False),
)

# Matches: an engine's answer about each package version. New advisories are compared once per version, not per image

_number = sa.BigInteger().with_variant(sa.Integer, "sqlite")

basis = sa.Table(
    "basis",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("engine", sa.String(64), nullable=False),
    sa.Column("document", sa.JSON, nullable=False),
    sa.Column("releases", sa.JSON, nullable=False),  # release -> whether it is still supported
    sa.Column("created_at", Moment, nullable=False),
)
package = sa.Table(
    "package",
    metadata,
    _serial(),
    sa.Column("key", sa.String(64), nullable=False, unique=True),
    sa.Column("engine", sa.String(64), nullable=False),
    sa.Column("os", SafeText(200), nullable=False),
    sa.Column("document", sa.JSON, nullable=False),
    sa.Column("basis", sa.String(64), nullable=False, default=""),
    sa.Column("matched", sa.BigInteger),  # fingerprint of the answer; NULL: the image is needed
    sa.Column("matches", sa.LargeBinary),  # zlib of the vulnerabilities' JSON
    sa.Index("ix_package_basis", "engine", "basis", "os"),
)
listing_package = sa.Table(
    "listing_package",
    metadata,
    sa.Column("listing_id", _number, sa.ForeignKey("listing.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("package_id", _number, sa.ForeignKey("package.id"), primary_key=True),
    sa.Column("matched", sa.BigInteger, nullable=False),  # fingerprint of the current evidence
    sa.Index("ix_listing_package_package", "package_id", "matched"),
)
# The base that each image of a listing was built on, as its scan found it. ``digest``: of the base, maybe of an index;
# empty: unknown.
image_base = sa.Table(
    "image_base",
    metadata,
    sa.Column("listing_id", _number, sa.ForeignKey("listing.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("image", sa.String(140), primary_key=True),
    sa.Column("repository", SafeText(600), nullable=False),
    sa.Column("tag", SafeText(128), nullable=False),
    sa.Column("digest", sa.String(140), nullable=False),
    sa.Index("ix_image_base_name", "repository", "tag"),
)
# The tags of bases, which are polled. A row for each project, because a project's own access is used.
base_watch = sa.Table(
    "base_watch",
    metadata,
    sa.Column("repository", SafeText(600), primary_key=True),
    sa.Column("tag", SafeText(128), primary_key=True),
    sa.Column("project", sa.String(64), primary_key=True),
    sa.Column("digest", sa.String(140), nullable=False, default="", server_default=""),  # of the tag; "": unknown
    sa.Column("members", sa.JSON, nullable=False, default=list, server_default="[]"),  # digests in its index
    sa.Column("seen_at", Moment),  # when the digest was seen first
    sa.Column("asked_at", Moment),  # the last answer of the registry
    sa.Column("ask_epoch", sa.Float, nullable=False, default=0.0, server_default="0"),  # of the next request
    sa.Column("look_epoch", sa.Float, nullable=False, default=0.0, server_default="0"),  # of the next comparison
    sa.Column("failures", sa.Integer, nullable=False, default=0, server_default="0"),  # in a row
    sa.Column("reason", sa.String(64), nullable=False, default="", server_default=""),  # of the last failure
    sa.Column("message", SafeText(1000), nullable=False, default="", server_default=""),
    sa.Column("scans", sa.JSON, nullable=False, default=list, server_default="[]"),  # of bases, for the comparison
    sa.Column("reported", sa.String(140), nullable=False, default="", server_default=""),  # digest of the last event
    sa.Column("comparison", sa.JSON),  # of the newest digest with the former ones; null: not compared
    sa.Index("ix_base_watch_ask", "ask_epoch"),
    sa.Index("ix_base_watch_look", "look_epoch"),
)
# The basis of a listing's evidence: one row for each engine and image.
rests_on = sa.Table(
    "rests_on",
    metadata,
    sa.Column("listing_id", _number, sa.ForeignKey("listing.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("image", sa.String(140), nullable=False),
    sa.Column("engine", sa.String(64), nullable=False),
    sa.Column("version", SafeText(64), nullable=False),
    sa.Column("binary", sa.String(140), nullable=False, default=""),
    sa.Column("advisories", sa.String(140), nullable=False, default=""),  # digest of the advisory database
    sa.Column("os", SafeText(600), nullable=False),
    sa.Column("supported", sa.Boolean),
    sa.Column("basis", sa.String(64), nullable=False, default=""),  # on which it was made or last confirmed
    sa.Index("ix_rests_on_engine", "engine", "version"),
    sa.Index("ix_rests_on_advisories", "advisories"),
)
revocation = sa.Table(
    "revocation",
    metadata,
    _id(),
    sa.Column("engine", sa.String(64), nullable=False, default=""),
    sa.Column("version", SafeText(64), nullable=False, default=""),
    sa.Column("digest", sa.String(140), nullable=False, default=""),  # of an engine's binary or an advisory database
    sa.Column("reason", SafeText(500), nullable=False, default=""),
    sa.Column("revoked_by", SafeText(200), nullable=False),
    sa.Column("revoked_at", Moment, nullable=False),
    sa.Column("lifted_by", SafeText(200), nullable=False, default=""),
    sa.Column("lifted_at", Moment),
)
# Background work other than scans, with the same leases and fences.
job = sa.Table(
    "job",
    metadata,
    _id(),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("key", sa.String(200), nullable=False),
    sa.Column("parameters", sa.JSON, nullable=False),
    sa.Column("requested_by", SafeText(200), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("stage", sa.String(16), nullable=False, default=""),
    sa.Column("progress", sa.JSON),
    sa.Column("reason", sa.String(64), nullable=False, default=""),
    sa.Column("message", SafeText(1000), nullable=False, default=""),
    sa.Column("fence", sa.Integer, nullable=False, default=0),
    sa.Column("worker", sa.String(100), nullable=False, default=""),
    sa.Column("lease_until", sa.Float),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("lost", sa.Integer, nullable=False, default=0),
    sa.Column("next_at", sa.Float, nullable=False),
    sa.Column("created_epoch", sa.Float, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("started_at", Moment),
    sa.Column("finished_at", Moment),
    sa.Index("ix_job_ready", "state", "kind", "next_at"),
    sa.Index(
        "ux_job_key",
        "kind",
        "key",
        unique=True,
        sqlite_where=sa.text("state IN ('queued', 'running', 'retry_wait')"),
        postgresql_where=sa.text("state IN ('queued', 'running', 'retry_wait')"),
    ),
)
# Dry runs of policies, each run by the job of the same id, and what they would change.
dry_run = sa.Table(
    "dry_run",
    metadata,
    _id(),
    sa.Column("owner_id", sa.String(200), nullable=False),
    sa.Column("projects", sa.JSON),  # the projects that its requester saw; NULL: all
    sa.Column("policy", sa.String(64), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("as_of", Moment),  # NULL: now
    sa.Column("images", sa.JSON, nullable=False),  # the share that was examined: see store.dry_runs
    sa.Column("workloads", sa.JSON, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Index("ix_dry_run_owner", "owner_id", "policy", "created_at"),
)
dry_run_change = sa.Table(
    "dry_run_change",
    metadata,
    _serial(),
    sa.Column("dry_run_id", sa.String(36), sa.ForeignKey("dry_run.id", ondelete="CASCADE"), nullable=False),
    sa.Column("subject", sa.String(16), nullable=False),  # image or workload
    sa.Column("change", sa.String(16), nullable=False),  # denied or released
    sa.Column("name", SafeText(1100), nullable=False),
    sa.Column("reference", sa.String(140), nullable=False),  # the image's digest, the workload's uid
    sa.Column("project", sa.String(64), nullable=False),
    sa.Column("environment", sa.String(64), nullable=False),
    sa.Column("verdict_before", sa.String(16), nullable=False),
    sa.Column("verdict_after", sa.String(16), nullable=False),
    sa.Column("rules", sa.Text, nullable=False),  # JSON; text, because PostgreSQL does not group by JSON
    sa.Column("reasons", LongSafeText, nullable=False),  # JSON
    sa.Index("ix_dry_run_change_run", "dry_run_id", "id"),
)

# Running workloads. A source reports all of its workloads as one snapshot. See ``scanner.store.inventory``.
inventory_source = sa.Table(
    "inventory_source",
    metadata,
    _id(),
    sa.Column("environment", sa.String(64), nullable=False),
    sa.Column("source", sa.String(64), nullable=False),  # docker, kubernetes ...
    sa.Column("name", sa.String(200), nullable=False),  # of a host or a cluster
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),  # of the snapshot's facts
    sa.Column("workloads", sa.Integer, nullable=False),
    sa.Column("reported_by", sa.String(200), nullable=False),
    sa.Column("reported_at", Moment, nullable=False),
    sa.Column("changed_at", Moment, nullable=False),
    sa.Column("summary", sa.JSON, nullable=False),  # project -> facet -> value -> count
    # The last agents that reported it, the current one last.
    sa.Column("agents", sa.JSON, nullable=False, server_default="[]"),
    sa.Column("every_seconds", sa.Integer, nullable=False, server_default="0"),  # of the current one; 0: unknown
    # The agent that was refused last, because the current one reports the source; empty: none was.
    sa.Column("refused_agent", SafeText(600), nullable=False, server_default=""),
    sa.Column("refused_at", Moment),
    sa.UniqueConstraint("environment", "source", "name"),
)
running_workload = sa.Table(
    "running_workload",
    metadata,
    _serial(),
    sa.Column("uid", sa.String(36), nullable=False, unique=True),
    sa.Column("source_id", sa.String(36), sa.ForeignKey("inventory_source.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", SafeText(400), nullable=False),
    sa.Column("facts_digest", sa.String(64), nullable=False),
    sa.Column("facts", sa.LargeBinary, nullable=False),  # JSON: see services.workload_documents
    sa.Column("environment", sa.String(64), nullable=False),
    sa.Column("project", sa.String(64), nullable=False),
    sa.Column("namespace", SafeText(200), nullable=False),
    sa.Column("kind", SafeText(64), nullable=False),
    sa.Column("owner", SafeText(200), nullable=False),
    sa.Column("image", SafeText(1024), nullable=False),  # as the source writes it
    sa.Column("repository", sa.String(600), nullable=False),
    sa.Column("tag", sa.String(128), nullable=False),
    sa.Column("digest", sa.String(140), nullable=False),  # of the running image; empty: unknown
    sa.Column("by_tag", sa.Boolean, nullable=False),  # the digest was looked up by tag, not reported by the source
    sa.Column("first_seen", Moment, nullable=False),
    sa.Column("image_since", Moment, nullable=False),
    # The decision. ``rank`` sorts the worst first.
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("undecided", sa.Boolean, nullable=False),
    sa.Column("image_verdict", sa.String(16), nullable=False),  # empty: not scanned, or no image
    sa.Column("image_undecided", sa.Boolean, nullable=False),
    sa.Column("failed", sa.JSON, nullable=False),  # ids of the checks that failed
    # The images whose files it mounts: the fields of store.inventory.MountedImage.
    sa.Column("mounted", sa.JSON, nullable=False, server_default="[]"),
    sa.Column("results", sa.LargeBinary, nullable=False),  # zlib of the JSON of every check's result
    sa.Column("checked_with", sa.String(100), nullable=False),  # Dockwarden's version and the image's evidence
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("decided_at", Moment, nullable=False),
    sa.Column("valid_until", sa.Float),
    sa.UniqueConstraint("source_id", "name"),
    sa.Index("ix_running_workload_worst", "rank", "id"),
    sa.Index("ix_running_workload_environment", "environment", "rank", "id"),
    sa.Index("ix_running_workload_digest", "digest", "environment"),
    sa.Index("ix_running_workload_image", "repository", "tag"),
    sa.Index("ix_running_workload_valid_until", "valid_until"),
)
# The images in ``running_workload.mounted``, one a row: a list in JSON has no index.
running_mount = sa.Table(
    "running_mount",
    metadata,
    sa.Column(
        "workload_id",
        sa.BigInteger().with_variant(sa.Integer, "sqlite"),
        sa.ForeignKey("running_workload.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("repository", sa.String(600), nullable=False),
    sa.Column("tag", sa.String(128), nullable=False),
    sa.Column("digest", sa.String(140), nullable=False),
    sa.Index("ix_running_mount_digest", "digest"),
    sa.Index("ix_running_mount_image", "repository", "tag"),
)
