"""What every resource of the API shares: models, problems in the document, pages of lists, answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from scanner.errors import UsageError

Responses = dict[str | int | HTTPStatus, type[BaseModel] | dict[Any, Any] | None]

PREFIX = "/api/v1"
PROBLEM = "application/problem+json"

# Printable text: what a database, a log and a page can all hold (no NUL, no line breaks, no half surrogates).
Text = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


def _moment(value: object) -> object:
    """A number is no time: 0.5 would be one in 1970."""
    if isinstance(value, str):
        if not _TIME.fullmatch(value):
            raise ValueError("write a time as 2026-11-24T12:00:00Z")
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except OverflowError as error:
            raise ValueError("there is no such time") from error
    raise ValueError("not a time")


_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
Moment = Annotated[datetime, BeforeValidator(_moment)]
# JSON Schema 2020-12, 6.1.1: a number without a fraction is an integer, however it is written (30.0).
Whole = Annotated[
    int, BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)
]
Name = Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$")]
DigestText = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]

# The reference grammar, for those who read the document; ``Reference.parse`` has the last word (a repository's length,
# IPv6).
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


class Model(BaseModel):
    """Of requests and answers.

    Unknown members are refused, so a misspelt one is told and mass assignment finds nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Made once per model: flask-openapi3 asks for it on every request that has a query (340 µs each)."""
        return _schema(cls, args, tuple(sorted(kwargs.items())))


class Body(Model):
    """Of a JSON body: JSON's own types, nothing coerced. ``0`` is not ``false``."""

    model_config = ConfigDict(strict=True)


@cache
def _schema(model: type[Model], args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    return super(Model, model).model_json_schema(*args, **dict(kwargs))


class FieldProblem(Model):
    """One member of a request that is wrong."""

    pointer: str
    message: str


class Problem(BaseModel):
    """RFC 9457. ``reason`` is stable and may be compared; ``detail`` and ``hint`` are for people."""

    type: str = Field(examples=["urn:dockwarden:problem:not-found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["there is no such image"])
    reason: str = Field(examples=["not_found"])
    hint: str | None = None
    request_id: str = Field(examples=["5f2c9e7b1a3d4c60"])
    errors: list[FieldProblem] | None = None


class PageQuery(Model):
    """Every list: at most ``limit`` items, from where ``cursor`` (the former page's ``next_cursor``) left off."""

    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = Field(None, max_length=512, pattern=r"^[A-Za-z0-9_-]+$")


def problems(*statuses: int) -> Responses:
    """The problem answers of an operation, for its document."""
    described = {
        400: "not understood",
        401: "not signed in",
        403: "not allowed",
        404: "does not exist, or is not yours to see",
        406: "no such format",
        409: "the state does not allow it",
        412: "edited meanwhile: read again",
        413: "too large",
        415: "send application/json",
        422: "understood, and not valid; `errors` says where",
        428: "send If-Match",
        429: "too many requests; see Retry-After",
        503: "cannot answer now; see Retry-After",
    }
    return {
        str(status): {
            "description": described[status],
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def blueprint(name: str, title: str, about: str) -> APIBlueprint:
    """A resource. Its module's ``api`` is what ``web.api`` finds."""
    return APIBlueprint(
        name,
        f"web.api.{name}",
        url_prefix=PREFIX,
        abp_tags=[Tag(name=title, description=about)],
        abp_responses=problems(400, 401, 403, 413, 415, 422, 429, 503),
        operation_id_callback=_operation_id,
    )


def _operation_id(*, bp_name: str = "", name: str = "", path: str = "", method: str = "") -> str:
    """``scans_create``: what generated clients call the operation. The library calls with these four names."""
    return f"{bp_name}_{name}"


def answer(body: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A model as JSON, by its own serializer."""
    return Response(body.model_dump_json(by_alias=True), status, headers, mimetype="application/json")


Item = TypeVar("Item")
View = TypeVar("View")


def listed(items: Sequence[Item], show: Callable[[Item], View]) -> list[View]:
    return [show(item) for item in items]


def etag(version: int | str) -> str:
    return f'"{version}"'


def matches(if_match: str, version: int | str) -> bool:
    """RFC 9110 13.1.1: strong comparison with any of the list; ``*`` is any that exists."""
    return if_match.strip() == "*" or etag(version) in re.findall(r'"[^"]*"', if_match)


class IfMatch(Model):
    model_config = Model.model_config | {"extra": "ignore"}

    if_match: str | None = Field(
        None,
        alias="If-Match",
        max_length=200,
        description="The ETag of the version that was edited. Required once it exists.",
    )


def edited_version(if_match: str | None, current: int | None, what: str) -> int | None:
    """The version that If-Match names, for the store to compare. Without one only something new may be written."""
    if current is None:
        return 0 if not if_match else -1
    if not if_match:
        raise UsageError(
            f"the {what} exists", reason="precondition_required", hint="send If-Match with the ETag you read"
        )
    if if_match.strip() == "*":
        return None
    named = if_match.strip().strip('"')
    return int(named) if named.isascii() and named.isdigit() and len(named) < 10 else -1
