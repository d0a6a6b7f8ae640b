"""Receipts, the keys that sign them, and their copies in registries."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import NotFoundError
from scanner.store.schema import listing, receipt, receipt_key, receipt_push, registry, verdict
from scanner.store.secrets import seal, unseal
from scanner.store.session import epoch, insert_new, moment

WAITING, PUSHED, FAILED = "waiting", "pushed", "failed"
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0  # seconds before a failed push is tried again, doubled each time


@dataclass(frozen=True)
class KeyView:
    """A key without its private half. ``signs_from``: seconds since 1970."""

    id: str
    number: int
    key_id: str
    public_pem: str
    signs_from: float
    created_at: datetime
    revoked_at: datetime | None  # None: receipts that it signed still count
    erased: bool  # the private half was deleted: it can only verify


@dataclass(frozen=True)
class ReceiptView:
    """A receipt. ``envelopes``: DSSE envelopes by predicate type. ``valid_until``: seconds since 1970."""

    id: str
    digest: str
    repository: str
    environment: str  # empty: the decision for no environment
    project: str
    decision_id: int
    verdict: str
    undecided: bool
    policy: str
    key_id: str
    issued_at: datetime
    valid_until: float
    envelopes: Mapping[str, str]
    superseded_at: datetime | None  # when a newer decision replaced it; None: it holds


@dataclass(frozen=True)
class InForce:
    """A current decision, for which a receipt can be made."""

    digest: str
    repository: str
    environment: str
    project: str
    decision_id: int
    report_id: str
    document: str  # the decision's JSON, which the receipt signs
    valid_until: float | None  # seconds since 1970; None: no end


@dataclass(frozen=True)
class PushView:
    """The state of an image's receipts in its registry."""

    digest: str
    repository: str
    state: str
    revision: int
    attempt: int  # failed ones in a row
    reason: str
    message: str
    pushed_at: datetime | None  # None: not yet


# Keys


def keys(session: Connection) -> tuple[KeyView, ...]:
    """Return every key, the newest first."""
    rows = session.execute(sa.select(*receipt_key.c).order_by(receipt_key.c.number.desc()))
    return tuple(
        KeyView(
            row.id,
            row.number,
            row.key_id,
            row.public_pem,
            row.signs_from,
            row.created_at,
            row.revoked_at,
            row.private is None,
        )
        for row in rows
    )


def add_key(
    session: Connection, number: int, key_id: str, public_pem: str, private: Secret, key: Secret, signs_from: float
) -> None:
    """Store a key. Does nothing if another process stored one of the same number first."""
    identifier = str(uuid.uuid4())
    values = {
        "id": identifier,
        "number": number,
        "key_id": key_id,
        "public_pem": public_pem,
        "private": seal(private, key, _place(identifier)),
        "signs_from": signs_from,
        "created_at": moment(session),
    }
    insert_new(session, receipt_key, [values])


def private_key(session: Connection, identifier: str, key: Secret) -> Secret:
    """Return the decrypted private key. Raises NotFoundError if it was erased."""
    sealed = session.execute(sa.select(receipt_key.c.private).where(receipt_key.c.id == identifier)).scalar()
    if sealed is None:
        raise NotFoundError("this key has been erased")
    return unseal(sealed, key, _place(identifier))


def erase_key(session: Connection, identifier: str) -> None:
    """Delete the private half. The public one stays, so that receipts remain verifiable."""
    session.execute(receipt_key.update().where(receipt_key.c.id == identifier).values(private=None))


def revoke_key(session: Connection, identifier: str) -> int:
    """Revoke a key and supersede its receipts. Returns their number."""
    key_id = session.execute(sa.select(receipt_key.c.key_id).where(receipt_key.c.id == identifier)).scalar_one()
    values = {"private": None, "revoked_at": moment(session)}
    session.execute(receipt_key.update().where(receipt_key.c.id == identifier).values(**values))
    signed = sa.and_(receipt.c.key_id == key_id, receipt.c.superseded_at.is_(None))
    images = session.execute(sa.select(receipt.c.digest, receipt.c.repository).where(signed).distinct()).all()
    count = session.execute(receipt.update().where(signed).values(superseded_at=moment(session))).rowcount
    # Registries that hold a copy must drop it: a verifier there cannot see that the key was revoked.
    for image in images:
        request_push(session, image.digest, image.repository)
    return count


def _place(identifier: str) -> str:
    return f"receipt_key|{identifier}|private"


# Receipts


def in_force(session: Connection, digest: str, repository: str, environment: str) -> InForce | None:
    """Return the current decision, or None."""
    own = (verdict.c.digest == digest, verdict.c.repository == repository, verdict.c.environment == environment)
    row = session.execute(sa.select(*_IN_FORCE).where(*own)).first()
    return InForce(*row) if row else None


_IN_FORCE = (
    verdict.c.digest,
    verdict.c.repository,
    verdict.c.environment,
    verdict.c.project,
    verdict.c.decision_id,
    verdict.c.report_id,
    verdict.c.document,
    verdict.c.valid_until,
)


def repositories(session: Connection, digest: str, projects: frozenset[str] | None) -> tuple[str, ...]:
    """Return the repositories in which a digest has a decision, among the visible ones."""
    query = sa.select(verdict.c.repository).where(verdict.c.digest == digest, verdict.c.repository != "").distinct()
    if projects is not None:
        query = query.where(verdict.c.project.in_(projects))
    return tuple(session.execute(query.order_by(verdict.c.repository).limit(20)).scalars())


def current(session: Connection, digest: str, repository: str, environment: str) -> ReceiptView | None:
    """Return the receipt that no newer one has superseded, or None. It may have ended."""
    own = (receipt.c.digest == digest, receipt.c.repository == repository, receipt.c.environment == environment)
    row = session.execute(sa.select(*receipt.c).where(*own, receipt.c.superseded_at.is_(None))).first()
    return _view(row) if row else None


def environments(session: Connection, digest: str, repository: str) -> set[str]:
    """Return the environments for which an image has a receipt that holds."""
    own = (receipt.c.digest == digest, receipt.c.repository == repository, receipt.c.superseded_at.is_(None))
    query = sa.select(receipt.c.environment).where(*own, receipt.c.valid_until > epoch(session))
    return set(session.execute(query).scalars())


def get(session: Connection, identifier: str, projects: frozenset[str] | None) -> ReceiptView:
    """Return a receipt. Raises NotFoundError, also for another project's."""
    row = session.execute(sa.select(*receipt.c).where(receipt.c.id == identifier)).first()
    if row is None or (projects is not None and row.project not in projects):
        raise NotFoundError("there is no such receipt")
    return _view(row)


def of_image(
    session: Connection, digest: str, projects: frozenset[str] | None, *, limit: int = 50
) -> tuple[ReceiptView, ...]:
    """Return the receipts of an image, the newest first."""
    query = sa.select(*receipt.c).where(receipt.c.digest == digest)
    if projects is not None:
        query = query.where(receipt.c.project.in_(projects))
    rows = session.execute(query.order_by(receipt.c.issued_at.desc(), receipt.c.environment).limit(limit))
    return tuple(_view(row) for row in rows)


def add(
    session: Connection,
    found: InForce,
    environment: str,
    *,
    verdict: str,
    undecided: bool,
    policy: str,
    key_id: str,
    issued_at: datetime,
    valid_until: float,
    envelopes: Mapping[str, str],
) -> ReceiptView:
    """Store a receipt and supersede the current one. Returns the current one, which another process may have added."""
    own = (
        receipt.c.digest == found.digest,
        receipt.c.repository == found.repository,
        receipt.c.environment == environment,
        receipt.c.superseded_at.is_(None),
    )
    session.execute(receipt.update().where(*own).values(superseded_at=issued_at))
    values = {
        "id": str(uuid.uuid4()),
        "digest": found.digest,
        "repository": found.repository,
        "environment": environment,
        "project": found.project,
        "decision_id": found.decision_id,
        "verdict": verdict,
        "undecided": undecided,
        "policy": policy,
        "key_id": key_id,
        "issued_at": issued_at,
        "valid_until": valid_until,
        "envelopes": dict(envelopes),
    }
    with session.begin_nested():
        session.execute(receipt.insert().values(**values))
    made = current(session, found.digest, found.repository, environment)
    assert made is not None
    return made


def is_in_force(session: Connection, found: ReceiptView) -> bool:
    """Return whether the receipt's decision is current."""
    own = (verdict.c.digest == found.digest, verdict.c.repository == found.repository)
    query = sa.select(verdict.c.decision_id).where(*own, verdict.c.decision_id == found.decision_id)
    return session.execute(query).first() is not None


def supersede_outdated(session: Connection, *, limit: int = 200) -> int:
    """Supersede receipts whose decision is not current any more, and request that registries are updated.

    Returns their number.
    """
    columns = (receipt.c.id, receipt.c.digest, receipt.c.repository)
    query = sa.select(*columns).where(_is_outdated(session)).limit(limit)
    found = session.execute(query).all()
    if found:
        those = receipt.c.id.in_([row.id for row in found])
        session.execute(receipt.update().where(those).values(superseded_at=moment(session)))
        for digest, repository in {(row.digest, row.repository) for row in found}:
            request_push(session, digest, repository)
    return len(found)


def is_any_outdated(session: Connection) -> bool:
    """Return whether `supersede_outdated` has something to do."""
    return session.execute(sa.select(receipt.c.id).where(_is_outdated(session)).limit(1)).first() is not None


def _is_outdated(session: Connection) -> sa.ColumnElement[bool]:
    """Receipts that hold, but whose decision is not current any more."""
    same = sa.and_(
        verdict.c.digest == receipt.c.digest,
        verdict.c.repository == receipt.c.repository,
        verdict.c.decision_id == receipt.c.decision_id,
    )
    return sa.and_(receipt.c.superseded_at.is_(None), receipt.c.valid_until > epoch(session), ~sa.exists().where(same))


def without_receipt(session: Connection, margin: float, *, limit: int = 20) -> tuple[InForce, ...]:
    """Return decisions about listed images, in registries that take receipts, without a receipt that holds for
    ``margin`` more seconds, if a new one would hold longer.
    """
    now = epoch(session)
    own = sa.and_(
        receipt.c.digest == verdict.c.digest,
        receipt.c.repository == verdict.c.repository,
        receipt.c.environment == verdict.c.environment,
        receipt.c.superseded_at.is_(None),
    )
    # Otherwise a decision that ends soon would be signed again in every round, each time with the same end.
    ends_first = sa.or_(verdict.c.valid_until.is_(None), verdict.c.valid_until > receipt.c.valid_until + 1)
    outdated = sa.or_(
        receipt.c.id.is_(None),
        receipt.c.decision_id != verdict.c.decision_id,
        sa.and_(receipt.c.valid_until < now + margin, ends_first),
    )
    listed = sa.exists().where(listing.c.digest == verdict.c.digest, listing.c.repository == verdict.c.repository)
    query = (
        sa.select(*_IN_FORCE)
        .select_from(verdict.outerjoin(receipt, own))
        .where(outdated, listed, _takes_receipts(verdict.c.repository))
        .where(sa.or_(verdict.c.valid_until.is_(None), verdict.c.valid_until > now))
        .order_by(verdict.c.decision_id)
        .limit(limit)
    )
    return tuple(InForce(*row) for row in session.execute(query))


def _takes_receipts(repository: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Whether a repository's registry takes receipts."""
    prefix = registry.c.host + "/"
    # Not LIKE: a host may contain `_`, which is a wildcard there.
    return sa.exists().where(registry.c.write_receipts, sa.func.substr(repository, 1, sa.func.length(prefix)) == prefix)


def is_taken(session: Connection, repository: str) -> bool:
    """Return whether the registry of ``host/repository`` takes receipts."""
    host = repository.partition("/")[0]
    query = sa.select(registry.c.id).where(registry.c.host == host, registry.c.write_receipts)
    return session.execute(query).first() is not None


def _view(row: sa.Row[Any]) -> ReceiptView:
    return ReceiptView(
        row.id,
        row.digest,
        row.repository,
        row.environment,
        row.project,
        row.decision_id,
        row.verdict,
        row.undecided,
        row.policy,
        row.key_id,
        row.issued_at,
        row.valid_until,
        row.envelopes,
        row.superseded_at,
    )


@dataclass(frozen=True)
class ReceiptUse:
    """The receipts that hold now. ``last``: when the newest of them was signed; None: there is none.

    ``unwritten``: images whose registry refused the last write.
    """

    passed: int
    failed: int
    last: datetime | None
    unwritten: int


def use(session: Connection) -> ReceiptUse:
    """Return how receipts are used, for the page Enforcement."""
    holding = (receipt.c.superseded_at.is_(None), receipt.c.valid_until > epoch(session))
    columns = (receipt.c.verdict, sa.func.count().label("number"), sa.func.max(receipt.c.issued_at).label("last"))
    rows = session.execute(sa.select(*columns).where(*holding).group_by(receipt.c.verdict)).all()
    refused = sa.select(sa.func.count()).select_from(receipt_push).where(receipt_push.c.state == FAILED)
    denied = sum(row.number for row in rows if row.verdict == "deny")
    return ReceiptUse(
        sum(row.number for row in rows) - denied,
        denied,
        max((row.last for row in rows), default=None),
        session.execute(refused).scalar_one(),
    )


# Copies in registries


def request_push(session: Connection, digest: str, repository: str) -> None:
    """Request that the receipts in the image's registry become the current ones, if the registry takes receipts."""
    if not is_taken(session, repository):
        return
    own = (receipt_push.c.digest == digest, receipt_push.c.repository == repository)
    values = {"state": WAITING, "attempt": 0, "next_at": epoch(session), "reason": "", "message": ""}
    row = {"digest": digest, "repository": repository, "revision": 0, **values}
    insert_new(session, receipt_push, [row])
    # The revision lets `end_push` see that the receipts changed while a worker was writing them.
    session.execute(receipt_push.update().where(*own).values(revision=receipt_push.c.revision + 1, **values))


def due(session: Connection, *, limit: int = 20) -> tuple[PushView, ...]:
    """Return the pushes that are due, the longest due first."""
    now, next_at = epoch(session), receipt_push.c.next_at
    ready = sa.and_(
        receipt_push.c.state.in_((WAITING, FAILED)),
        # Later than the longest pause: the clock was set back since. A minute: time servers correct clocks by less.
        sa.or_(next_at <= now, next_at > now + _LONGEST_PAUSE + 60),
        _takes_receipts(receipt_push.c.repository),
    )
    query = sa.select(*receipt_push.c).where(ready).order_by(receipt_push.c.next_at).limit(limit)
    return tuple(_push(row) for row in session.execute(query))


def push_of(session: Connection, digest: str, repository: str) -> PushView | None:
    """Return the state of an image's receipts in its registry, or None."""
    own = (receipt_push.c.digest == digest, receipt_push.c.repository == repository)
    row = session.execute(sa.select(*receipt_push.c).where(*own)).first()
    return _push(row) if row else None


def to_push(session: Connection, digest: str, repository: str) -> tuple[ReceiptView, ...]:
    """Return the receipts that the registry should have: those that hold, for environments with a decision of their
    own.
    """
    own = (receipt.c.digest == digest, receipt.c.repository == repository, receipt.c.superseded_at.is_(None))
    decided = sa.exists().where(
        verdict.c.digest == receipt.c.digest,
        verdict.c.repository == receipt.c.repository,
        verdict.c.environment == receipt.c.environment,
    )
    holding = sa.and_(receipt.c.valid_until > epoch(session), decided)
    rows = session.execute(sa.select(*receipt.c).where(*own, holding).order_by(receipt.c.environment))
    return tuple(_view(row) for row in rows)


def end_push(session: Connection, push: PushView, note: str) -> None:
    """Record a push. If the receipts have changed meanwhile, it stays due. ``note``: what the registry did not do."""
    own = sa.and_(receipt_push.c.digest == push.digest, receipt_push.c.repository == push.repository)
    session.execute(receipt_push.update().where(own).values(pushed_at=moment(session)))
    unchanged = sa.and_(own, receipt_push.c.revision == push.revision)
    ended = {"state": PUSHED, "attempt": 0, "reason": "", "message": note[:1000]}
    session.execute(receipt_push.update().where(unchanged).values(**ended))


def fail_push(session: Connection, push: PushView, reason: str, message: str, retry_after: float | None) -> None:
    """Record a failure. It is tried again after a growing pause of up to an hour."""
    # Retry-After is hostile input: receipts of former decisions must not stay in a registry because a header says so.
    pause = min(_LONGEST_PAUSE, max(retry_after or 0.0, _FIRST_PAUSE * 2 ** min(push.attempt, 10)))
    own = sa.and_(receipt_push.c.digest == push.digest, receipt_push.c.repository == push.repository)
    values = {"state": FAILED, "attempt": push.attempt + 1, "next_at": epoch(session) + pause}
    values |= {"reason": reason[:64], "message": message[:1000]}
    session.execute(receipt_push.update().where(own, receipt_push.c.revision == push.revision).values(**values))


def _push(row: sa.Row[Any]) -> PushView:
    return PushView(
        row.digest,
        row.repository,
        row.state,
        row.revision,
        row.attempt,
        row.reason,
        row.message,
        row.pushed_at,
    )
