"""Registries: the only hosts a server connects to.

Adding, changing, new credentials, removing, asking for an examination.

A password goes in and never comes out again; the audit log says only that it changed. A host stays what it is:
another host is another registry, and must not be given this one's password.
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
# As in a reference: without a dot or a port a first part is a repository's, not a host's.
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
) -> registries.RegistryView:
    """Configure a registry: from now on its images can be scanned, with these credentials.

    Raises UsageError naming the field, ConflictError for a host that is configured already, NotFoundError,
    RefusedError.
    """
    actor.require_every_project()
    fields.matching("host", host, HOST, HOST_LENGTH, _HINT)
    _check(aliases, username, password)
    ca_pem = _certificates(ca_pem)
    project = projects.named(session, actor, project)
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
    )
    detail = {"host": registry.host, "insecure": registry.insecure}
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
) -> registries.RegistryView:
    """Change what is given. An empty password takes the stored one away. Raises as `add`."""
    actor.require_every_project()
    _check(aliases or (), username or "", password)
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
    )
    given = {"aliases": aliases, "insecure": insecure, "ca_pem": ca_pem, "username": username, "password": password}
    detail = {"host": registry.host, "members": sorted(name for name, value in given.items() if value is not None)}
    audit.record(session, actor, Action.REGISTRY_CHANGE, registry.id, detail=detail)
    return registry


def remove(session: Connection, actor: Actor, registry_id: str) -> None:
    """Forget a registry and its credentials.

    What was scanned stays. Raises NotFoundError, RefusedError, ConflictError(reason="in_use") while webhooks belong
    to it.
    """
    actor.require_every_project()
    registry = registries.get(session, registry_id)
    registries.remove(session, registry_id)
    audit.record(session, actor, Action.REGISTRY_REMOVE, registry_id, detail={"host": registry.host})


def named(session: Connection, host: str) -> registries.RegistryView:
    """A registry by its host. Raises NotFoundError."""
    found = registries.find(session, host)
    if found is None:
        raise NotFoundError(f"there is no registry {host[:200]!r}", hint="dockwarden registry list", field="host")
    return found


def visible(session: Connection, actor: Actor) -> list[registries.RegistryView]:
    """The registries of the actor's projects, by host."""
    return [registry for registry in registries.list_(session) if actor.sees(registry.project)]


def examine(session: Connection, actor: Actor, registry_id: str) -> registry_checks.CheckView:
    """Ask for an examination, or join the one that is open.

    The caller wakes a worker after its transaction. Raises NotFoundError.
    """
    registry = registries.get(session, registry_id, actor.projects)
    found = registry_checks.request(session, registry.id, actor.name)
    audit.record(session, actor, Action.REGISTRY_CHECK, registry.host)
    return found


def _certificates(ca_pem: str) -> str:
    """The certificates alone: a private key that was pasted with them is refused, and a comment is not kept."""
    fields.text("ca_pem", ca_pem, CA_LENGTH, lines=True)
    if not ca_pem.strip():
        return ""
    try:
        return read_ca(ca_pem, "ca_pem")
    except UsageError as error:
        raise fields.invalid("ca_pem", str(error), error.hint) from None


def _check(aliases: Sequence[str], username: str, password: Secret | None) -> None:
    for alias in fields.at_most("aliases", aliases, ALIASES_MOST):
        fields.matching("aliases", alias, ALIAS, HOST_LENGTH, _HINT)
    fields.text("username", username, USERNAME_LENGTH)
    if password is not None and len(password.reveal()) > PASSWORD_LENGTH:
        raise fields.invalid("password", f"a password has at most {PASSWORD_LENGTH} characters")
