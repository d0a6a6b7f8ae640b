"""Trust roots: which signers are trusted, by name. They contain public keys and certificates only."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

from flask import Response
from pydantic import Field, StringConstraints

from scanner.services import trust_roots
from scanner.store import trust
from web.api.base import PREFIX, Body, IfMatch, Model, answer, blueprint, edited_version, etag, problems
from web.auth import everywhere, permission, principal
from web.resources import resources

api = blueprint("trust_roots", "Trust roots", "Which signers are trusted.")

RootName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class TrustRootIn(Body):
    scheme: str = Field(max_length=64, description="A signature scheme.", examples=["notary-v1"])
    scope: list[Annotated[str, StringConstraints(min_length=1, max_length=300)]] = Field(
        ["**"], min_length=1, max_length=100, description="Patterns over host/repository to which it applies."
    )
    document: dict[str, Any] | str = Field(
        description="The scheme's trust document: an object, the text of a file (PEM, JSON), or a word "
        "such as `tofu`. Public keys and certificates only."
    )


class TrustRootOut(Model):
    name: str
    version: int
    scheme: str
    scope: list[str]
    document: dict[str, Any]
    author: str
    created_at: datetime


class TrustRootList(Model):
    items: list[TrustRootOut]


class TrustRootPath(Model):
    name: RootName


def show(root: trust.RootView) -> TrustRootOut:
    return TrustRootOut(
        name=root.name,
        version=root.version,
        scheme=root.scheme,
        scope=list(root.scope),
        document=dict(root.document),
        author=root.author,
        created_at=root.created_at,
    )


def _root_response(root: trust.RootView, status: int = 200) -> Response:
    return answer(show(root), status, {"ETag": etag(root.version)})


@api.get("/trust-roots", responses={"200": TrustRootList})
@permission("read")
def index() -> Response:
    """List trust roots"""
    with resources().database.read() as session:
        return answer(TrustRootList(items=[show(root) for root in trust.list_roots(session)]))


@api.get("/trust-roots/<name>", responses={"200": TrustRootOut, **problems(404)})
@permission("read")
def get(path: TrustRootPath) -> Response:
    """Read the newest version of a trust root"""
    with resources().database.read() as session:
        return _root_response(trust.get(session, path.name))


@api.put("/trust-roots/<name>", responses={"200": TrustRootOut, "201": TrustRootOut, **problems(412, 428)})
@permission("policy")
def put(path: TrustRootPath, body: TrustRootIn, header: IfMatch) -> Response:
    """Write a trust root

    Creates a new version, used from the next scan on. `If-Match` names the edited version: 412 if it has changed in the
    meantime.
    """
    everywhere()
    given = body.document if isinstance(body.document, str) else json.dumps(body.document)
    with resources().database.session() as session:
        current = next((root for root in trust.list_roots(session) if root.name == path.name), None)
        expected = edited_version(header.if_match, current.version if current else None, "trust root")
        written = trust_roots.write(
            session, path.name, body.scheme, given, body.scope, principal(), if_version=expected
        )
    response = _root_response(written, 201 if current is None else 200)
    if current is None:
        response.headers["Location"] = f"{PREFIX}/trust-roots/{written.name}"
    return response


@api.delete("/trust-roots/<name>", responses={"204": None, **problems(404, 409)})
@permission("policy")
def delete(path: TrustRootPath) -> Response:
    """Delete a trust root

    409 while a policy refers to it, because that policy could never be satisfied again.
    """
    everywhere()
    with resources().database.session() as session:
        trust_roots.remove(session, path.name, principal())
    return Response(status=204)
