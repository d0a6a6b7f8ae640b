"""Registries: add, change, remove and check. A server connects to no other registry host.

A stored password is never returned, and the audit log records only that it changed. The host of a registry cannot be
changed: the password would be sent to the new host.
"""

from __future__ import annotations

from typing import Unpack

from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import NotFoundError, UsageError
from scanner.model import cloud_registry as cloud
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.pem import read_ca
from scanner.model.reference import PORT
from scanner.model.registry import (
    HARBOR,
    OF_CREDENTIALS,
    RegistryChanges,
    RegistryFields,
    changed_fields,
    changes,
    values,
)
from scanner.model.service_account import read_key
from scanner.services import _fields as fields
from scanner.services import projects
from scanner.store import audit, registries, registry_checks

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_PORT = f":{PORT}"
# As in an image reference: a first part without dot and port is part of the repository, not a host.
HOST = rf"^(localhost({_PORT})?|{_LABEL}(\.{_LABEL})+({_PORT})?|{_LABEL}{_PORT})$"
ALIAS = rf"^{_LABEL}(\.{_LABEL})*({_PORT})?$"
HOST_LENGTH, ALIASES_MOST = 255, 20
CA_LENGTH = 64 << 10  # bytes of PEM: some thirty certificates
# Characters; passwords of clouds are whole key files.
USERNAME_LENGTH, PASSWORD_LENGTH = 400, 4000
_SECRETS = {
    cloud.ECR: "secret access key",
    cloud.GAR: "service account's key (JSON)",
    cloud.ACR: "client secret",
}
_HINT = "write host[:port], without https://"
# Of a new registry: long, or about a person or an account.
_NOT_AUDITED = frozenset({"ca_pem", "aliases", "username", "tenant", "external_id"})


def add(
    session: Connection,
    actor: Actor,
    key: Secret,
    host: str,
    *,
    password: Secret | None = None,
    project: str = "default",
    **given: Unpack[RegistryChanges],
) -> registries.RegistryView:
    """Add a registry, so that its images can be scanned. The fields are those of `RegistryFields`.

    Raises UsageError naming the field, ConflictError for a host that exists already, NotFoundError, RefusedError.
    """
    actor.require_every_project()
    fields.check_pattern("host", host, HOST, HOST_LENGTH, _HINT)
    given["ca_pem"] = _certificates(given.get("ca_pem", ""))
    _check(host, changed_fields(RegistryFields(), given), password, bool(password))
    project = projects.visible_name(session, actor, project)
    registry = registries.add(session, host, key, password=password or None, project=project, **given)
    shown = {name: value for name, value in values(registry).items() if name not in _NOT_AUDITED}
    audit.record(session, actor, Action.REGISTRY_CREATE, registry.id, detail={"host": registry.host, **shown})
    return registry


def change(
    session: Connection,
    actor: Actor,
    key: Secret,
    registry_id: str,
    *,
    password: Secret | None = None,
    **given: Unpack[RegistryChanges],
) -> registries.RegistryView:
    """Change the given fields. An empty password deletes the stored one. Raises as `add`.

    Other ``credentials`` or ``machine_role`` forget what belongs to the former ones: the secret of one service is never
    sent to another. For the same reason, a new ``token_service`` needs the password again.
    """
    actor.require_every_project()
    members = sorted([*given, *(["password"] if password is not None else [])])
    before = registries.get(session, registry_id)
    if "ca_pem" in given:
        given["ca_pem"] = _certificates(given["ca_pem"])
    chosen = changed_fields(before, given)
    if (chosen.credentials, chosen.machine_role) != (before.credentials, before.machine_role):
        if chosen.credentials != before.credentials and "machine_role" not in given:
            given["machine_role"] = False
        forgotten = {name: value for name, value in values(RegistryFields()).items() if name in OF_CREDENTIALS}
        given = changes({**forgotten, **given})
        # An empty password deletes the stored one, also if the caller did not name it. Otherwise the secret of one
        # cloud would be sent to another as soon as its kind is changed.
        password = password or Secret("")
    after = changed_fields(before, given)
    is_new_service = after.token_service not in ("", before.token_service)
    # An administrator of registries who may not read the password could otherwise have it sent to a token service of
    # their own.
    if is_new_service and before.has_password and password is None:
        message = "a new token service gets the password, so enter the password again"
        raise fields.invalid("token_service", message)
    _check(before.host, after, password, before.has_password if password is None else bool(password))
    registry = registries.update(session, registry_id, key, password=password, **given)
    audit.record(
        session, actor, Action.REGISTRY_CHANGE, registry.id, detail={"host": registry.host, "members": members}
    )
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
    return [registry for registry in registries.list_registries(session) if actor.sees(registry.project)]


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
        return read_ca(ca_pem, "CA certificates")
    except UsageError as error:
        raise fields.invalid("ca_pem", str(error), error.hint) from None


def _check(host: str, after: RegistryFields, password: Secret | None, has_password: bool) -> None:
    """Check the fields as they will be. ``password``: the new one, if there is one."""
    if after.harbor not in HARBOR:
        raise fields.invalid("harbor", f"not a choice: {after.harbor[:64]!r}", "one of " + ", ".join(HARBOR))
    for alias in fields.at_most("aliases", after.aliases, ALIASES_MOST):
        fields.check_pattern("aliases", alias, ALIAS, HOST_LENGTH, _HINT)
    fields.text("username", after.username, USERNAME_LENGTH)
    if password is not None and len(password.reveal()) > PASSWORD_LENGTH:
        raise fields.invalid("password", f"a password has at most {PASSWORD_LENGTH} characters")
    if after.token_service:
        if after.credentials != cloud.STATIC:
            raise fields.invalid("token_service", "a cloud's registry is its own token service")
        fields.check_pattern("token_service", after.token_service, HOST, HOST_LENGTH, _HINT)
    _check_credentials(host, after, password, has_password)


def _check_role(kind: str, role_arn: str, external_id: str) -> None:
    if role_arn:
        if kind != cloud.ECR:
            raise fields.invalid("role_arn", f"only credentials of {cloud.NAMES[cloud.ECR]} assume a role")
        hint = "such as arn:aws:iam::123456789012:role/dockwarden"
        fields.check_pattern("role_arn", role_arn, cloud.ROLE_ARN, cloud.ROLE_ARN_LENGTH, hint)
    if external_id:
        if not role_arn:
            raise fields.invalid("external_id", "an external ID belongs to a role", "enter the role's ARN too")
        hint = "letters, digits and _+=,.@:/-, as in the trust policy of the role"
        fields.check_pattern("external_id", external_id, cloud.EXTERNAL_ID, cloud.EXTERNAL_ID_LENGTH, hint)


def _check_credentials(host: str, after: RegistryFields, password: Secret | None, has_password: bool) -> None:
    """Check that credentials are complete."""
    kind, username, tenant, machine_role = after.credentials, after.username, after.tenant, after.machine_role
    if kind not in cloud.KINDS:
        raise fields.invalid("credentials", f"not a choice: {kind[:64]!r}", "one of " + ", ".join(cloud.KINDS))
    name = cloud.NAMES[kind]
    if tenant and kind != cloud.ACR:
        raise fields.invalid("tenant", f"only {cloud.NAMES[cloud.ACR]} has a tenant")
    _check_role(kind, after.role_arn, after.external_id)
    if kind == cloud.STATIC:
        if machine_role:
            hint = "choose credentials " + ", ".join(cloud.HOSTS)
            raise fields.invalid("machine_role", "only a registry of a cloud knows the identity of this machine", hint)
        if password and not username:  # the protocol has no password alone: pulls would be anonymous
            hint = "for a token: the account's name, or any name, as the registry's manual says"
            raise fields.invalid("username", "a password or token needs a user name", hint)
        return
    # The machine's identity and cloud keys are sent to hosts of that cloud only.
    if not cloud.is_host(kind, host):
        hint = f"its hosts look like {cloud.EXAMPLES[kind]}"
        raise fields.invalid("credentials", f"{host} is not a registry of {name}", hint)
    # Cloud credentials are never sent over plain HTTP, whatever the operator chooses.
    if after.insecure:
        raise fields.invalid("insecure", f"{name} uses TLS only")
    if machine_role and has_password:
        raise fields.invalid("machine_role", "this machine's identity needs no password", "give one or the other")
    if kind == cloud.GAR and username:
        raise fields.invalid("username", f"{name} takes no user name", "the key names the service account")
    if kind == cloud.ECR and machine_role and username:
        raise fields.invalid("username", "this machine's identity needs no user name")
    if kind == cloud.ACR and (username or not machine_role):
        hint = "the client ID of an app registration or managed identity, such as 00000000-0000-0000-0000-000000000000"
        fields.check_pattern("username", username, cloud.CLIENT_ID, USERNAME_LENGTH, hint)
    if machine_role:
        if tenant:
            raise fields.invalid("tenant", "this machine's identity needs no tenant")
        return
    if kind == cloud.ECR:
        fields.check_pattern(
            "username", username, cloud.ACCESS_KEY, USERNAME_LENGTH, "the ID of an access key: AKIA..."
        )
    if kind == cloud.ACR:
        fields.check_pattern("tenant", tenant, cloud.TENANT, HOST_LENGTH, "the tenant's ID or domain name")
    if not has_password:
        raise fields.invalid("password", f"the {_SECRETS[kind]} is missing", "or use the identity of this machine")
    if kind == cloud.GAR and password:
        read_key(password.reveal())
