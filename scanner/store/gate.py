"""The gate's query: the token, its owner and the current decision about a digest, in one indexed SELECT.

The decision is stored as the JSON of the answer, so it is returned without serialisation. The query bypasses
SQLAlchemy, whose result handling took 230 of 480 us per call (benchmarks/gate.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.model.access import reach
from scanner.model.glob import matches
from scanner.model.scan import Lane, ScanRequest, ScanState
from scanner.store import inventory, scans
from scanner.store.direct import Direct
from scanner.store.schema import break_glass, project_member, scan, scan_told, token, user, verdict
from scanner.store.session import beside, epoch, insert_new, moment, take_lock

# Shared by transactions that decide, exclusive for those that change what decisions rest on.
_DECIDING = 0x0D0C4A0D1E
_NOTED_EVERY = 60.0  # seconds between two records of a token's use
_SELECT = f"""
    SELECT t.id, t.name, {{scopes}}, {{projects}}, t.owner_id, u.role, {{expires}}, {{used}}, {{now}},
           v.document, v.valid_until, v.repository, v.report_id, v.project, {{members}},
           (SELECT max(g.until) FROM {break_glass.name} g WHERE g.digest = {{digest}} AND g.ended_at IS NULL)
    FROM {token.name} t
    LEFT JOIN {user.name} u ON u.id = t.owner_id
    LEFT JOIN {verdict.name} v
           ON v.digest = {{digest}} AND v.repository = {{repository}} AND v.environment = {{environment}}
    WHERE t.hash = {{hash}} AND t.revoked_at IS NULL AND (u.id IS NULL OR NOT u.disabled)
"""  # noqa: S608  table names are constants; all values are bound parameters
_NAMES = ("hash", "digest", "repository", "environment")
_STATEMENTS: Mapping[str, str] = {
    "sqlite": _SELECT.format(
        scopes="t.scopes",
        projects="t.projects",
        expires="(julianday(t.expires_at) - 2440587.5) * 86400.0",
        used="(julianday(t.last_used_at) - 2440587.5) * 86400.0",
        now="(julianday('now') - 2440587.5) * 86400.0",
        members=f"(SELECT json_group_array(m.project) FROM {project_member.name} m WHERE m.user_id = t.owner_id)",  # noqa: S608
        **{name: f":{name}" for name in _NAMES},
    ),
    "postgresql": _SELECT.format(
        scopes="t.scopes::text",
        projects="t.projects::text",
        expires="extract(epoch FROM t.expires_at)::float8",
        used="extract(epoch FROM t.last_used_at)::float8",
        now="extract(epoch FROM clock_timestamp())::float8",
        members=f"(SELECT json_agg(m.project)::text FROM {project_member.name} m WHERE m.user_id = t.owner_id)",  # noqa: S608
        **{name: f"%({name})s" for name in _NAMES},
    ),
}


@dataclass(frozen=True)
class GateRow:
    """The current decision about a digest as JSON. ``valid_until``: seconds since 1970; None: no end."""

    document: str  # the decision as the API answers it, so that the gate does not build it anew
    valid_until: float | None
    repository: str
    report_id: str  # of the evidence that it was decided on
    project: str


@dataclass(frozen=True, slots=True)
class GateLookup:
    """A valid token with the current decision (``row``; None: there is none for that name and environment).

    ``projects``: those that the token can see; None: all. ``current`` False: the decision is outdated. ``unnoted``: the
    caller should record the token's use.
    """

    token_id: str
    name: str
    scopes: tuple[str, ...]
    projects: frozenset[str] | None
    owner_id: str | None
    owner_role: str  # the token can do no more than its owner; empty: it has none
    unnoted: bool
    row: GateRow | None
    current: bool
    # A person lets the digest through in an emergency, so that the row is not the answer.
    broken_glass: bool = False


class Gate(Direct):
    """Runs the query."""

    def ask(self, token_hash: str, digest: str, repository: str, environment: str) -> GateLookup | None:
        """Run the query. None: no valid token has this hash. The caller checks scopes.

        Raises RemoteError if a second attempt on a new connection fails, too, with a reason as ``Database.session``.
        """
        values = {"hash": token_hash, "digest": digest, "repository": repository, "environment": environment}
        row = self.one(_STATEMENTS, values)
        return None if row is None else _lookup(row)


def _lookup(row: tuple[Any, ...]) -> GateLookup | None:
    (
        token_id,
        name,
        scopes,
        projects,
        owner_id,
        role,
        expires,
        used,
        now,
        document,
        until,
        repository,
        report,
        project,
        members,
        glass,
    ) = row
    # By the database's clock, which is in the same row. The clock of this process may differ.
    if expires is not None and expires <= now:
        return None
    member_of = orjson.loads(members) if members else ()
    allowed = reach(orjson.loads(projects), role=role or "", member_of=member_of, owned=owner_id is not None)
    found = None
    # Visibility is decided after the query. A token without access gets the same answer as for an unknown digest.
    if document is not None and (allowed is None or project in allowed):
        found = GateRow(document, until, repository, report, project)
    return GateLookup(
        token_id,
        name,
        tuple(orjson.loads(scopes)),
        allowed,
        owner_id,
        role or "",
        unnoted=used is None or used < now - _NOTED_EVERY,
        row=found,
        current=found is not None and (until is None or until > now),
        broken_glass=glass is not None and glass > now,
    )


def current_decision(
    session: Connection, digest: str, environment: str, repository: str | None, projects: frozenset[str] | None
) -> GateRow | None:
    """Return the current decision for the repository, or the worst of all repositories of the digest if it is None."""
    query = sa.select(
        verdict.c.document, verdict.c.valid_until, verdict.c.repository, verdict.c.report_id, verdict.c.project
    )
    query = query.where(verdict.c.digest == digest, verdict.c.environment == environment)
    if repository is not None:
        query = query.where(verdict.c.repository == repository)
    if projects is not None:
        query = query.where(verdict.c.project.in_(projects))
    # The document is the JSON that `decision_text` writes, without spaces, so the verdict can be found without parsing
    # it. The database compares them: an image may be in any number of repositories.
    rank = sa.case(
        (verdict.c.document.contains('"verdict":"deny"', autoescape=True), 0),
        (verdict.c.document.contains('"verdict":"warn"', autoescape=True), 1),
        else_=2,
    )
    worst = session.execute(query.order_by(rank).limit(1)).first()
    if worst is None:
        return None
    return GateRow(worst.document, worst.valid_until, worst.repository, worst.report_id, worst.project)


def lookup(session: Connection, digest: str, repository: str, environment: str) -> GateLookup:
    """Return what `Gate.ask` returns, for a caller without a token: one who sees every project."""
    row = current_decision(session, digest, environment, repository, None)
    until = session.execute(
        sa.select(sa.func.max(break_glass.c.until)).where(
            break_glass.c.digest == digest, break_glass.c.ended_at.is_(None)
        )
    ).scalar_one()
    current = row is not None and is_valid(session, row)
    broken = until is not None and until > epoch(session)
    return GateLookup("", "", (), None, None, "", unnoted=False, row=row, current=current, broken_glass=broken)


def is_valid(session: Connection, row: GateRow) -> bool:
    """Return whether the decision is still valid by the database's clock."""
    return row.valid_until is None or row.valid_until > epoch(session)


def begin_decision(session: Connection) -> None:
    """Let changes of policies and exemptions wait until this transaction ends. Call it before other locks are taken.

    Otherwise a change that is committed between the reading of the policies and the storing of the decision finds
    nothing to mark as outdated, and the former policy stays active for the image.
    """
    beside(session, _DECIDING)


def begin_change(session: Connection) -> None:
    """Wait for decisions that are being made, and let new ones wait for this transaction.

    `invalidate` does it. Call it earlier where rows are changed before that a decision may lock, or the audit log is
    written.
    """
    take_lock(session, _DECIDING)


def invalidate(session: Connection) -> int:
    """Mark every current decision as outdated, because policies changed. Returns their number.

    They are renewed when they are next used, so a policy change stays fast.
    """
    count = _make_stale(session, sa.true())
    inventory.invalidate(session)
    return count


def invalidate_for(session: Connection, project: str, images: Sequence[str]) -> int:
    """As `invalidate`, for some images of a project: globs over host/repository, or digests."""
    begin_change(session)  # before the names are read: a decision that is being made may be the first of its name
    own = verdict.c.project == project
    names = session.execute(sa.select(verdict.c.repository).where(own).distinct()).scalars()
    named = [name for name in names if matches(images, name)]
    # Globs are matched here, not in SQL: the rules of globs (what `**` covers) must be those by which the policy
    # later decides.
    stale = sa.or_(verdict.c.repository.in_(named), verdict.c.digest.in_(images))
    count = _make_stale(session, sa.and_(own, stale))
    inventory.invalidate(session, project)
    return count


def _make_stale(session: Connection, which: sa.ColumnElement[bool]) -> int:
    """Mark decisions as outdated.

    An UPDATE locks rows in any order, while a scan that is recorded locks them by key. Locking by key first prevents a
    deadlock of both.
    """
    begin_change(session)
    key = (verdict.c.digest, verdict.c.repository, verdict.c.environment)
    held = sa.select(verdict.c.digest).where(which).order_by(*key).with_for_update().subquery()
    session.execute(sa.select(sa.func.count()).select_from(held)).scalar_one()
    return session.execute(verdict.update().where(which).values(valid_until=0.0)).rowcount


def recent_scan(session: Connection, asked: ScanRequest, seconds: float) -> scans.ScanView | None:
    """Return the newest scan of an equal request within ``seconds``. None: a new scan is needed.

    A finished or running scan is always returned. One that waits to be tried again is returned however old it is: while
    a registry is away, a polling client would start another scan every minute, and would never learn why.

    A failed one is returned once, and only if the gate requested it: a polling client must see the failure, but the
    next request starts a new scan, because the cause may be gone. After a later push of the tag the failure is not
    returned: it is about another image, or about none.
    """
    same = sa.and_(
        scan.c.target == asked.target,
        scan.c.project == asked.project,
        scan.c.engine == asked.engine,
        scan.c.platform.is_(None) if asked.platform is None else scan.c.platform == str(asked.platform),
    )
    is_recent = scan.c.created_epoch > epoch(session) - seconds
    waits = sa.and_(scan.c.lane == Lane.GATE, scan.c.state == ScanState.RETRY_WAIT)
    query = sa.select(scan.c.id, scan.c.lane, scan.c.created_epoch).where(same, sa.or_(is_recent, waits))
    newest = session.execute(query.order_by(scan.c.created_epoch.desc()).limit(1)).first()
    if newest is None:
        return None
    view = scans.get(session, newest.id)
    if not view.state.terminal or view.state is ScanState.DONE:
        return view
    told = session.execute(sa.select(scan_told.c.scan_id).where(scan_told.c.scan_id == newest.id)).first()
    if told or newest.lane != Lane.GATE:
        return None
    # Webhooks name the digest as well, so their scans have another target: host/repo:tag@sha256:...
    of_tag = scan.c.target.startswith(f"{asked.target}@", autoescape=True)
    pushed = sa.select(scan.c.id).where(of_tag, scan.c.created_epoch >= newest.created_epoch).limit(1)
    return None if session.execute(pushed).first() else view


def note_failure_reported(session: Connection, scan_id: str) -> None:
    """Record that the gate has reported the failure of this scan. See `recent_scan`."""
    insert_new(session, scan_told, [{"scan_id": scan_id, "told_at": moment(session)}])
