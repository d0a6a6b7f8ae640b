"""Registries that the service may connect to. Passwords are encrypted, and the API never returns them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Unpack

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import ConflictError, NotFoundError
from scanner.model.registry import NAMES, RegistryChanges, RegistryFields, values
from scanner.store.schema import registry, webhook
from scanner.store.secrets import seal, unseal
from scanner.store.session import moment


@dataclass(frozen=True, kw_only=True)
class RegistryView(RegistryFields):
    """A registry without its password."""

    id: str
    host: str
    has_password: bool  # the value is read by `password` alone
    project: str  # owns the images, unless a project's pattern does
    created_at: datetime


def add(
    session: Connection,
    host: str,
    key: Secret,
    *,
    password: Secret | None = None,
    project: str = "default",
    **given: Unpack[RegistryChanges],
) -> RegistryView:
    """Insert a registry. Raises ConflictError if the host exists."""
    if session.execute(sa.select(registry.c.id).where(registry.c.host == host)).scalar():
        raise ConflictError(f"registry {host!r} exists already", hint="edit it, or remove it first")
    identifier = str(uuid.uuid4())
    others = {
        "id": identifier,
        "host": host,
        "password": seal(password, key, _place(identifier)) if password else None,
        "project": project,
        "created_at": moment(session),
    }
    session.execute(registry.insert().values(**others, **_columns({**values(RegistryFields()), **given})))
    return get(session, identifier)


def update(
    session: Connection,
    identifier: str,
    key: Secret,
    *,
    password: Secret | None = None,
    **given: Unpack[RegistryChanges],
) -> RegistryView:
    """Change the given fields. An empty password deletes the stored one. Raises NotFoundError."""
    changed = _columns(given)
    if password is not None:
        changed["password"] = seal(password, key, _place(identifier)) if password else None
    change = registry.update().where(registry.c.id == identifier)
    if changed and session.execute(change.values(**changed)).rowcount != 1:
        raise NotFoundError("there is no such registry")
    return get(session, identifier)


def _columns(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, list | tuple) else value for name, value in given.items()}


def remove(session: Connection, identifier: str) -> None:
    """Delete a registry. Raises NotFoundError, ConflictError(reason="in_use") while it has webhooks."""
    # Deleting them too would silently stop what the registry's owner relies on, and their deliveries would be lost.
    if session.execute(sa.select(webhook.c.id).where(webhook.c.registry_id == identifier)).first():
        raise ConflictError("this registry has webhooks", reason="in_use", hint="delete its webhooks first")
    if session.execute(registry.delete().where(registry.c.id == identifier)).rowcount != 1:
        raise NotFoundError("there is no such registry")


def get(session: Connection, identifier: str, projects: frozenset[str] | None = None) -> RegistryView:
    """Return the registry. Raises NotFoundError, also for another project's."""
    found = _one(session, registry.c.id == identifier)
    if projects is not None and found.project not in projects:
        raise NotFoundError("there is no such registry")
    return found


def find(session: Connection, host: str) -> RegistryView | None:
    """Return a registry by its host, or None."""
    row = session.execute(sa.select(*registry.c).where(registry.c.host == host)).first()
    return _view(row) if row else None


def password(session: Connection, identifier: str, key: Secret) -> Secret | None:
    """Return the decrypted password for pulling. Pages and API never call this."""
    sealed = session.execute(sa.select(registry.c.password).where(registry.c.id == identifier)).scalar()
    return unseal(sealed, key, _place(identifier)) if sealed else None


def list_registries(session: Connection) -> tuple[RegistryView, ...]:
    return tuple(_view(row) for row in session.execute(sa.select(*registry.c).order_by(registry.c.host)))


def _one(session: Connection, where: sa.ColumnElement[bool]) -> RegistryView:
    row = session.execute(sa.select(*registry.c).where(where)).first()
    if row is None:
        raise NotFoundError("there is no such registry")
    return _view(row)


def _view(row: sa.Row[tuple[object, ...]]) -> RegistryView:
    r = row._mapping
    found: dict[str, Any] = {name: tuple(r[name]) if isinstance(r[name], list) else r[name] for name in NAMES}
    return RegistryView(
        id=r["id"],
        host=r["host"],
        has_password=r["password"] is not None,
        project=r["project"],
        created_at=r["created_at"],
        **found,
    )


def _place(identifier: str) -> str:
    return f"registry|{identifier}|password"
