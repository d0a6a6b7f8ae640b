"""Shared by all resources of the API: models, problem answers, pagination, answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from typing import Annotated, Any, TypeVar, cast

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, create_model

from scanner.errors import UsageError

Responses = dict[str | int | HTTPStatus, type[BaseModel] | dict[Any, Any] | None]

PREFIX = "/api/v1"
PROBLEM = "application/problem+json"

# Printable text that a database, a log and a page can contain (no NUL, line breaks or half surrogates).
Text = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


def _moment(value: object) -> object:
    """Parse a time. Numbers are refused: pydantic would read 0.5 as a time in 1970."""
    if isinstance(value, str):
        if not _TIME.fullmatch(value):
            raise ValueError("write a time as 2026-11-24T12:00:00Z")
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except OverflowError as error:
            raise ValueError("this time does not exist") from error
    raise ValueError("not a time")


# RFC 3339
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
Moment = Annotated[datetime, BeforeValidator(_moment)]
# JSON Schema 2020-12, 6.1.1: a number without a fraction is an integer, also if written as 30.0.
Whole = Annotated[
    int, BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)
]
Name = Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$")]
DigestText = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]

# The reference grammar, for readers of the document. ``Reference.parse`` decides (length of a repository, IPv6).
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"(localhost|{_LABEL}(\.{_LABEL})+)(:[0-9]{{1,5}})?|{_LABEL}:[0-9]{{1,5}}|\[[0-9a-fA-F:]+\](:[0-9]{{1,5}})?"
_COMPONENT = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
_REFERENCE = rf"^(({_HOST})/)?{_COMPONENT}(/{_COMPONENT})*(:{_TAG})?(@({_DIGEST}))?$"
ImageText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1024, pattern=_REFERENCE),
    Field(
        description="An image reference: host/repository:tag, or host/repository@sha256:…. A tag is resolved "
        "once; the answer names the digest.",
        examples=["registry.example.com/shop/cart:1.4.2", "registry.example.com/shop/cart@sha256:" + "1" * 64],
    ),
]


M = TypeVar("M", bound=BaseModel)


class Model(BaseModel):
    """A model of requests and answers.

    Unknown members are refused: misspelt ones are reported, and mass assignment fails.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Cached: flask-openapi3 computes it on every request with a query (340 µs each)."""
        return _schema(cls, args, tuple(sorted(kwargs.items())))


class Body(Model):
    """A JSON body, with JSON's own types and without coercion: ``0`` is not ``false``."""

    model_config = ConfigDict(strict=True)


def optional(model: type[M]) -> type[M]:
    """A copy of a body whose members may all be absent or null, for a change. Descriptions and bounds are kept."""
    members: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind: Any = field.annotation
        bounded = Annotated[kind, *field.metadata] if field.metadata else kind
        members[name] = (bounded | None, Field(None, description=field.description))
    return _copy(model, members)


def answer_model(model: type[M]) -> type[M]:
    """A copy of a model for answers, which have every member. Bounds of requests do not apply: stored values do."""
    members: dict[str, Any] = {
        name: (field.annotation, Field(description=field.description)) for name, field in model.model_fields.items()
    }
    return _copy(model, members)


def _copy(model: type[M], members: dict[str, Any]) -> type[M]:
    made = create_model(model.__name__, __base__=Body, __doc__=model.__doc__, __module__=model.__module__, **members)
    return cast(type[M], made)


@cache
def _schema(model: type[Model], args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    return super(Model, model).model_json_schema(*args, **dict(kwargs))


class FieldProblem(Model):
    """A wrong member of a request."""

    pointer: str
    message: str


class Problem(BaseModel):
    """RFC 9457. ``reason`` is stable for programs; ``detail`` and ``hint`` are for users."""

    type: str = Field(examples=["urn:dockwarden:problem:not-found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["there is no such image"])
    reason: str = Field(examples=["not_found"])
    hint: str | None = None
    request_id: str = Field(examples=["5f2c9e7b1a3d4c60"])
    errors: list[FieldProblem] | None = None


class PageQuery(Model):
    """Pagination of lists: at most ``limit`` items after ``cursor`` (``next_cursor`` of the previous page)."""

    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = Field(None, max_length=512, pattern=r"^[A-Za-z0-9_-]+$")


def problems(*statuses: int) -> Responses:
    """The problem answers of an operation, for the OpenAPI document."""
    described = {
        400: "malformed request",
        401: "not signed in",
        403: "not allowed",
        404: "does not exist, or is not visible to you",
        406: "no such format",
        409: "the state does not allow it",
        412: "changed in the meantime: read it again",
        413: "too large",
        415: "send application/json",
        422: "well-formed but invalid; see `errors`",
        428: "send If-Match",
        429: "too many requests; see Retry-After",
        503: "temporarily unavailable; see Retry-After",
    }
    return {
        str(status): {
            "description": described[status],
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def blueprint(name: str, title: str, about: str) -> APIBlueprint:
    """Create a resource's blueprint. ``web.api`` finds it by the module's attribute ``api``."""
    return APIBlueprint(
        name,
        f"web.api.{name}",
        url_prefix=PREFIX,
        abp_tags=[Tag(name=title, description=about)],
        abp_responses=problems(400, 401, 403, 413, 415, 422, 429, 503),
        operation_id_callback=_operation_id,
    )


def _operation_id(*, bp_name: str = "", name: str = "", path: str = "", method: str = "") -> str:
    """The operation's name in generated clients, such as ``scans_create``.

    The library calls it with these four names.
    """
    return f"{bp_name}_{name}"


def answer(body: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer a model as JSON, with pydantic's serializer."""
    return Response(body.model_dump_json(by_alias=True), status, headers, mimetype="application/json")


Item = TypeVar("Item")
View = TypeVar("View")


def page_of(items: Sequence[Item], show: Callable[[Item], View]) -> list[View]:
    return [show(item) for item in items]


def etag(version: int | str) -> str:
    return f'"{version}"'


class IfMatch(Model):
    model_config = Model.model_config | {"extra": "ignore"}

    if_match: str | None = Field(
        None,
        alias="If-Match",
        max_length=200,
        description="The ETag of the edited version. Required if it exists.",
    )


def edited_version(if_match: str | None, current: int | None, what: str) -> int | None:
    """The version in If-Match, for the store to compare. Without If-Match only a new object may be written."""
    if current is None:
        # -1 is a version that never exists: If-Match on something that does not exist has to fail (RFC 9110, section
        # 13.1.1).
        return 0 if not if_match else -1
    if not if_match:
        raise UsageError(
            f"this {what} exists already", reason="precondition_required", hint="send If-Match with its ETag"
        )
    if if_match.strip() == "*":
        return None
    version = if_match.strip().strip('"')
    return int(version) if version.isascii() and version.isdigit() and len(version) < 10 else -1
