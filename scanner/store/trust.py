"""Trust roots (versioned, public keys only), signatures by name, and the state that verifiers need against rollback."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from scanner.errors import ConflictError, NotFoundError
from scanner.model.finding import TrustStatus, Verification
from scanner.model.scan import ScanReport
from scanner.store.schema import name_signature, trust_root, trust_root_version, trust_state
from scanner.store.session import Database, moment


@dataclass(frozen=True)
class RootView:
    """One version of a trust root. ``document`` was validated by its scheme and contains no secret."""

    name: str
    version: int  # a replaced root gets the next one; answers name the version that they used
    scheme: str
    scope: tuple[str, ...]  # globs over host/repository; empty: every repository
    document: Mapping[str, Any]
    author: str
    created_at: datetime


def put(
    session: Connection,
    name: str,
    scheme: str,
    document: Mapping[str, Any],
    scope: Sequence[str],
    author: str,
    *,
    if_version: int | None = None,
) -> RootView:
    """Insert a version. Nothing is written if nothing changes.

    ``if_version``: the version that the author edited; 0: new.

    Raises ConflictError(reason="edited_meanwhile").
    """
    now = moment(session)
    row = session.execute(
        sa.select(trust_root.c.version, trust_root.c.removed).where(trust_root.c.name == name)
    ).first()
    there = get(session, name) if row is not None and not row.removed else None
    if if_version is not None and if_version != (there.version if there else 0):
        raise ConflictError(
            f"someone else changed trust root {name!r}",
            reason="edited_meanwhile",
            hint="reload it and repeat your change",
        )
    if there and (there.scheme, there.document, there.scope) == (scheme, document, tuple(scope)):
        return there
    # A removed root that is written again continues its numbers: decisions refer to versions, and no number may stand
    # for two documents.
    version = (row.version if row else 0) + 1
    values = {"version": version, "removed": False, "updated_at": now}
    if row is None:
        session.execute(trust_root.insert().values(name=name, **values))
    else:
        session.execute(trust_root.update().where(trust_root.c.name == name).values(**values))
    session.execute(
        trust_root_version.insert().values(
            name=name,
            version=version,
            scheme=scheme,
            scope=list(scope),
            document=json.dumps(document, sort_keys=True),
            author=author,
            created_at=now,
        )
    )
    return get(session, name)


def get(session: Connection, name: str) -> RootView:
    """Return the newest version. Raises NotFoundError."""
    row = session.execute(_views().where(trust_root.c.name == name)).first()
    if row is None:
        raise NotFoundError("there is no such trust root", hint="list the trust roots: dockwarden trust root list")
    return _view(row)


def list_roots(session: Connection) -> tuple[RootView, ...]:
    """Return the newest version of each trust root, by name."""
    return tuple(_view(row) for row in session.execute(_views().order_by(trust_root.c.name)))


def versions(session: Connection) -> tuple[RootView, ...]:
    """Every version of every trust root, also of those that were removed."""
    query = sa.select(*trust_root_version.c).order_by(trust_root_version.c.name, trust_root_version.c.version)
    return tuple(_view(row) for row in session.execute(query))


def erase(session: Connection, name: str, version: int) -> None:
    """Replace the document of one version by a note that it was erased. Nothing of it stays in the database's file."""
    if session.dialect.name == "sqlite":
        session.exec_driver_sql("PRAGMA secure_delete = ON")  # freed pages are overwritten
    this = (trust_root_version.c.name == name) & (trust_root_version.c.version == version)
    note = json.dumps({"erased": "it held a private key"})
    session.execute(trust_root_version.update().where(this).values(document=note))


def remove(session: Connection, name: str) -> None:
    """Mark a trust root as removed. Its versions are kept, because decisions refer to them. Raises NotFoundError."""
    there = (trust_root.c.name == name) & ~trust_root.c.removed
    values = {"removed": True, "updated_at": moment(session)}
    if session.execute(trust_root.update().where(there).values(**values)).rowcount != 1:
        raise NotFoundError("there is no such trust root", hint="list the trust roots: dockwarden trust root list")


def _views() -> sa.Select[Any]:
    newest = (trust_root_version.c.name == trust_root.c.name) & (trust_root_version.c.version == trust_root.c.version)
    return sa.select(*trust_root_version.c).join(trust_root, newest).where(~trust_root.c.removed)


def _view(row: sa.Row[Any]) -> RootView:
    document = json.loads(row.document)
    return RootView(row.name, row.version, row.scheme, tuple(row.scope), document, row.author, row.created_at)


@dataclass(frozen=True)
class SignedName:
    """A name with the last result of each signature scheme."""

    project: str
    repository: str
    tag: str
    digest: str
    answers: tuple[Verification, ...]  # the last ones


def note(session: Connection, found: ScanReport, project: str) -> None:
    """Store the signature results of the scanned name. Images without a repository are skipped."""
    if not found.repository or not found.images:
        return
    name = {"project": project, "repository": found.repository, "tag": found.tag}
    # Without the predicates, which can be megabytes (an SBOM in an attestation). They are in the evidence.
    answers = tuple(replace(v, predicate=()) for v in found.images[0].verifications)
    values = {
        "digest": str(found.digest),
        "answers": _answers().dump_python(answers, mode="json"),
        "updated_at": moment(session),
        "expires_at": min(_ends(answers), default=None),
    }
    mine = sa.and_(*(name_signature.c[column] == value for column, value in name.items()))
    if session.execute(name_signature.update().where(mine).values(**values)).rowcount == 0:
        with contextlib.suppress(IntegrityError), session.begin_nested():  # another scan of the name was first
            session.execute(name_signature.insert().values(**name, **values))


def _ends(answers: Iterable[Verification]) -> Iterator[datetime]:
    for answer in answers:
        if answer.status is TrustStatus.VERIFIED and not answer.predicate_type:
            yield from (signer.expires for signer in answer.signers if signer.expires)


@dataclass(frozen=True)
class EndingSignature:
    """A name whose verified signature expires soon or has expired since."""

    repository: str
    tag: str
    digest: str
    expires_at: datetime
    project: str


def ending_signatures(
    session: Connection, projects: frozenset[str] | None, before: datetime, limit: int = 6
) -> tuple[int, tuple[EndingSignature, ...]]:
    """Return the number of names with a signature that expires before ``before``, and the first ones to expire."""
    names = ("repository", "tag", "digest", "expires_at", "project")
    query = sa.select(*(name_signature.c[name] for name in names)).where(name_signature.c.expires_at < before)
    if projects is not None:
        query = query.where(name_signature.c.project.in_(projects))
    count = session.execute(sa.select(sa.func.count()).select_from(query.subquery())).scalar_one()
    rows = session.execute(query.order_by(name_signature.c.expires_at).limit(limit))
    return count, tuple(EndingSignature(*row) for row in rows)


def signed_names(
    session: Connection, projects: frozenset[str] | None = None, limit: int = 20_000
) -> tuple[SignedName, ...]:
    """Return the signature results of all scanned names, by repository."""
    query = sa.select(*name_signature.c).order_by(name_signature.c.repository, name_signature.c.tag).limit(limit)
    if projects is not None:
        query = query.where(name_signature.c.project.in_(projects))
    return tuple(
        SignedName(row.project, row.repository, row.tag, row.digest, _answers().validate_python(row.answers))
        for row in session.execute(query)
    )


@lru_cache(maxsize=1)
def _answers() -> TypeAdapter[tuple[Verification, ...]]:
    return TypeAdapter(tuple[Verification, ...])


class StoredState:
    """A `scanner.trust.base.TrustState` in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, key: str) -> bytes | None:
        with self._database.read() as session:
            state = session.execute(sa.select(trust_state.c.state).where(trust_state.c.key == _hash(key))).scalar()
        return None if state is None else bytes(state)

    def save(self, key: str, state: bytes, replacing: bytes | None) -> bool:
        """See ``TrustState.save``. The stored bytes are compared, so that threads can share one object."""

        def write(session: Connection) -> bool:
            values = {"state": state, "updated_at": moment(session)}
            if replacing is None:
                try:
                    with session.begin_nested():
                        session.execute(trust_state.insert().values(key=_hash(key), name=key, revision=1, **values))
                except IntegrityError:  # another run was first
                    return False
                return True
            # Compare and swap. Of two scans that read the same state, the slower one must not write back an older
            # version, which would open the door to a rollback attack.
            mine = (trust_state.c.key == _hash(key)) & (trust_state.c.state == replacing)
            later = {"revision": trust_state.c.revision + 1, **values}
            return session.execute(trust_state.update().where(mine).values(**later)).rowcount == 1

        return self._database.transact(write)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def forget(session: Connection, gun: str) -> int:
    """Delete the state of a name under all trust anchors and return the number of rows.

    For a repository whose owner created its metadata again: its lower versions would count as a rollback.
    """
    names = session.execute(sa.select(trust_state.c.key, trust_state.c.name)).all()
    keys = [row.key for row in names if row.name.partition("#")[0] == gun]
    return session.execute(trust_state.delete().where(trust_state.c.key.in_(keys))).rowcount
