"""Registries: add, change, remove and check. A server connects to no other registry host.

A stored password is never returned, and the audit log records only that it changed. The host of a registry cannot be
changed: the password would be sent to the new host.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import NotFoundError, UsageError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.pem import read_ca
from scanner.model.reference import PORT
from scanner.services import _fields as fields
from scanner.services import projects
from scanner.store import audit, registries, registry_checks

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_PORT = f":{PORT}"
# As in an image reference: a first part without dot and port is part of the repository, not a host.
HOST = rf"^(localhost({_PORT})?|{_LABEL}(\.{_LABEL})+({_PORT})?|{_LABEL}{_PORT})$"
ALIAS = rf"^{_LABEL}(\.{_LABEL})*({_PORT})?$"
HOST_LENGTH, ALIASES_MOST = 255, 20
CA_LENGTH = 64 << 10
USERNAME_LENGTH, PASSWORD_LENGTH = 400, 4000
_HINT = "write host[:port], without https://"


def add(
    session: Connection,
    actor: Actor,
    key: Secret,
    host: str,
    *,
    aliases: Sequence[str] = (),
    insecure: bool = False,
    ca_pem: str = "",
    username: str = "",
    password: Secret | None = None,
    project: str = "default",
    write_receipts: bool = False,
    harbor: str = "off",
) -> registries.RegistryView:
    """Add a registry, so that its images can be scanned.

    ``write_receipts``: signed decisions are written beside its images, with these credentials.

    Raises UsageError naming the field, ConflictError for a host that exists already, NotFoundError, RefusedError.
    """
    actor.require_every_project()
    fields.matching("host", host, HOST, HOST_LENGTH, _HINT)
    _check(aliases, username, password, harbor)
    ca_pem = _certificates(ca_pem)
    project = projects.visible_name(session, actor, project)
    registry = registries.add(
        session,
        host,
        key,
        insecure=insecure,
        ca_pem=ca_pem,
        username=username,
        password=password or None,
        project=project,
        aliases=aliases,
        write_receipts=write_receipts,
        harbor=harbor,
    )
    detail = {
        "host": registry.host,
        "insecure": registry.insecure,
        "write_receipts": registry.write_receipts,
        "harbor": registry.harbor,
    }
    audit.record(session, actor, Action.REGISTRY_CREATE, registry.id, detail=detail)
    return registry


def change(
    session: Connection,
    actor: Actor,
    key: Secret,
    registry_id: str,
    *,
    aliases: Sequence[str] | None = None,
    insecure: bool | None = None,
    ca_pem: str | None = None,
    username: str | None = None,
    password: Secret | None = None,
    write_receipts: bool | None = None,
    harbor: str | None = None,
) -> registries.RegistryView:
    """Change the given fields. An empty password deletes the stored one. Raises as `add`."""
    actor.require_every_project()
    _check(aliases or (), username or "", password, harbor or "off")
    ca_pem = None if ca_pem is None else _certificates(ca_pem)
    registry = registries.update(
        session,
        registry_id,
        key,
        insecure=insecure,
        ca_pem=ca_pem,
        username=username,
        password=password,
        aliases=aliases,
        write_receipts=write_receipts,
        harbor=harbor,
    )
    given = {
        "aliases": aliases,
        "insecure": insecure,
        "ca_pem": ca_pem,
        "username": username,
        "password": password,
        "write_receipts": write_receipts,
        "harbor": harbor,
    }
    detail = {"host": registry.host, "members": sorted(name for name, value in given.items() if value is not None)}
    audit.record(session, actor, Action.REGISTRY_CHANGE, registry.id, detail=detail)
    return registry


def remove(session: Connection, actor: Actor, registry_id: str) -> None:
    """Remove a registry and its credentials. Scans and reports are kept.

    Raises NotFoundError, RefusedError, ConflictError(reason="in_use") while it has webhooks.
    """
    actor.require_every_project()
    registry = registries.get(session, registry_id)
    registries.remove(session, registry_id)
    audit.record(session, actor, Action.REGISTRY_REMOVE, registry_id, detail={"host": registry.host})


def by_host(session: Connection, host: str) -> registries.RegistryView:
    """Return a registry by its host. Raises NotFoundError."""
    found = registries.find(session, host)
    if found is None:
        raise NotFoundError(
            f"there is no registry {host[:200]!r}", hint="list the registries: dockwarden registry list", field="host"
        )
    return found


def visible(session: Connection, actor: Actor) -> list[registries.RegistryView]:
    """Return the registries that the actor can see, ordered by host."""
    return [registry for registry in registries.list_(session) if actor.sees(registry.project)]


def examine(session: Connection, actor: Actor, registry_id: str) -> registry_checks.CheckView:
    """Request a check of a registry, or return the unfinished one.

    The caller enqueues it after the transaction. Raises NotFoundError.
    """
    registry = registries.get(session, registry_id, actor.projects)
    found = registry_checks.request(session, registry.id, actor.name)
    audit.record(session, actor, Action.REGISTRY_CHECK, registry.host)
    return found


def _certificates(ca_pem: str) -> str:
    """Return the certificates without comments. A private key that was pasted with them is refused, not stored."""
    fields.text("ca_pem", ca_pem, CA_LENGTH, lines=True)
    if not ca_pem.strip():
        return ""
    try:
        return read_ca(ca_pem, "ca_pem")
    except UsageError as error:
        raise fields.invalid("ca_pem", str(error), error.hint) from None


def _check(aliases: Sequence[str], username: str, password: Secret | None, harbor: str) -> None:
    if harbor not in registries.HARBOR:
        raise fields.invalid("harbor", f"not a choice: {harbor[:64]!r}", "one of " + ", ".join(registries.HARBOR))
    for alias in fields.at_most("aliases", aliases, ALIASES_MOST):
        fields.matching("aliases", alias, ALIAS, HOST_LENGTH, _HINT)
    fields.text("username", username, USERNAME_LENGTH)
    if password is not None and len(password.reveal()) > PASSWORD_LENGTH:
        raise fields.invalid("password", f"a password has at most {PASSWORD_LENGTH} characters")
