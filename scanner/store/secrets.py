"""Secrets at rest: AES-256-GCM with a key that is not in the database.

Table, row and column are authenticated (additional data), so an attacker with write access to the database cannot copy
a ciphertext to another row and have it sent to another host. Each ciphertext contains the id of its key. During a
rotation the previous key still decrypts, until ``reseal`` has re-encrypted everything.
"""

from __future__ import annotations

import os

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy.engine import Connection

from scanner.config import Secret, keys_of
from scanner.errors import ScannerError
from scanner.store.schema import harbor_scan, notification_channel, receipt_key, registry, webhook

# Bytes (AES-GCM, NIST SP 800-38D, 8.2.2), and of the prefix that tells which key sealed a value.
_NONCE, _KEY_ID = 12, 8
_FORMAT = b"\x01"
# All encrypted columns.
FIELDS: tuple[tuple[sa.Table, str], ...] = (
    (registry, "password"),
    (webhook, "secret"),
    (webhook, "previous_secret"),
    (notification_channel, "secrets"),
    (receipt_key, "private"),
    (harbor_scan, "credentials"),
)


def seal(value: Secret, key: Secret, place: str) -> bytes:
    """Encrypt ``value`` for ``place`` ("table|id|column")."""
    nonce = os.urandom(_NONCE)
    head = _head(key)
    return head + nonce + AESGCM(_derive(key)).encrypt(nonce, value.reveal().encode(), head + place.encode())


def unseal(sealed: bytes, key: Secret, place: str) -> Secret:
    """Decrypt. Raises ScannerError(reason="secret_unreadable") if the key differs or the data was changed."""
    for one in keys_of(key):
        head = _head(one)
        # The key id says which key encrypted it. No other key is tried, so that changed data is not mistaken for a
        # rotation.
        if not sealed.startswith(head):
            continue
        nonce, data = sealed[len(head) : len(head) + _NONCE], sealed[len(head) + _NONCE :]
        try:
            return Secret(AESGCM(_derive(one)).decrypt(nonce, data, head + place.encode()).decode())
        except (InvalidTag, ValueError):
            break
    raise ScannerError(
        "a stored secret cannot be decrypted",
        reason="secret_unreadable",
        hint="DOCKWARDEN_SECRET_KEY or home/secret_key has changed: see 'dockwarden secrets --help'",
    )


def reseal(session: Connection, key: Secret, *, limit: int = 100) -> int:
    """Re-encrypt up to ``limit`` secrets with the current key. Returns their number; 0: all are done.

    Can be interrupted and repeated, also concurrently. Raises as `unseal`, with the row.
    """
    moved = 0
    for table, field in FIELDS:
        column = table.c[field]
        for row in session.execute(
            sa.select(table.c.id, column.label("sealed")).where(_other_keys(column, key)).limit(limit - moved)
        ):
            place = f"{table.name}|{row.id}|{field}"
            try:
                value = unseal(row.sealed, key, place)
            except ScannerError as error:
                raise ScannerError(f"{place}: {error}", reason=error.reason, hint=error.hint) from error
            same = sa.and_(table.c.id == row.id, column == row.sealed)  # unless it was changed in the meantime
            moved += session.execute(table.update().where(same).values({field: seal(value, key, place)})).rowcount
        if moved >= limit:
            break
    return moved


def under_another(session: Connection, key: Secret) -> int:
    """Return the number of secrets that are encrypted with another key."""
    counts = (
        sa.select(sa.func.count()).select_from(table).where(_other_keys(table.c[field], key)) for table, field in FIELDS
    )
    return sum(session.execute(count).scalar_one() for count in counts)


def _other_keys(column: sa.ColumnElement[bytes], key: Secret) -> sa.ColumnElement[bool]:
    head = _head(key)
    return sa.and_(column.is_not(None), sa.func.substr(column, 1, len(head)) != sa.literal(head, sa.LargeBinary))


def _head(key: Secret) -> bytes:
    """Return format and key id. The id is derived by HKDF and reveals nothing about the key."""
    return _FORMAT + HKDF(SHA256(), _KEY_ID, salt=None, info=b"dockwarden key id").derive(key.reveal().encode())


def _derive(key: Secret) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"dockwarden secrets at rest").derive(key.reveal().encode())
