"""What an administrator configures of a registry, beside its host, its project and the stored password.

A field is listed twice here, once to hold it and once to change it, and nowhere in between: services and store take
whatever is listed. What is particular to it stays where it belongs: its column and migration, its bounds in the API,
its input on the page, its option of the command, and the rules in `scanner.services.registries`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict, TypeVar, cast

from scanner.model.cloud_registry import STATIC

# Whether a registry is a Harbor that may request scans. vulnerabilities: its reports hold those; findings: also the
# denial, failed checks and refused signatures as findings.
HARBOR = ("off", "vulnerabilities", "findings")

Fields = TypeVar("Fields", bound="RegistryFields")


@dataclass(frozen=True, kw_only=True)
class RegistryFields:
    """The configured fields.

    ``aliases``: other hosts that its webhooks report (localhost:5000). ``write_receipts``: signed decisions are written
    beside its images, with its credentials. ``harbor``: see `HARBOR`. ``credentials``: what user name and password are,
    see `scanner.model.cloud_registry`; ``machine_role``: this machine's own identity is used, no stored secret.
    ``tenant``: of Microsoft Entra ID. ``role_arn``: the role in AWS that the access key or the machine's identity
    assumes, with ``external_id`` if its trust policy asks for one. ``token_service``: another host that gets user name
    and password, because the registry's tokens come from there.
    """

    aliases: tuple[str, ...] = ()
    insecure: bool = False  # plain HTTP
    ca_pem: str = ""  # trusted in addition to the system's authorities
    write_receipts: bool = False
    harbor: str = "off"
    credentials: str = STATIC
    machine_role: bool = False
    username: str = ""  # empty: anonymous
    tenant: str = ""
    role_arn: str = ""
    external_id: str = ""
    token_service: str = ""


class RegistryChanges(TypedDict, total=False):
    """The fields to change. Absent ones are kept."""

    aliases: Sequence[str]
    insecure: bool
    ca_pem: str
    write_receipts: bool
    harbor: str
    credentials: str
    machine_role: bool
    username: str
    tenant: str
    role_arn: str
    external_id: str
    token_service: str


NAMES = tuple(field.name for field in fields(RegistryFields))
# What belongs to the credentials of one kind: it is forgotten when another kind is chosen.
OF_CREDENTIALS = frozenset({"username", "tenant", "role_arn", "external_id", "token_service"})
IDENTITY = OF_CREDENTIALS | {"credentials", "machine_role"}


def values(found: RegistryFields) -> dict[str, Any]:
    """Return the fields by name. A subclass's other members are left out."""
    return {name: getattr(found, name) for name in NAMES}


def changes(found: Mapping[str, Any]) -> RegistryChanges:
    """Return the fields that ``found`` has, from a form or a command."""
    return cast(RegistryChanges, {name: value for name, value in found.items() if name in NAMES})


def anonymous() -> RegistryChanges:
    """Return the changes that remove the credentials."""
    return changes({name: value for name, value in values(RegistryFields()).items() if name in IDENTITY})


def changed_fields(before: Fields, given: RegistryChanges) -> Fields:
    """Return the fields with the given ones changed."""
    found: dict[str, Any] = {**given}
    if "aliases" in found:
        found["aliases"] = tuple(found["aliases"])
    return replace(before, **found)
