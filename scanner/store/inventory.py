"""Running workloads, reported as snapshots by sources.

A snapshot replaces the source's previous one completely in one transaction. Unchanged workloads keep their row.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.errors import ConflictError, NotFoundError
from scanner.model.decision import Verdict
from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import (
    decision,
    finding,
    image,
    image_stack,
    inventory_source,
    listing,
    running_mount,
    running_workload,
    scan,
    tag_move,
    verdict,
    vulnerability,
)
from scanner.store.session import epoch, moment

_CHUNK = 500  # rows of one statement
_MOST_AGENTS = 8  # of one source, that are remembered
_TURN = timedelta(minutes=15)
_CONTESTED = timedelta(hours=1)
# Values of a filter that are offered, the most frequent ones.
_FREQUENT = 50
_DECISION_COLUMNS = (
    "project",
    "repository",
    "tag",
    "digest",
    "by_tag",
    "rank",
    "verdict",
    "undecided",
    "image_verdict",
    "image_undecided",
    "failed",
    "mounted",
    "results",
    "checked_with",
    "decision",
    "decided_at",
    "valid_until",
)
_FACET_COLUMNS = ("verdict", "namespace", "image", "owner", "check")
UNDECIDED = "undecided"
IMAGE_UNKNOWN = ""  # the verdict of an image that was never scanned


@dataclass(frozen=True)
class SourceView:
    """A host, a cluster or a project whose workloads are reported together. ``digest`` is that of the snapshot."""

    id: str
    environment: str
    source: str
    name: str
    generation: int  # of the last snapshot; an older one is refused
    digest: str
    workloads: int
    reported_by: str
    reported_at: datetime
    changed_at: datetime  # when its workloads last differed from the snapshot before
    agents: Sequence[str] = ()  # the last ones that reported it, the current one last
    every_seconds: int = 0  # how often the current agent reports; 0: unknown
    refused_agent: str = ""
    refused_at: datetime | None = None

    @property
    def agent(self) -> str:
        """The agent that reports it: host and target. Empty: it has not reported since agents have names."""
        return self.agents[-1] if self.agents else ""

    @property
    def contested(self) -> bool:
        """Whether another agent tries to report it as well: until an hour after its last try."""
        return self.refused_at is not None and self.refused_at >= self.reported_at - _CONTESTED

    def free_at(self, agent: str) -> datetime | None:
        """Return when ``agent`` may report it, because another one does until then. None: at once.

        Two agents that report one source would remove each other's workloads with each report.
        """
        if self.agent in ("", agent):
            return None
        if self.every_seconds:
            # It watches. An agent that replaces it waits until it has missed a report: a new pod of a Deployment.
            return self.reported_at + timedelta(seconds=2 * self.every_seconds + 60)
        # Single reports, as of a CronJob whose pods have a new name each time. An agent that comes back has been
        # replaced, or takes turns with the other one.
        return self.reported_at + _TURN if agent in self.agents else None


def _short_image(image: str) -> str:
    name, at, digest = image.partition("@")
    return f"{name}@{digest[:19]}…" if at else name


@dataclass(frozen=True)
class MountedImage:
    """An image whose files a workload mounts. ``verdict`` empty: it was never scanned. ``image``: as the source writes
    it.
    """

    image: str
    repository: str
    tag: str
    digest: str
    by_tag: bool  # the digest is the tag's last known one
    project: str
    verdict: str
    undecided: bool

    @property
    def short(self) -> str:
        """Return the image with a shortened digest."""
        return _short_image(self.image)

    @property
    def target(self) -> str:
        """What to scan. Empty: it has neither tag nor digest."""
        return _target(self.repository, self.tag, "" if self.by_tag else self.digest)


@dataclass(frozen=True)
class WorkloadDecision:
    """The decision about a workload and its image.

    ``rank``: see ``rank_of``. ``by_tag``: the digest is the tag's last known one, not a reported one. ``failed``:
    ids of failed checks. ``results``: all results, compressed. ``checked_with``: version and evidence that the
    results are based on. ``decision``: its JSON. ``valid_until``: seconds since 1970; None: no end.
    """

    project: str
    repository: str
    tag: str
    digest: str
    by_tag: bool
    rank: int
    verdict: Verdict
    undecided: bool
    image_verdict: str  # empty: the image was never scanned
    image_undecided: bool
    failed: tuple[str, ...]
    mounted: tuple[MountedImage, ...]  # images whose files it mounts; each counts for the verdict
    results: bytes
    checked_with: str
    decision: str
    decided_at: datetime
    valid_until: float | None


@dataclass(frozen=True)
class NewWorkload:
    """A workload of a snapshot that is new, or whose facts changed."""

    name: str
    facts_digest: str  # to see without parsing that nothing changed
    facts: bytes  # compressed JSON
    namespace: str
    kind: str
    owner: str
    image: str
    judged: WorkloadDecision


@dataclass(frozen=True)
class WorkloadRow:
    """A running workload in a list. ``overall`` is the worse of the workload's and the image's verdict."""

    id: int
    uid: str  # the public id: ``id`` would tell how many there are
    source_id: str
    source: str  # kind of the source, such as kubernetes
    source_name: str
    name: str
    environment: str
    project: str
    namespace: str
    kind: str
    owner: str  # what created it, such as a Deployment
    image: str  # as the source writes it
    repository: str
    tag: str
    digest: str
    by_tag: bool
    first_seen: datetime
    image_since: datetime  # when it began to run this digest
    rank: int  # for sorting: the worst first
    verdict: Verdict
    undecided: bool
    image_verdict: str
    image_undecided: bool
    failed: tuple[str, ...]  # ids of the failed checks
    mounted: tuple[MountedImage, ...]  # images whose files it mounts
    decided_at: datetime
    reported_at: datetime

    @property
    def image_short(self) -> str:
        """Return the image with a shortened digest."""
        return _short_image(self.image)

    @property
    def overall(self) -> str:
        """``allow``, ``warn``, ``deny`` or ``undecided``."""
        return overall(self.rank)


@dataclass(frozen=True)
class Filter:
    """Criteria for workloads. All given ones must match."""

    search: str = ""  # part of the name or the image
    environment: str = ""
    source: str = ""  # a source's id
    namespace: str = ""
    verdicts: tuple[str, ...] = ()  # may contain ``undecided``
    image: str = ""  # host/repository
    owner: str = ""
    check: str = ""  # id of a failed one
    digest: str = ""

    def apply(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """Return the query with the criteria."""
        columns = running_workload.c
        if self.search:
            text = sa.func.lower(columns.name + " " + columns.image)
            query = query.where(text.contains(self.search.lower(), autoescape=True))
        for name, value in (
            ("environment", self.environment),
            ("source_id", self.source),
            ("namespace", self.namespace),
            ("owner", self.owner),
        ):
            if value:
                query = query.where(columns[name] == value)
        for name, value in (("repository", self.image), ("digest", self.digest)):
            if value:
                mounts = sa.select(running_mount.c.workload_id).where(running_mount.c[name] == value)
                query = query.where(sa.or_(columns[name] == value, columns.id.in_(mounts)))
        if self.verdicts:
            # By ranges of the rank, which has an index. The verdict of the list is the worse of two columns, which no
            # index could find.
            levels = [LEVELS.index(name) * _LEVEL for name in self.verdicts if name in LEVELS]
            query = query.where(sa.or_(*(columns.rank.between(low, low + _LEVEL - 1) for low in levels)))
        if self.check:
            query = query.where(sa.cast(columns.failed, sa.Text).contains(f'"{self.check}"', autoescape=True))
        return query


_MOUNTS = sa.cast(running_workload.c.mounted, sa.Text) != "[]"
_OTHERS = 50  # digests of one tag in other environments
_LEVEL = 10_000
LEVELS = ("allow", "warn", UNDECIDED, "deny")


def rank_of(level: str, reasons: int) -> int:
    """Return the sort key of a workload: first its level, then the number of reasons."""
    return LEVELS.index(level) * _LEVEL + min(reasons, _LEVEL - 1)


def overall(rank: int) -> str:
    """Return the level of a rank."""
    return LEVELS[rank // _LEVEL]


# Snapshots


def source_of(session: Connection, environment: str, source: str, name: str) -> SourceView | None:
    """Return the source, or None if it has not reported yet."""
    query = sa.select(*_source_columns()).filter_by(environment=environment, source=source, name=name)
    row = session.execute(query).first()
    return SourceView(*row) if row else None


def facts_digests(session: Connection, source_id: str) -> dict[str, str]:
    """Return the digests of the facts of a source's workloads, by name."""
    columns = running_workload.c
    query = sa.select(columns.name, columns.facts_digest).where(columns.source_id == source_id)
    return {row.name: row.facts_digest for row in session.execute(query)}


def lock_source(session: Connection, environment: str, source: str, name: str) -> SourceView:
    """Return the source, created if it is new, and lock it until the end of the transaction."""
    key = {"environment": environment, "source": source, "name": name}
    query = sa.select(*_source_columns()).filter_by(**key).with_for_update()
    row = session.execute(query).first()
    if row is None:
        now = moment(session)
        values: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "generation": -1,
            "digest": "",
            "workloads": 0,
            "reported_by": "",
        }
        session.execute(inventory_source.insert().values(**key, **values, reported_at=now, changed_at=now, summary={}))
        row = session.execute(query).first()
    assert row is not None
    return SourceView(*row)


def check_generation(held: SourceView, generation: int, digest: str) -> None:
    """Raise ConflictError(reason="out_of_order") for a snapshot older than the recorded one. A repeated one passes."""
    if generation < held.generation or (generation == held.generation and digest != held.digest):
        raise ConflictError(
            f"the snapshot has generation {generation}; generation {held.generation} was reported already, "
            f"by {held.reported_by or 'an unknown agent'} at {held.reported_at:%Y-%m-%d %H:%M} UTC",
            reason="out_of_order",
            hint="one agent reports a source: give each a --name of its own; if there is only one, its clock was "
            "ahead: wait, or remove the source on the page Workloads",
        )


def check_agent(held: SourceView, agent: str, now: datetime) -> None:
    """Raise ConflictError(reason="another_agent") if another agent reports the source."""
    free_at = held.free_at(agent)
    if free_at is not None and now < free_at:
        raise ConflictError(
            f"another agent reports this source: {held.agent}, with {held.reported_by}, last at "
            f"{held.reported_at:%Y-%m-%d %H:%M} UTC. This report is from {agent}",
            reason="another_agent",
            hint="give each agent a --name of its own; if the other one was stopped, this one can report at "
            f"{free_at:%H:%M} UTC, or at once after the source is removed on the page Workloads",
        )


def note_agent(session: Connection, held: SourceView, agent: str, every_seconds: int) -> None:
    """Record which agent reports the source, if it is another one than before."""
    if (held.agent, held.every_seconds) == (agent, every_seconds):
        return
    values: dict[str, Any] = {"every_seconds": every_seconds}
    if held.agent != agent:
        values["agents"] = [*(each for each in held.agents if each != agent), agent][-_MOST_AGENTS:]
        values |= {"refused_agent": "", "refused_at": None}
    session.execute(inventory_source.update().where(inventory_source.c.id == held.id).values(**values))


def note_refused(session: Connection, held: SourceView, agent: str) -> None:
    """Record an agent that was refused, because another one reports the source."""
    values = {"refused_agent": agent, "refused_at": moment(session)}
    session.execute(inventory_source.update().where(inventory_source.c.id == held.id).values(**values))


def touch_source(session: Connection, held: SourceView, generation: int, by: str) -> None:
    """Record a snapshot with unchanged workloads."""
    session.execute(
        inventory_source.update()
        .where(inventory_source.c.id == held.id)
        .values(generation=generation, reported_at=moment(session), reported_by=by)
    )


def replace(
    session: Connection,
    held: SourceView,
    generation: int,
    digest: str,
    by: str,
    changed: Sequence[NewWorkload],
    gone: Iterable[str],
) -> None:
    """Write a snapshot. ``changed``: new and changed workloads. ``gone``: names of removed ones."""
    now = moment(session)
    former = _former(session, held.id, [each.name for each in changed])
    columns = running_workload.c
    # Tags of which this snapshot changes what runs. Other environments compare themselves with them, see
    # `_make_due_elsewhere`.
    moved: set[tuple[str, str]] = set()
    for names in _chunks(sorted(gone)):
        left = sa.select(columns.repository, columns.tag).where(columns.source_id == held.id, columns.name.in_(names))
        moved.update((row.repository, row.tag) for row in session.execute(left))
        session.execute(running_workload.delete().where(columns.source_id == held.id, columns.name.in_(names)))
    added, updated = [], []
    for each in changed:
        row = _row(each)
        before = former.get(each.name)
        now_runs = (each.judged.repository, each.judged.tag, each.judged.digest)
        if before is None or (before.repository, before.tag, before.digest) != now_runs:
            moved.update(known[:2] for known in (before and (before.repository, before.tag), now_runs) if known)
        if before is None:
            own = {"uid": str(uuid.uuid4()), "source_id": held.id, "environment": held.environment, "name": each.name}
            added.append({**row, **own, "first_seen": now, "image_since": now})
        else:
            same = (before.repository, before.digest) == (each.judged.repository, each.judged.digest)
            updated.append({**row, "b_id": before.id, "image_since": before.image_since if same else now})
    if added:
        session.execute(running_workload.insert(), added)
    if updated:
        values: dict[str, Any] = {name: sa.bindparam(name) for name in updated[0] if name != "b_id"}
        session.execute(running_workload.update().where(columns.id == sa.bindparam("b_id")).values(**values), updated)
    mounting = [each.name for each in changed if each.judged.mounted]
    numbers = {name: row.id for name, row in _former(session, held.id, mounting).items()}
    mounts = {numbers[each.name]: each.judged.mounted for each in changed if each.judged.mounted}
    _replace_mounts(session, mounts, [row.id for row in former.values()])
    _make_due_elsewhere(session, held.environment, moved)
    count = sa.select(sa.func.count()).where(columns.source_id == held.id)
    session.execute(
        inventory_source.update()
        .where(inventory_source.c.id == held.id)
        .values(
            generation=generation,
            digest=digest,
            workloads=session.execute(count).scalar_one(),
            reported_by=by,
            reported_at=now,
            changed_at=now,
        )
    )
    summarise(session, held.id)


def _replace_mounts(
    session: Connection, mounts: Mapping[int, Sequence[MountedImage]], former: Sequence[int] = ()
) -> None:
    """Record the mounted images of workloads by number. Workloads in ``former`` that mount none any more lose theirs.

    Few workloads mount images, so most snapshots write nothing.
    """
    columns = running_mount.c
    for chunk in _chunks(sorted({*mounts, *former})):
        session.execute(running_mount.delete().where(columns.workload_id.in_(chunk)))
    rows = [
        {"workload_id": number, "position": position}
        | {name: getattr(each, name) for name in ("repository", "tag", "digest")}
        for number, images in sorted(mounts.items())
        for position, each in enumerate(images)
    ]
    if rows:
        session.execute(running_mount.insert(), rows)


def remove_source(session: Connection, source_id: str) -> SourceView:
    """Delete a source and its workloads. Returns it. Raises NotFoundError."""
    row = session.execute(sa.select(*_source_columns()).where(inventory_source.c.id == source_id)).first()
    if row is None:
        raise NotFoundError("there is no such source")
    columns = running_workload.c
    left = session.execute(sa.select(columns.repository, columns.tag).where(columns.source_id == source_id).distinct())
    moved = {(each.repository, each.tag) for each in left}
    session.execute(running_workload.delete().where(columns.source_id == source_id))
    _make_due_elsewhere(session, row.environment, moved)
    session.execute(inventory_source.delete().where(inventory_source.c.id == source_id))
    return SourceView(*row)


def _row(each: NewWorkload) -> dict[str, Any]:
    own = ("facts_digest", "facts", "namespace", "kind", "owner", "image")
    return {**{name: getattr(each, name) for name in own}, **_decision_values(each.judged)}


def _decision_values(judged: WorkloadDecision) -> dict[str, Any]:
    return {name: getattr(judged, name) for name in _DECISION_COLUMNS} | {
        "failed": list(judged.failed),
        "mounted": [dataclasses.asdict(each) for each in judged.mounted],
    }


def _former(session: Connection, source_id: str, names: Sequence[str]) -> dict[str, sa.Row[Any]]:
    columns = running_workload.c
    query = sa.select(columns.name, columns.id, columns.repository, columns.tag, columns.digest, columns.image_since)
    found: dict[str, sa.Row[Any]] = {}
    for chunk in _chunks(names):
        rows = session.execute(query.where(columns.source_id == source_id, columns.name.in_(chunk)))
        found.update({row.name: row for row in rows})
    return found


# Decisions


@dataclass(frozen=True)
class Due:
    """A workload with an outdated decision."""

    id: int
    source_id: str
    environment: str
    facts: bytes
    results: bytes  # compressed JSON of the checks' outcomes
    checked_with: str  # Dockwarden's version and the image's evidence: with others the checks run again
    facts_digest: str


def due(session: Connection, *, limit: int) -> tuple[Due, ...]:
    """Return workloads with outdated decisions, the longest outdated first."""
    columns = running_workload.c
    names = ("id", "source_id", "environment", "facts", "results", "checked_with", "facts_digest")
    query = sa.select(*(columns[name] for name in names)).where(columns.valid_until <= epoch(session))
    return tuple(Due(*row) for row in session.execute(query.order_by(columns.valid_until, columns.id).limit(limit)))


def rejudge(session: Connection, judged: Mapping[Due, WorkloadDecision]) -> int:
    """Write new decisions. Workloads whose facts changed meanwhile are skipped. Returns the number written."""
    columns = running_workload.c
    now = moment(session)
    ordered = sorted(judged, key=lambda one: one.id)
    held = sa.select(columns.id, columns.digest).where(columns.id.in_([one.id for one in ordered]))
    former = {row.id: row.digest for row in session.execute(held.order_by(columns.id).with_for_update())}
    moved: dict[str, set[tuple[str, str]]] = defaultdict(set)
    count = 0
    for one in ordered:
        values: dict[str, Any] = _decision_values(judged[one])
        another = sa.and_(columns.digest != "", columns.digest != values["digest"])
        values["image_since"] = sa.case((another, now), else_=columns.image_since)
        if former.get(one.id) != values["digest"]:
            moved[one.environment].add((values["repository"], values["tag"]))
        # A newer snapshot may have changed the workload since it was read. Its own transaction has judged it then.
        mine = sa.and_(columns.id == one.id, columns.facts_digest == one.facts_digest)
        written = session.execute(running_workload.update().where(mine).values(**values)).rowcount
        if written and judged[one].mounted:
            _replace_mounts(session, {one.id: judged[one].mounted})
        count += written
    for environment, pairs in sorted(moved.items()):
        _make_due_elsewhere(session, environment, pairs)
    for source_id in sorted({one.source_id for one in ordered}):
        summarise(session, source_id)
    return count


def invalidate(session: Connection, project: str | None = None) -> None:
    """Mark the decisions about all workloads (of a project) as outdated, because policies or exemptions changed."""
    which = sa.true() if project is None else running_workload.c.project == project
    _make_due(session, which)


def invalidate_image(session: Connection, repository: str, tag: str, digest: str) -> None:
    """Mark the decisions about workloads that run an image as outdated, because its evidence or decision changed."""
    columns = running_workload.c
    if not repository:
        return
    # A workload whose source reports no digest runs whatever the tag names, so a scan of the tag changes what is
    # known of it.
    by_tag = sa.and_(columns.tag == tag, sa.or_(columns.by_tag.is_(True), columns.digest == "")) if tag else sa.false()
    _make_due(session, sa.and_(columns.repository == repository, sa.or_(columns.digest == digest, by_tag)))
    # Few workloads mount images. Whether it is this tag or digest is found out when they are evaluated.
    mounts = sa.select(running_mount.c.workload_id).where(running_mount.c.repository == repository)
    _make_due(session, columns.id.in_(mounts))


def _make_due(session: Connection, which: sa.ColumnElement[bool]) -> None:
    """Mark decisions as outdated. Rows are locked by id, as everywhere, to avoid deadlocks."""
    ids = sa.select(running_workload.c.id).where(which).order_by(running_workload.c.id).with_for_update()
    found = session.execute(ids).scalars().all()
    for chunk in _chunks(found):
        session.execute(running_workload.update().where(running_workload.c.id.in_(chunk)).values(valid_until=0.0))


def _make_due_elsewhere(session: Connection, environment: str, moved: Iterable[tuple[str, str]]) -> None:
    """Mark workloads of other environments as outdated that run one of these (repository, tag): a check compares
    digests between environments.
    """
    columns = running_workload.c
    for pairs in _chunks(sorted(pair for pair in moved if all(pair))):
        same = sa.tuple_(columns.repository, columns.tag).in_(pairs)
        _make_due(session, sa.and_(same, columns.environment != environment))


def digests_elsewhere(
    session: Connection, environment: str, wanted: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[tuple[str, str], ...]]:
    """Return the (environment, digest) pairs that other environments run, of each (repository, tag)."""
    columns = running_workload.c
    names = (columns.repository, columns.tag, columns.environment, columns.digest)
    found: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {}
    for pairs in _chunks(sorted(set(wanted))):
        same = sa.tuple_(columns.repository, columns.tag).in_(pairs)
        query = sa.select(*names).where(same, columns.environment != environment, columns.digest != "").distinct()
        for row in session.execute(query.order_by(*names)):
            known = found.get((row.repository, row.tag), ())
            if len(known) < _OTHERS:
                found[row.repository, row.tag] = (*known, (row.environment, row.digest))
    return found


@dataclass(frozen=True)
class ImageState:
    """The evidence of an image and its current decision for an environment."""

    report_id: str = ""
    verdict: str = IMAGE_UNKNOWN  # empty: the image was never scanned
    undecided: bool = False


def image_states(
    session: Connection, environment: str, wanted: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], ImageState]:
    """Return the state of each (repository, digest).

    If no policy names the environment, the decision without environment applies.
    """
    by_digest: dict[str, set[str]] = defaultdict(set)
    for repository, digest in wanted:
        by_digest[digest].add(repository)
    query = (
        sa.select(
            verdict.c.digest,
            verdict.c.repository,
            verdict.c.environment,
            verdict.c.report_id,
            decision.c.verdict,
            decision.c.undecided,
        )
        .join(decision, decision.c.id == verdict.c.decision_id)
        .where(verdict.c.environment.in_({environment, ""}))
    )
    found: dict[tuple[str, str], ImageState] = {}
    for chunk in _chunks(sorted(by_digest)):
        rows = session.execute(query.where(verdict.c.digest.in_(chunk)).order_by(verdict.c.environment))
        for row in rows:  # sorted: the environment's own decision replaces the one for ""
            if row.repository in by_digest[row.digest]:
                state = ImageState(row.report_id, row.verdict, bool(row.undecided))
                found[row.repository, row.digest] = state
    return found


def digests_of_tags(session: Connection, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the last known digest of each (repository, tag)."""
    pairs = sorted(set(wanted))
    found: dict[tuple[str, str], str] = {}
    for chunk in _chunks(pairs):
        named = sa.tuple_(tag_move.c.repository, tag_move.c.tag).in_(chunk)
        newest = sa.select(sa.func.max(tag_move.c.id)).where(named).group_by(tag_move.c.repository, tag_move.c.tag)
        rows = session.execute(sa.select(tag_move).where(tag_move.c.id.in_(newest)))
        found.update({(row.repository, row.tag): row.digest for row in rows})
    return found


def images_without_evidence(session: Connection, source_id: str, *, limit: int) -> list[tuple[str, str]]:
    """Return the images of a source without evidence: pairs of scan target and project."""
    columns = running_workload.c
    query = sa.select(columns.repository, columns.tag, columns.digest, columns.by_tag, columns.project).distinct()
    query = query.where(
        columns.source_id == source_id, columns.image_verdict == IMAGE_UNKNOWN, columns.repository != ""
    )
    found: dict[str, str] = {}
    for row in session.execute(query.order_by(columns.repository, columns.tag, columns.digest).limit(limit)):
        if target := _target(row.repository, row.tag, "" if row.by_tag else row.digest):
            found[target] = row.project
    mounts = sa.select(columns.mounted).where(columns.source_id == source_id, _MOUNTS)
    for mounted in session.execute(mounts.order_by(columns.id)).scalars():
        for each in (MountedImage(**values) for values in mounted):
            if each.verdict == IMAGE_UNKNOWN and each.target:
                found[each.target] = each.project
    return list(found.items())


def _target(repository: str, tag: str, digest: str) -> str:
    return f"{repository}{f':{tag}' if tag else ''}{f'@{digest}' if digest else ''}" if tag or digest else ""


def recently_requested(session: Connection, targets: Iterable[str], seconds: float) -> set[str]:
    """Return the targets of which a scan was requested within ``seconds``, even if it failed."""
    found: set[str] = set()
    since = scan.c.created_epoch > epoch(session) - seconds
    for chunk in _chunks(sorted(set(targets))):
        found.update(session.execute(sa.select(scan.c.target).where(scan.c.target.in_(chunk), since)).scalars())
    return found


# Reading


def sources(session: Connection, projects: frozenset[str] | None = None) -> tuple[SourceView, ...]:
    """Return the sources with workloads of these projects. ``workloads`` counts only those projects' workloads."""
    columns = inventory_source.c
    query = sa.select(*_source_columns(), columns.summary).order_by(columns.environment, columns.name, columns.source)
    found = []
    for *values, summary in session.execute(query):
        view = SourceView(*values)
        if projects is not None:
            # From the stored summary: counting a cluster's workloads for each visitor would read all of them.
            seen = sum(sum(summary[name]["verdict"].values()) for name in projects & summary.keys())
            # The full number would tell a member of one project how much the others run.
            view = dataclasses.replace(view, workloads=seen)
        if projects is None or view.workloads:
            found.append(view)
    return tuple(found)


SORTS = ("worst", "name", "owner")


def list_workloads(
    session: Connection,
    projects: frozenset[str] | None,
    narrowed: Filter | None = None,
    *,
    sort: str = "",
    cursor: str | None = None,
    limit: int = 50,
) -> Page[WorkloadRow]:
    """Return workloads, the worst first.

    ``sort``: one of ``SORTS``, with a leading minus for descending. An unknown one is ignored.
    """
    columns = running_workload.c
    named = sort.removeprefix("-") if sort.removeprefix("-") in SORTS else "worst"
    falling = sort.startswith("-") or named != sort
    key = columns.rank if named == "worst" else columns[named]
    query = _rows(projects).order_by(*(c.desc() if falling else c.asc() for c in (key, columns.id))).limit(limit + 1)
    query = (narrowed or Filter()).apply(query)
    if cursor:
        value, identifier = decode_cursor(cursor, (int if named == "worst" else str, int))
        place, ordered = sa.tuple_(sa.literal(value), sa.literal(identifier)), sa.tuple_(key, columns.id)
        query = query.where(ordered < place if falling else ordered > place)
    rows = [_view(row) for row in session.execute(query)]
    last = rows[limit - 1] if len(rows) > limit else None
    more = encode_cursor(last.rank if named == "worst" else getattr(last, named), last.id) if last else None
    return Page(tuple(rows[:limit]), more)


@dataclass(frozen=True)
class WorkloadDetail:
    """One workload with facts, results and decision."""

    row: WorkloadRow
    facts: bytes
    results: bytes
    decision: str  # JSON
    tag_names: str  # the digest that its tag refers to now; empty: unknown


def get(session: Connection, uid: str, projects: frozenset[str] | None) -> WorkloadDetail:
    """Return the workload. Raises NotFoundError, also for another project's."""
    columns = running_workload.c
    query = _rows(projects).add_columns(columns.facts, columns.results, columns.decision).where(columns.uid == uid)
    row = session.execute(query).first()
    if row is None:
        raise NotFoundError("there is no such workload", hint="its source may not report it any more")
    view = _view(row)
    named = digests_of_tags(session, [(view.repository, view.tag)]) if view.tag else {}
    return WorkloadDetail(view, row.facts, row.results, row.decision, named.get((view.repository, view.tag), ""))


def facets(session: Connection, projects: frozenset[str] | None) -> dict[str, dict[str, int]]:
    """Return the number of workloads by environment, source id, verdict, namespace, image, owner and failed check."""
    columns = inventory_source.c
    found: dict[str, Counter[str]] = {name: Counter() for name in ("environment", "source", *_FACET_COLUMNS)}
    for row in session.execute(sa.select(columns.id, columns.environment, columns.summary)):
        for project, counts in row.summary.items():
            if projects is not None and project not in projects:
                continue
            for name in _FACET_COLUMNS:
                found[name].update(counts.get(name, {}))
            total = sum(counts.get("verdict", {}).values())
            if total:
                found["environment"][row.environment] += total
                found["source"][row.id] += total
    return {name: dict(counter.most_common(_FREQUENT)) for name, counter in found.items()}


def summarise(session: Connection, source_id: str) -> None:
    """Recompute a source's counts after a change, so that pages need not count all workloads."""
    columns = running_workload.c
    names = ("project", "rank", "namespace", "repository", "owner", "failed", "mounted")
    query = sa.select(*(columns[name] for name in names)).where(columns.source_id == source_id)
    counts: dict[str, dict[str, Counter[str]]] = {}
    for row in session.execute(query):
        own = counts.setdefault(row.project, {name: Counter() for name in _FACET_COLUMNS})
        own["verdict"][overall(row.rank)] += 1
        own["check"].update(row.failed)
        for name, value in (("namespace", row.namespace), ("owner", row.owner)):
            if value:
                own[name][value] += 1
        own["image"].update({row.repository, *(each["repository"] for each in row.mounted)} - {""})
    session.execute(inventory_source.update().where(inventory_source.c.id == source_id).values(summary=counts))


def rehome(session: Connection, owner_of: Callable[[str], str | None]) -> None:
    """Move workloads to the projects that now own the repositories of their images."""
    columns = running_workload.c
    for row in session.execute(sa.select(columns.repository, columns.project).distinct()).all():
        now = owner_of(row.repository) if row.repository else None
        if now is not None and now != row.project:
            mine = sa.and_(columns.repository == row.repository, columns.project == row.project)
            session.execute(running_workload.update().where(mine).values(project=now))
    for source in sources(session):
        summarise(session, source.id)


def figures(session: Connection) -> dict[tuple[str, str], int]:
    """Return the number of workloads by (environment, verdict)."""
    found: Counter[tuple[str, str]] = Counter()
    columns = inventory_source.c
    for row in session.execute(sa.select(columns.environment, columns.summary)):
        for counts in row.summary.values():
            for name, count in counts.get("verdict", {}).items():
                found[row.environment, name] += count
    return dict(found)


# Running images: those that containers run, and those whose files they mount


def runs(*digests: Any, projects: frozenset[str] | None = None) -> sa.ColumnElement[bool]:
    """Return the condition that a workload (of these projects) runs or mounts one of these digests.

    Two EXISTS, each with its own index. Neither database looks a digest up in a UNION by an index for each row.
    """
    own = sa.select(running_workload.c.id).where(running_workload.c.digest.in_(digests))
    mounts = (
        sa.select(running_mount.c.workload_id)
        .join(running_workload, running_workload.c.id == running_mount.c.workload_id)
        .where(running_mount.c.digest.in_(digests))
    )
    if projects is not None:
        own, mounts = (query.where(running_workload.c.project.in_(projects)) for query in (own, mounts))
    return sa.or_(own.exists(), mounts.exists())


def _uses(*names: str, digests: Any) -> sa.CompoundSelect[Any]:
    """Return these columns of workloads with each of ``digests`` that they run or mount, once each."""
    columns = [running_workload.c[name] for name in names]
    own = sa.select(*columns, running_workload.c.digest).where(running_workload.c.digest.in_(digests))
    mounts = (
        sa.select(*columns, running_mount.c.digest)
        .join(running_mount, running_mount.c.workload_id == running_workload.c.id)
        .where(running_mount.c.digest.in_(digests))
    )
    return own.union(mounts)


def digests_in(environment: str) -> sa.CompoundSelect[Any]:
    """Return a subquery of the digests that run in an environment, and of the indexes that have one of them as a
    platform.
    """
    own = sa.select(running_workload.c.digest).where(running_workload.c.environment == environment)
    mounts = (
        sa.select(running_mount.c.digest)
        .join(running_workload, running_workload.c.id == running_mount.c.workload_id)
        .where(running_workload.c.environment == environment)
    )
    indexes = sa.select(image_stack.c.subject).where(image_stack.c.digest.in_(own.union(mounts)))
    return indexes.union(own, mounts)


def running_in(
    session: Connection, digests: Iterable[str], projects: frozenset[str] | None
) -> dict[str, dict[str, int]]:
    """Return the number of workloads that run or mount each digest, by environment."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for chunk in _chunks(sorted(set(digests))):
        each = _uses("id", "environment", "project", digests=chunk).subquery().c
        query = sa.select(each.digest, each.environment, sa.func.count().label("n"))
        if projects is not None:
            query = query.where(each.project.in_(projects))
        for row in session.execute(query.group_by(each.digest, each.environment)):
            found[row.digest][row.environment] = row.n
    return dict(found)


def other_digests(session: Connection, row: WorkloadRow, projects: frozenset[str] | None) -> dict[str, tuple[str, ...]]:
    """Return the other digests that other environments run under the same repository and tag, by environment."""
    if not (row.repository and row.tag and row.digest):
        return {}
    columns = running_workload.c
    query = (
        sa.select(columns.environment, columns.digest)
        .where(columns.repository == row.repository, columns.tag == row.tag)
        .where(columns.environment != row.environment, columns.digest.not_in(("", row.digest)))
        .distinct()
        .order_by(columns.environment, columns.digest)
        .limit(_OTHERS)
    )
    if projects is not None:
        query = query.where(columns.project.in_(projects))
    found: dict[str, tuple[str, ...]] = {}
    for environment, digest in session.execute(query):
        found[environment] = (*found.get(environment, ()), digest)
    return found


def affected_workloads(
    session: Connection, name: str, projects: frozenset[str] | None, *, limit: int = 200
) -> tuple[tuple[WorkloadRow, ...], dict[str, int], int]:
    """Return what a vulnerability affects: workloads that run or mount an image with it (the worst first), number of
    running images by environment, number of all images.
    """
    own = (
        sa.select(image.c.digest)
        .join(finding, finding.c.image_id == image.c.id)
        .join(vulnerability, vulnerability.c.id == finding.c.vulnerability_id)
        .where(vulnerability.c.name == name)
    )
    # A workload may refer to an index that contains the affected image.
    touched = own.union(sa.select(image_stack.c.subject).where(image_stack.c.digest.in_(own)))
    columns = running_workload.c
    uses = _uses("id", "environment", "project", digests=touched).subquery().c
    rows = session.execute(
        _rows(projects)
        .where(columns.id.in_(sa.select(uses.id)))
        .order_by(columns.rank.desc(), columns.id.desc())
        .limit(limit)
    )
    counted = sa.select(uses.environment, sa.func.count(sa.distinct(uses.digest)).label("n"))
    counted = counted.group_by(uses.environment)
    total = sa.select(sa.func.count(sa.distinct(listing.c.digest))).where(listing.c.digest.in_(touched))
    if projects is not None:
        counted = counted.where(uses.project.in_(projects))
        total = total.where(listing.c.project.in_(projects))
    by_environment = {row.environment: row.n for row in session.execute(counted)}
    return tuple(_view(row) for row in rows), by_environment, session.execute(total).scalar_one()


def _rows(projects: frozenset[str] | None) -> sa.Select[Any]:
    names = [name for name in _VIEW if name in running_workload.c]
    query = sa.select(
        *(running_workload.c[name] for name in names),
        inventory_source.c.source,
        inventory_source.c.name.label("source_name"),
        inventory_source.c.reported_at,
    ).join(inventory_source, inventory_source.c.id == running_workload.c.source_id)
    return query if projects is None else query.where(running_workload.c.project.in_(projects))


_VIEW = tuple(WorkloadRow.__dataclass_fields__)


def _view(row: sa.Row[Any]) -> WorkloadRow:
    values = {name: getattr(row, name) for name in _VIEW}
    mounted = tuple(MountedImage(**each) for each in row.mounted)
    values |= {"verdict": Verdict(row.verdict), "failed": tuple(row.failed), "mounted": mounted}
    return WorkloadRow(**values)


def _source_columns() -> list[sa.Column[Any]]:
    return [inventory_source.c[name] for name in SourceView.__dataclass_fields__]


def _chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
