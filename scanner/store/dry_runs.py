"""Dry runs of policies: what was asked, how much was examined, and which verdicts would change.

The job of the same id (``store.jobs``) does the work and has the state. Each batch is stored with the place
where the next one begins, in one transaction, so another worker can continue.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.errors import NotFoundError
from scanner.model.decision import Verdict
from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import (
    audit_log,
    decision,
    dry_run,
    dry_run_change,
    inventory_source,
    job,
    listing,
    name_signature,
    report,
    revocation,
    running_mount,
    running_workload,
)
from scanner.store.session import moment

IMAGE, WORKLOAD = "image", "workload"
DENIED, RELEASED = "denied", "released"
_KEPT_DRY_RUNS = 3  # dry runs of one policy and person
_REASON_LENGTH = 4000  # characters of one reason


@dataclass(frozen=True)
class Share:
    """How much of the images, or of the workloads, was examined.

    ``known``: all of them. ``matching``: those that the policy, or the version that it replaces, applies to; None: not
    counted yet. ``skipped``: their evidence was removed meanwhile. ``later``: images without evidence from the day that
    was asked for. ``unscanned``: workloads that run or mount an image that was never scanned, so
    that only the rest was examined. ``denied``, ``released``, ``unchanged`` count decisions: one for each environment.
    ``after``: where to continue.
    """

    known: int = 0
    matching: int | None = None
    examined: int = 0
    skipped: int = 0
    later: int = 0
    unscanned: int = 0
    denied: int = 0
    released: int = 0
    unchanged: int = 0
    after: int = 0
    complete: bool = False


@dataclass(frozen=True)
class DryRun:
    """A dry run. ``as_of`` None: now. ``projects``: those that its requester saw; None: all."""

    id: str
    owner_id: str  # who may cancel it
    projects: frozenset[str] | None
    policy: str
    text: str  # the tried document, which need not be stored as a policy
    as_of: datetime | None
    images: Share
    workloads: Share
    created_at: datetime

    @property
    def denied(self) -> int:
        return self.images.denied + self.workloads.denied

    @property
    def released(self) -> int:
        return self.images.released + self.workloads.released


@dataclass(frozen=True)
class Change:
    """A verdict that would change.

    ``subject``: image or workload. ``change``: denied or released. ``reference``: digest or uid. ``rules``: those of
    the worse decision.
    """

    subject: str
    change: str
    name: str  # of the image or the workload
    reference: str
    project: str
    environment: str  # empty: the decision for no environment
    before: Verdict
    after: Verdict
    rules: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Changes of one rule in one project, which owns the images."""

    rule: str
    project: str
    denied: int  # decisions that would newly deny
    released: int  # decisions that would no longer deny


@dataclass(frozen=True)
class Filter:
    """Criteria for changes. All given ones must match."""

    subject: str = ""  # empty: both
    change: str = ""  # empty: both
    project: str = ""
    rule: str = ""


@dataclass(frozen=True)
class NamedImage:
    """A listed image with the evidence to examine. ``report_id`` empty: it has none from that time."""

    id: int
    project: str
    repository: str
    tag: str  # empty: scanned by digest
    digest: str
    report_id: str

    @property
    def name(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "")


def insert(
    session: Connection,
    identifier: str,
    owner_id: str,
    projects: frozenset[str] | None,
    policy: str,
    text: str,
    as_of: datetime | None,
) -> None:
    """Store what the job of this id examines. Earlier dry runs of the policy by this person are deleted."""
    session.execute(
        dry_run.insert().values(
            id=identifier,
            owner_id=owner_id,
            projects=None if projects is None else sorted(projects),
            policy=policy,
            text=text,
            as_of=as_of,
            images=dataclasses.asdict(Share()),
            workloads=dataclasses.asdict(Share()),
            created_at=moment(session),
        )
    )
    # A policy's author runs one after every edit, and each can have a row for every image.
    mine = sa.select(dry_run.c.id).where(dry_run.c.owner_id == owner_id, dry_run.c.policy == policy)
    rows = session.execute(mine.order_by(dry_run.c.created_at.desc(), dry_run.c.id).offset(_KEPT_DRY_RUNS)).scalars()
    for old in list(rows):
        session.execute(dry_run_change.delete().where(dry_run_change.c.dry_run_id == old))
        session.execute(dry_run.delete().where(dry_run.c.id == old))


def count_unfinished(session: Connection, owner_id: str, active: Sequence[str]) -> int:
    """Return the number of dry runs of a person whose job is in one of the states ``active``."""
    query = sa.select(sa.func.count()).select_from(dry_run.join(job, job.c.id == dry_run.c.id))
    return int(session.execute(query.where(dry_run.c.owner_id == owner_id, job.c.state.in_(active))).scalar_one())


def newest(session: Connection, owner_id: str, text: str, since: datetime) -> str | None:
    """Return the id of a person's newest dry run of the current state with this text, requested after ``since``."""
    query = sa.select(dry_run.c.id).where(
        dry_run.c.owner_id == owner_id,
        dry_run.c.text == text,
        dry_run.c.as_of.is_(None),
        dry_run.c.created_at > since,
    )
    found: str | None = session.execute(query.order_by(dry_run.c.created_at.desc()).limit(1)).scalar_one_or_none()
    return found


def evidence_changed(session: Connection, since: datetime, actions: Sequence[str]) -> bool:
    """Return whether a result, a decision, a signature or what runs changed after ``since``.

    Or something else that decides, which the audit log knows by ``actions`` (a group ends with a dot).
    """
    named = [
        audit_log.c.action.startswith(action, autoescape=True) if action.endswith(".") else audit_log.c.action == action
        for action in actions
    ]
    # Decisions are numbered as they are made: the newest is found by its key, without an index of times.
    newest_decision = sa.select(decision.c.decided_at).order_by(decision.c.id.desc()).limit(1)
    decided = session.execute(newest_decision).scalar_one_or_none()
    return (decided is not None and decided > since) or any(
        session.execute(sa.select(sa.literal(1)).where(condition).limit(1)).first() is not None
        for condition in (
            sa.and_(audit_log.c.at > since, sa.or_(*named)),
            report.c.created_at > since,
            inventory_source.c.changed_at > since,
            name_signature.c.updated_at > since,
            sa.or_(revocation.c.revoked_at > since, revocation.c.lifted_at > since),
        )
    )


def exists(session: Connection, identifier: str) -> bool:
    return session.execute(sa.select(dry_run.c.id).where(dry_run.c.id == identifier)).first() is not None


def get(session: Connection, identifier: str) -> DryRun:
    """Return a dry run. Raises NotFoundError."""
    row = session.execute(sa.select(*dry_run.c).where(dry_run.c.id == identifier)).first()
    if row is None:
        raise NotFoundError("there is no such dry run", hint="start a new one")
    return DryRun(
        row.id,
        row.owner_id,
        None if row.projects is None else frozenset(row.projects),
        row.policy,
        row.text,
        row.as_of,
        Share(**row.images),
        Share(**row.workloads),
        row.created_at,
    )


def keep(session: Connection, identifier: str, subject: str, share: Share, changes: Iterable[Change] = ()) -> None:
    """Store a batch: the share examined by now, and what would change."""
    rows = [
        {
            "dry_run_id": identifier,
            "subject": each.subject,
            "change": each.change,
            "name": each.name,
            "reference": each.reference,
            "project": each.project,
            "environment": each.environment,
            "verdict_before": each.before,
            "verdict_after": each.after,
            "rules": orjson.dumps(each.rules).decode(),
            "reasons": orjson.dumps([text[:_REASON_LENGTH] for text in each.reasons]).decode(),
        }
        for each in changes
    ]
    if rows:
        session.execute(dry_run_change.insert(), rows)
    column = "images" if subject == IMAGE else "workloads"
    session.execute(dry_run.update().where(dry_run.c.id == identifier).values({column: dataclasses.asdict(share)}))


def changes(
    session: Connection,
    identifier: str,
    projects: frozenset[str] | None,
    narrowed: Filter = Filter(),
    *,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[Change]:
    """Return what would change in these projects (None: all), in the order of examination."""
    columns = dry_run_change.c
    query = _in_projects(sa.select(*columns).where(columns.dry_run_id == identifier), projects)
    for name, value in (
        ("subject", narrowed.subject),
        ("change", narrowed.change),
        ("project", narrowed.project),
    ):
        if value:
            query = query.where(columns[name] == value)
    if narrowed.rule:
        # With its quotes, so that a rule is not found by the beginning of another rule's name.
        quoted = orjson.dumps(narrowed.rule).decode()
        query = query.where(columns.rules.contains(quoted, autoescape=True))
    if cursor:
        query = query.where(columns.id > decode_cursor(cursor, (int,))[0])
    rows = session.execute(query.order_by(columns.id).limit(limit + 1)).all()
    items = tuple(
        Change(
            r.subject,
            r.change,
            r.name,
            r.reference,
            r.project,
            r.environment,
            Verdict(r.verdict_before),
            Verdict(r.verdict_after),
            tuple(orjson.loads(r.rules)),
            tuple(orjson.loads(r.reasons)),
        )
        for r in rows[:limit]
    )
    return Page(items, encode_cursor(rows[limit - 1].id) if len(rows) > limit else None)


def groups(session: Connection, identifier: str, projects: frozenset[str] | None) -> tuple[Group, ...]:
    """Return the number of changes by rule and project, most denied first. A change by two rules counts for both."""
    columns = dry_run_change.c
    query = sa.select(columns.rules, columns.project, columns.change, sa.func.count().label("number"))
    query = _in_projects(query.where(columns.dry_run_id == identifier), projects)
    counts = Counter[tuple[str, str, str]]()
    for row in session.execute(query.group_by(columns.rules, columns.project, columns.change)):
        # A change whose decision names no rule is counted as well, under an empty name.
        for rule in orjson.loads(row.rules) or [""]:
            counts[rule, row.project, row.change] += row.number
    names = {(rule, project) for rule, project, _ in counts}
    found = [Group(*name, counts[(*name, DENIED)], counts[(*name, RELEASED)]) for name in names]
    return tuple(sorted(found, key=lambda each: (-each.denied, -each.released, each.rule, each.project)))


# What is examined


def repositories(session: Connection, projects: frozenset[str] | None) -> dict[str, int]:
    """Return the number of listed images by repository."""
    query = sa.select(listing.c.repository, sa.func.count().label("number")).group_by(listing.c.repository)
    if projects is not None:
        query = query.where(listing.c.project.in_(projects))
    return {row.repository: row.number for row in session.execute(query)}


def images_after(
    session: Connection, projects: frozenset[str] | None, after: int, limit: int
) -> tuple[NamedImage, ...]:
    """Return listed images by id: a scan during the dry run moves no image, as it would in the order of scans."""
    own = listing.c
    query = sa.select(own.id, own.project, own.repository, own.tag, own.digest, own.report_id).where(own.id > after)
    if projects is not None:
        query = query.where(own.project.in_(projects))
    return tuple(NamedImage(*row) for row in session.execute(query.order_by(own.id).limit(limit)))


def evidence_at(session: Connection, image: NamedImage, at: datetime) -> str:
    """Return the id of the evidence that an image had at a moment; empty: none.

    It is the newest one by then of the same platforms, of the same engines if there is any.
    """
    current = sa.select(report.c.engine, report.c.platform).where(report.c.id == image.report_id)
    now = session.execute(current).first()
    if now is None:
        return ""
    same = (
        report.c.digest == image.digest,
        report.c.repository == image.repository,
        report.c.tag == image.tag,
        report.c.platform == now.platform,
        report.c.created_at <= at,
    )
    # Preferred, not required: the project may have changed its engine since, and evidence of the former engine is
    # better than none.
    other_engine = sa.case((report.c.engine == now.engine, 0), else_=1)
    query = sa.select(report.c.id).where(*same).order_by(other_engine, report.c.created_at.desc(), report.c.id)
    return session.execute(query.limit(1)).scalar() or ""


def running(session: Connection, projects: frozenset[str] | None) -> dict[tuple[tuple[str, ...], str], int]:
    """Return the number of running workloads by the repositories that they run and mount, and by environment."""
    own = running_workload.c
    query = sa.select(own.repository, own.environment, sa.func.count().label("number"))
    mounting = sa.select(own.id, own.repository, own.environment, running_mount.c.repository.label("mounted"))
    mounting = mounting.join(running_mount, running_mount.c.workload_id == own.id)
    if projects is not None:
        query, mounting = (each.where(own.project.in_(projects)) for each in (query, mounting))
    rows = session.execute(query.group_by(own.repository, own.environment))
    found: Counter[tuple[tuple[str, ...], str]] = Counter()
    for row in rows:
        found[(row.repository,), row.environment] = row.number
    # Few workloads mount images. Those are moved from the group of their own repository to one of their own.
    moved: dict[tuple[int, str, str], set[str]] = defaultdict(set)
    for row in session.execute(mounting):
        moved[row.id, row.repository, row.environment].add(row.mounted)
    for (_, repository, environment), mounts in moved.items():
        found[(repository,), environment] -= 1
        found[(repository, *sorted(mounts)), environment] += 1
    return +found


def workloads_after(
    session: Connection, projects: frozenset[str] | None, after: int, limit: int
) -> tuple[tuple[int, str, tuple[str, ...], str], ...]:
    """Return id, uid, the repositories that they run and mount, and environment of running workloads, by id."""
    own = running_workload.c
    query = sa.select(own.id, own.uid, own.repository, own.environment).where(own.id > after)
    if projects is not None:
        query = query.where(own.project.in_(projects))
    rows = session.execute(query.order_by(own.id).limit(limit)).all()
    mounts: dict[int, set[str]] = defaultdict(set)
    if rows:
        # By the range of ids: hundreds of them in a list would be a statement of its own for each length.
        between = running_mount.c.workload_id.between(rows[0].id, rows[-1].id)
        for each in session.execute(sa.select(running_mount.c.workload_id, running_mount.c.repository).where(between)):
            mounts[each.workload_id].add(each.repository)
    return tuple((row.id, row.uid, (row.repository, *sorted(mounts[row.id])), row.environment) for row in rows)


def _in_projects(query: sa.Select[Any], projects: frozenset[str] | None) -> sa.Select[Any]:
    return query if projects is None else query.where(dry_run_change.c.project.in_(projects))
