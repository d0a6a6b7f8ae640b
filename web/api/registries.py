"""Registries: the only hosts to which this service connects. Passwords are write-only."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from flask import Response
from pydantic import Field, SecretStr, StringConstraints

from scanner.config import Secret
from scanner.model import cloud_registry as cloud
from scanner.model.registry import RegistryChanges, changes, values
from scanner.services import registries as use_cases
from scanner.store import registries
from web.api.base import PREFIX, Body, Model, Name, Text, answer, answer_model, blueprint, optional, problems
from web.auth import permission, principal
from web.resources import resources

api = blueprint("registries", "Registries", "Registries from which images are pulled, with credentials.")

Host = Annotated[
    str,
    StringConstraints(max_length=use_cases.HOST_LENGTH, pattern=use_cases.HOST),
    Field(description="host[:port], without https://", examples=["registry.example.com:5000"]),
]
Alias = Annotated[str, StringConstraints(max_length=use_cases.HOST_LENGTH, pattern=use_cases.ALIAS)]


Harbor = Literal["off", "vulnerabilities", "findings"]
_HARBOR = (
    "Whether it is a Harbor that may request scans, and what its reports hold: vulnerabilities, or also the denial, "
    "failed checks and refused signatures as findings (DW-...)."
)
Credentials = Literal["static", "ecr", "gar", "acr"]
_CREDENTIALS = (
    "What username and password are. static: those of the registry, also a token of GHCR or GitLab. ecr: the ID of an "
    "AWS access key, and its secret. gar: no username, and the JSON of a Google service account's key. acr: the client "
    "ID of a Microsoft Entra application, and its client secret. Tokens are obtained from the cloud when they are used."
)
_MACHINE_ROLE = (
    "Use the identity that the cloud gives to the workers' machine or pod, and no stored secret. For acr, username may "
    "be the client ID of a managed identity."
)
Password = Annotated[SecretStr, Field(max_length=use_cases.PASSWORD_LENGTH)] | None
TokenService = Annotated[str, StringConstraints(max_length=use_cases.HOST_LENGTH)]
_SERVICE = (
    "Another host, host[:port], that gets username and password because the registry's tokens come from there: your "
    "GitLab for its registry. A new one needs the password again. Empty: only the registry itself, and gitlab.com and "
    "auth.docker.io for theirs."
)
RoleArn = Annotated[str, StringConstraints(max_length=cloud.ROLE_ARN_LENGTH)]
ExternalId = Annotated[str, StringConstraints(max_length=cloud.EXTERNAL_ID_LENGTH)]
_ROLE_ARN = "ecr: the role, arn:aws:iam::ACCOUNT:role/NAME, that the access key or the machine's identity assumes."
_EXTERNAL_ID = "ecr: the external ID that the trust policy of the role asks for."
_TENANT = "acr: the ID or domain of the tenant in Microsoft Entra ID."


class RegistrySettings(Body):
    """The fields of a registry that can be changed: every other model of this module takes them from here."""

    aliases: list[Alias] = Field(
        [], max_length=use_cases.ALIASES_MOST, description="Other host names that the registry uses in its webhooks."
    )
    insecure: bool = Field(False, description="Use plain HTTP, or TLS without verification. Not recommended.")
    ca_pem: Annotated[str, Field(max_length=use_cases.CA_LENGTH)] = Field(
        "", description="CA certificates (PEM) to trust for this registry."
    )
    username: Text = ""
    write_receipts: bool = Field(
        False, description="Write signed decisions beside its images. The credentials must allow pushes."
    )
    harbor: Harbor = Field("off", description=_HARBOR)
    credentials: Credentials = Field("static", description=_CREDENTIALS)
    machine_role: bool = Field(False, description=_MACHINE_ROLE)
    tenant: Text = Field("", description=_TENANT)
    role_arn: RoleArn = Field("", description=_ROLE_ARN)
    external_id: ExternalId = Field("", description=_EXTERNAL_ID)
    token_service: TokenService = Field("", description=_SERVICE)


class RegistryIn(RegistrySettings):
    host: Host
    password: Password = Field(None, description="Write-only.")
    project: Name = "default"


@optional
class RegistryChange(RegistrySettings):
    """Absent members keep their values. An empty password deletes the stored one.

    Other credentials, or a change of machine_role, delete the stored password too: it is never sent to another service.
    """

    password: Password = Field(None, description="Write-only.")


@answer_model
class RegistryOut(RegistrySettings):
    id: UUID
    host: str
    has_password: bool
    project: str
    created_at: datetime


class RegistryList(Model):
    items: list[RegistryOut]


class RegistryPath(Model):
    registry_id: UUID


def show(registry: registries.RegistryView) -> RegistryOut:
    # Named one by one: a column that is added later is not answered by accident.
    own = {name: getattr(registry, name) for name in ("host", "has_password", "project", "created_at")}
    settings = {**values(registry), "aliases": list(registry.aliases)}
    return RegistryOut(id=UUID(registry.id), **own, **settings)


def _given_changes(body: RegistrySettings) -> RegistryChanges:
    """Return the settings that a body has. Null is as absent."""
    return changes(body.model_dump(exclude_none=True))


@api.get("/registries", responses={"200": RegistryList})
@permission("manage")
def index() -> Response:
    """List registries"""
    with resources().database.read() as session:
        found = use_cases.visible(session, principal())
    return answer(RegistryList(items=[show(r) for r in found]))


@api.post("/registries", responses={"201": RegistryOut, **problems(404, 409)})
@permission("manage")
def create(body: RegistryIn) -> Response:
    """Add a registry

    Its images can then be scanned, with these credentials.
    """
    with resources().database.session() as session:
        registry = use_cases.add(
            session,
            principal(),
            resources().secret_key,
            body.host,
            password=_secret(body.password),
            project=body.project,
            **_given_changes(body),
        )
    return answer(show(registry), 201, {"Location": f"{PREFIX}/registries/{registry.id}"})


@api.get("/registries/<uuid:registry_id>", responses={"200": RegistryOut, **problems(404)})
@permission("manage")
def get(path: RegistryPath) -> Response:
    """Read a registry, without its password"""
    with resources().database.read() as session:
        return answer(show(registries.get(session, str(path.registry_id), principal().projects)))


@api.patch("/registries/<uuid:registry_id>", responses={"200": RegistryOut, **problems(404)})
@permission("manage")
def change(path: RegistryPath, body: RegistryChange) -> Response:
    """Change a registry

    The host cannot be changed: another host must not get this one's password.
    """
    with resources().database.session() as session:
        registry = use_cases.change(
            session,
            principal(),
            resources().secret_key,
            str(path.registry_id),
            password=_secret(body.password),
            **_given_changes(body),
        )
    return answer(show(registry))


@api.delete("/registries/<uuid:registry_id>", responses={"204": None, **problems(404, 409)})
@permission("manage")
def remove(path: RegistryPath) -> Response:
    """Remove a registry

    409 while webhooks belong to it. Scan results are kept.
    """
    with resources().database.session() as session:
        use_cases.remove(session, principal(), str(path.registry_id))
    return Response(status=204)


def _secret(value: SecretStr | None) -> Secret | None:
    return None if value is None else Secret(value.get_secret_value())
