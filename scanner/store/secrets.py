"""Secrets at rest: AES-256-GCM under a key that is not in the database, bound to the row and field they belong to.

A ciphertext copied to another row does not decrypt; one that was changed neither. Each says which key it is under,
so that a key can be changed while everything runs: what is under the former one is read until ``reseal`` has moved
it.
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
from scanner.store.schema import registry, webhook

_NONCE, _KEY_ID = 12, 8
_FORMAT = b"\x01"
# Every sealed column. Its place is "table|id|column".
FIELDS: tuple[tuple[sa.Table, str], ...] = ((registry, "password"), (webhook, "secret"), (webhook, "previous_secret"))


def seal(value: Secret, key: Secret, place: str) -> bytes:
    """Encrypt ``value`` for ``place`` ("table|id|field")."""
    nonce = os.urandom(_NONCE)
    head = _head(key)
    return head + nonce + AESGCM(_derive(key)).encrypt(nonce, value.reveal().encode(), head + place.encode())


def unseal(sealed: bytes, key: Secret, place: str) -> Secret:
    """Raises ScannerError(reason="secret_unreadable") when the key is another one or the bytes were changed."""
    for one in keys_of(key):
        head = _head(one)
        if not sealed.startswith(head):
            continue
        nonce, data = sealed[len(head) : len(head) + _NONCE], sealed[len(head) + _NONCE :]
        try:
            return Secret(AESGCM(_derive(one)).decrypt(nonce, data, head + place.encode()).decode())
        except (InvalidTag, ValueError):
            break
    raise ScannerError(
        "a stored secret cannot be read",
        reason="secret_unreadable",
        hint="was DOCKWARDEN_SECRET_KEY or home/secret_key changed? see 'dockwarden secrets --help'",
    )


def reseal(session: Connection, key: Secret, *, limit: int = 100) -> int:
    """Move some of what is under another key to this one. Returns how many; 0: everything has moved.

    Can be broken off and begun again at any moment, by several at once, while others read and write. Raises as
    `unseal`, naming the row.
    """
    moved = 0
    for table, field in FIELDS:
        column = table.c[field]
        for row in session.execute(
            sa.select(table.c.id, column.label("sealed")).where(_other(column, key)).limit(limit - moved)
        ):
            place = f"{table.name}|{row.id}|{field}"
            try:
                value = unseal(row.sealed, key, place)
            except ScannerError as error:
                raise ScannerError(f"{place}: {error}", reason=error.reason, hint=error.hint) from error
            same = sa.and_(table.c.id == row.id, column == row.sealed)  # not what was written meanwhile
            moved += session.execute(table.update().where(same).values({field: seal(value, key, place)})).rowcount
        if moved >= limit:
            break
    return moved


def under_another(session: Connection, key: Secret) -> int:
    """How many secrets are not under this key."""
    counts = (
        sa.select(sa.func.count()).select_from(table).where(_other(table.c[field], key)) for table, field in FIELDS
    )
    return sum(session.execute(count).scalar_one() for count in counts)


def _other(column: sa.ColumnElement[bytes], key: Secret) -> sa.ColumnElement[bool]:
    head = _head(key)
    return sa.and_(column.is_not(None), sa.func.substr(column, 1, len(head)) != sa.literal(head, sa.LargeBinary))


def _head(key: Secret) -> bytes:
    """Says which key, and tells nothing of it."""
    return _FORMAT + HKDF(SHA256(), _KEY_ID, salt=None, info=b"dockwarden key id").derive(key.reveal().encode())


def _derive(key: Secret) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"dockwarden secrets at rest").derive(key.reveal().encode())
