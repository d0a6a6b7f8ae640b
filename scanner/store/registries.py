"""Registries that the service may connect to. Passwords are encrypted, and the API never returns them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import ConflictError, NotFoundError
from scanner.model.cloud_registry import STATIC
from scanner.store.schema import registry, webhook
from scanner.store.secrets import seal, unseal
from scanner.store.session import moment

# Whether a registry is a Harbor that may request scans. vulnerabilities: its reports hold those; findings: also the
# denial, failed checks and refused signatures as findings.
HARBOR = ("off", "vulnerabilities", "findings")


@dataclass(frozen=True)
class RegistryView:
    """A registry without its password.

    ``aliases``: other hosts that its webhooks report (localhost:5000). ``harbor``: see `HARBOR`. ``credentials``: a
    kind of `scanner.model.cloud_registry`; ``machine_role``: this machine's own identity is used, no stored secret.
    ``tenant``: of Microsoft Entra ID. ``token_service``: another host that gets the credentials.
    """

    id: str
    host: str
    insecure: bool
    ca_pem: str
    username: str
    has_password: bool
    project: str
    aliases: tuple[str, ...]
    created_at: datetime
    write_receipts: bool = False
    harbor: str = "off"
    credentials: str = STATIC
    machine_role: bool = False
    tenant: str = ""
    token_service: str = ""


def add(
    session: Connection,
    host: str,
    key: Secret,
    *,
    insecure: bool = False,
    ca_pem: str = "",
    username: str = "",
    password: Secret | None = None,
    project: str = "default",
    aliases: Sequence[str] = (),
    write_receipts: bool = False,
    harbor: str = "off",
    credentials: str = STATIC,
    machine_role: bool = False,
    tenant: str = "",
    token_service: str = "",
) -> RegistryView:
    """Insert a registry. Raises ConflictError if the host exists."""
    if session.execute(sa.select(registry.c.id).where(registry.c.host == host)).scalar():
        raise ConflictError(f"registry {host!r} exists already")
    identifier = str(uuid.uuid4())
    session.execute(
        registry.insert().values(
            id=identifier,
            host=host,
            insecure=insecure,
            ca_pem=ca_pem,
            username=username,
            password=seal(password, key, _place(identifier)) if password else None,
            project=project,
            aliases=list(aliases),
            write_receipts=write_receipts,
            harbor=harbor,
            credentials=credentials,
            machine_role=machine_role,
            tenant=tenant,
            token_service=token_service,
            created_at=moment(session),
        )
    )
    return get(session, identifier)


def update(
    session: Connection,
    identifier: str,
    key: Secret,
    *,
    insecure: bool | None = None,
    ca_pem: str | None = None,
    username: str | None = None,
    password: Secret | None = None,
    aliases: Sequence[str] | None = None,
    write_receipts: bool | None = None,
    harbor: str | None = None,
    credentials: str | None = None,
    machine_role: bool | None = None,
    tenant: str | None = None,
    token_service: str | None = None,
) -> RegistryView:
    """Change the given fields. An empty password deletes the stored one. Raises NotFoundError."""
    values: dict[str, object] = {}
    given = {"insecure": insecure, "ca_pem": ca_pem, "username": username, "write_receipts": write_receipts}
    given |= {"harbor": harbor, "credentials": credentials, "machine_role": machine_role, "tenant": tenant}
    given["token_service"] = token_service
    for name, value in given.items():
        if value is not None:
            values[name] = value
    if aliases is not None:
        values["aliases"] = list(aliases)
    if password is not None:
        values["password"] = seal(password, key, _place(identifier)) if password else None
    if values and session.execute(registry.update().where(registry.c.id == identifier).values(**values)).rowcount != 1:
        raise NotFoundError("there is no such registry")
    return get(session, identifier)


def remove(session: Connection, identifier: str) -> None:
    """Delete a registry. Raises NotFoundError, ConflictError(reason="in_use") while it has webhooks."""
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


def list_(session: Connection) -> tuple[RegistryView, ...]:
    return tuple(_view(row) for row in session.execute(sa.select(*registry.c).order_by(registry.c.host)))


def _one(session: Connection, where: sa.ColumnElement[bool]) -> RegistryView:
    row = session.execute(sa.select(*registry.c).where(where)).first()
    if row is None:
        raise NotFoundError("there is no such registry")
    return _view(row)


def _view(row: sa.Row[tuple[object, ...]]) -> RegistryView:
    r = row._mapping
    return RegistryView(
        r["id"],
        r["host"],
        r["insecure"],
        r["ca_pem"],
        r["username"],
        r["password"] is not None,
        r["project"],
        tuple(r["aliases"]),
        r["created_at"],
        r["write_receipts"],
        r["harbor"],
        r["credentials"],
        r["machine_role"],
        r["tenant"],
        r["token_service"],
    )


def _place(identifier: str) -> str:
    return f"registry|{identifier}|password"
