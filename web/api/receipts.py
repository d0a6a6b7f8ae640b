"""Receipts: signed decisions that others enforce without asking this server, and the keys that verify them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from flask import Response
from pydantic import Field, StringConstraints
from sqlalchemy.engine import Connection

from scanner.model.actor import SERVICE
from scanner.model.decision import Verdict
from scanner.services import receipts as use_cases
from scanner.store import receipts as store
from web.api.base import DigestText, Model, Text, answer, blueprint, problems
from web.auth import PUBLIC, permission, principal
from web.resources import resources

api = blueprint("receipts", "Receipts", "Signed decisions, and the keys that verify them.")

Environment = Annotated[str, StringConstraints(max_length=use_cases.ENVIRONMENT_LENGTH, pattern=use_cases.ENVIRONMENT)]


class ReceiptPath(Model):
    digest: DigestText


class ReceiptQuery(Model):
    environment: Environment = Field("", description="The environment in which the image will run.")
    repository: Text = Field("", description="host/repository; needed if the image is known in several.")


class AttestationOut(Model):
    """One statement of a receipt: its DSSE envelope, and the same as a sigstore bundle v0.3."""

    predicate_type: str
    envelope: dict[str, Any]
    bundle: dict[str, Any]


class PushOut(Model):
    """The receipt's copy beside the image in its registry. ``state``: off, waiting, pushed or failed."""

    state: str
    message: str
    pushed_at: datetime | None


class ReceiptOut(Model):
    """``result``: PASSED or FAILED. ``state``: current, superseded or ended."""

    id: UUID
    digest: DigestText
    repository: str
    environment: str
    project: str
    result: Literal["PASSED", "FAILED"]
    verdict: Verdict
    undecided: bool
    policy: str
    state: str
    key_id: str
    issued_at: datetime
    valid_until: datetime
    attestations: list[AttestationOut]
    registry: PushOut


class JsonWebKey(Model):
    """RFC 7517. ``kid``: hex SHA-256 of the public key in DER."""

    kty: str
    crv: str
    x: str
    y: str
    kid: str
    use: str
    alg: str


class KeySet(Model):
    keys: list[JsonWebKey]


@api.get("/images/<digest>/receipt", responses={"200": ReceiptOut, **problems(404, 409)})
@permission("read")
def get(path: ReceiptPath, query: ReceiptQuery) -> Response:
    """Read the signed decision about an image

    Signs the current decision unless a receipt for it still holds. 404 with `reason` `not_decided` if there is none.
    A denied image gets a receipt whose result is `FAILED`.
    """
    who, signer = principal(), use_cases.Signer(resources().settings, resources().secret_key)

    database = resources().database
    found = use_cases.issue(
        database, signer, who, path.digest, repository=query.repository, environment=query.environment
    )
    with database.read() as session:
        return answer(_show(session, found))


def _show(session: Connection, found: store.ReceiptView) -> ReceiptOut:
    bundles = use_cases.bundles(session, found)
    push = store.push_of(session, found.digest, found.repository)
    taken = store.is_taken(session, found.repository)
    return ReceiptOut(
        id=UUID(found.id),
        digest=found.digest,
        repository=found.repository,
        environment=found.environment,
        project=found.project,
        result="FAILED" if found.verdict == Verdict.DENY else "PASSED",
        verdict=Verdict(found.verdict),
        undecided=found.undecided,
        policy=found.policy,
        state=use_cases.state(session, found),
        key_id=found.key_id,
        issued_at=found.issued_at,
        valid_until=datetime.fromtimestamp(found.valid_until, UTC),
        attestations=[
            AttestationOut(predicate_type=kind, envelope=orjson.loads(text), bundle=orjson.loads(bundles[kind]))
            for kind, text in found.envelopes.items()
        ],
        registry=PushOut(
            state=push.state if push and taken else "off",
            message=push.message if push and taken else "",
            pushed_at=push.pushed_at if push else None,
        ),
    )


@api.get("/receipts/keys", responses={"200": KeySet, **problems(409)})
@permission(PUBLIC)
def keys() -> Response:
    """Read the public keys that verify receipts

    Public. A new key appears here before it signs, and a former one stays until its last receipt has ended. 409 if
    keys are in a key management service and none was taken yet.
    """
    return answer(KeySet(keys=[JsonWebKey(**each) for each in use_cases.jwks(_published_keys())]))


@api.get(
    "/receipts/keys.pem",
    responses={
        "200": {"description": "the keys", "content": {"application/x-pem-file": {"schema": {"type": "string"}}}},
        **problems(409),
    },
)
@permission(PUBLIC)
def keys_pem() -> Response:
    """Read the same keys as PEM, the one that signs now first

    For tools that read one key from a file, such as cosign.
    """
    text = "".join(key.public_pem for key in use_cases.signing_first(_published_keys()))
    return Response(text, content_type="application/x-pem-file")


def _published_keys() -> Sequence[store.KeyView]:
    signer = use_cases.Signer(resources().settings, resources().secret_key)
    with resources().database.read() as session:
        # A transaction that writes is needed for the first key only. This route is public, and must not take SQLite's
        # write lock for strangers.
        if store.keys(session):
            return use_cases.published_keys(session, signer, SERVICE)
    return resources().database.uncrossed(lambda session: use_cases.published_keys(session, signer, SERVICE))
