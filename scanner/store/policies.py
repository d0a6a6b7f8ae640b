"""Policies: versions are immutable, and the newest version of an enabled policy applies."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.errors import ConflictError, NotFoundError
from scanner.model.audit import Action
from scanner.model.reference import Digest
from scanner.store.schema import audit_log, policy, policy_version
from scanner.store.session import moment


@dataclass(frozen=True)
class PolicyView:
    """One version of a policy. ``digest`` is its ETag. ``project`` empty: it applies to every project."""

    name: str
    version: int  # from 1; a version never changes
    text: str
    digest: str
    author: str
    created_at: datetime
    enabled: bool  # False: kept, but no decision uses it
    project: str = ""


def put(
    session: Connection, name: str, text: str, author: str, *, if_version: int | None = None, project: str = ""
) -> PolicyView:
    """Insert a version of a policy that the caller has validated. An unchanged text creates no version.

    ``if_version``: the version that the author edited; 0: new. ``project`` owns a new policy and cannot be changed.

    Raises ConflictError(reason="edited_meanwhile").
    """
    now, digest = moment(session), Digest.of(text.encode())
    current = session.execute(sa.select(policy.c.version).where(policy.c.name == name)).scalar()
    # Two authors who edit one version: the second must see the first one's change instead of overwriting it.
    if if_version is not None and if_version != (current or 0):
        raise ConflictError(
            f"someone else changed policy {name!r}", reason="edited_meanwhile", hint="reload it and repeat your change"
        )
    if current and (there := get(session, name)).digest == digest:
        return there
    version = (current or 0) + 1
    if current is None:
        session.execute(
            policy.insert().values(name=name, version=version, enabled=True, updated_at=now, project=project)
        )
    else:
        session.execute(policy.update().where(policy.c.name == name).values(version=version, updated_at=now))
    session.execute(
        policy_version.insert().values(
            name=name, version=version, text=text, digest=digest, author=author, created_at=now
        )
    )
    return get(session, name)


def get(
    session: Connection, name: str, version: int | None = None, projects: frozenset[str] | None = None
) -> PolicyView:
    """Return a version, or the newest. Raises NotFoundError, also for another project's policy."""
    query = _views().where(policy.c.name == name)
    query = query.where(policy_version.c.version == (version if version is not None else policy.c.version))
    row = session.execute(_limited_to(query, projects)).first()
    if row is None:
        raise NotFoundError("there is no such policy")
    return _view(row)


def list_policies(session: Connection, projects: frozenset[str] | None = None) -> tuple[PolicyView, ...]:
    """Return the newest version of every policy that applies to these projects (None: all), by name."""
    query = _views().where(policy_version.c.version == policy.c.version)
    rows = session.execute(_limited_to(query, projects).order_by(policy.c.name))
    return tuple(_view(row) for row in rows)


def enabled_at(session: Connection, at: datetime) -> tuple[PolicyView, ...]:
    """Return the policies that were enabled at a past moment, each in its newest version by then, by name.

    The audit log has when each was enabled and disabled. A policy is enabled when it is created.
    """
    latest = (
        sa.select(policy_version.c.name, sa.func.max(policy_version.c.version).label("version"))
        .where(policy_version.c.created_at <= at)
        .group_by(policy_version.c.name)
        .subquery("latest")
    )
    switches = (Action.POLICY_ENABLE, Action.POLICY_DISABLE)
    query = sa.select(audit_log.c.object, audit_log.c.action).where(audit_log.c.action.in_(switches))
    rows = session.execute(query.where(audit_log.c.at <= at).order_by(audit_log.c.id))
    # In the order of the log, so that the last switch before the moment stays.
    switched = {row.object: row.action for row in rows}
    views = _views().join(latest, sa.and_(latest.c.name == policy.c.name, latest.c.version == policy_version.c.version))
    found = (_view(row) for row in session.execute(views.order_by(policy.c.name)))
    return tuple(each for each in found if switched.get(each.name) != Action.POLICY_DISABLE)


def versions(session: Connection, name: str, projects: frozenset[str] | None = None) -> tuple[PolicyView, ...]:
    """Return all versions, the newest first. Raises NotFoundError, also for another project's policy."""
    query = _limited_to(_views().where(policy.c.name == name), projects)
    rows = session.execute(query.order_by(policy_version.c.version.desc())).all()
    if not rows:
        raise NotFoundError("there is no such policy")
    return tuple(_view(row) for row in rows)


def enable(session: Connection, name: str, enabled: bool) -> None:
    """Enable or disable a policy. Raises NotFoundError."""
    if (
        session.execute(
            policy.update().where(policy.c.name == name).values(enabled=enabled, updated_at=moment(session))
        ).rowcount
        != 1
    ):
        raise NotFoundError("there is no such policy")


def _limited_to(query: sa.Select[Any], projects: frozenset[str] | None) -> sa.Select[Any]:
    """Limit the query to policies of the projects and those that apply to every project."""
    return query if projects is None else query.where(policy.c.project.in_(["", *projects]))


def _view(row: sa.Row[Any]) -> PolicyView:
    return PolicyView(row.name, row.version, row.text, row.digest, row.author, row.created_at, row.enabled, row.project)


def _views() -> sa.Select[Any]:
    return sa.select(
        policy.c.name,
        policy_version.c.version,
        policy_version.c.text,
        policy_version.c.digest,
        policy_version.c.author,
        policy_version.c.created_at,
        policy.c.enabled,
        policy.c.project,
    ).join(policy_version, policy_version.c.name == policy.c.name)
