"""How registries are polled, and the tags that polls and imports found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from scanner.model.scan import Lane, ScanState
from scanner.store import scans
from scanner.store.leases import ACTIVE
from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import (
    delivery,
    delivery_scan,
    found_tag,
    listing,
    registry,
    registry_poll,
    scan,
    tag_move,
    webhook,
)
from scanner.store.session import epoch, moment, put


class FoundKind(StrEnum):
    """Why a tag was recorded.

    lost: a webhook did not deliver its push. unannounced: the registry has no webhook. first: it was there before the
    first poll. import: an import queued its scan.
    """

    LOST = "lost"
    UNANNOUNCED = "unannounced"
    FIRST = "first"
    IMPORT = "import"


class ListBy(StrEnum):
    """Where the repositories of a registry are to be listed.

    auto: the best list that answers. own: the API of the registry. catalog: ``/v2/_catalog``. known: the tag ledger.
    """

    AUTO = "auto"
    OWN = "own"
    CATALOG = "catalog"
    KNOWN = "known"


@dataclass(frozen=True)
class ListedBy:
    """Where the repositories of a poll or an import were listed.

    ``id``: one of the own lists of registries, ``catalog`` or ``known``; empty: it is not known yet. ``note``: why a
    better list was not used.
    """

    id: str = ""
    title: str = ""
    note: str = ""


def listed_by(parameters: Mapping[str, Any]) -> ListedBy:
    """Return it from the parameters of a job."""
    names = ("listing", "listing_title", "listing_note")
    return ListedBy(*(str(parameters.get(name) or "") for name in names))


@dataclass(frozen=True)
class PollView:
    """How a registry is polled.

    ``seconds``: the interval; 0: no polls. ``include`` and ``exclude``: patterns over repositories. ``list_by``: where
    they are to be listed, also by an import; ``listed_by``: where the last poll listed them. ``last``: the
    counts of the last poll (``repositories``, ``tags``, ``lost``, ``unannounced``, ``first``, ``errors`` …);
    ``problems``: its first errors.
    """

    registry_id: str
    seconds: int = 0
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    # end of the first complete poll: a tag that is new since then was pushed since
    baseline_at: datetime | None = None
    last_at: datetime | None = None  # when the last poll ended; None: never
    last: Mapping[str, int] | None = None
    problems: tuple[str, ...] = ()
    listed_by: ListedBy = ListedBy()
    list_by: ListBy = ListBy.AUTO


@dataclass(frozen=True)
class FoundTag:
    """A tag that a poll or an import found. ``scan_id`` None: its scan was not queued, or is deleted."""

    id: int
    registry_id: str
    host: str
    kind: FoundKind
    webhook: str  # the one that lost the event; empty: the registry has none
    repository: str
    tag: str
    digest: str
    former: str  # digest that the tag named before; empty: unknown
    scan_id: str | None
    found_at: datetime


@dataclass(frozen=True)
class KnownScan:
    """The source and the state of a scan that announced what a tag names."""

    source: str
    state: ScanState


def get(session: Connection, registry_id: str) -> PollView:
    """Return how a registry is polled. Without settings: not at all."""
    query = sa.select(*registry_poll.c).where(registry_poll.c.registry_id == registry_id)
    row = session.execute(query).first()
    return _poll(row._mapping) if row else PollView(registry_id)


def _poll(row: RowMapping) -> PollView:
    last = row["last"] or {}
    return PollView(
        row["registry_id"],
        row["seconds"],
        tuple(row["include"]),
        tuple(row["exclude"]),
        row["baseline_at"],
        row["last_at"],
        last.get("counts"),
        tuple(last.get("problems", ())),
        ListedBy(*last.get("listed_by", ())),
        ListBy(row["list_by"]),
    )


def put_settings(
    session: Connection,
    registry_id: str,
    seconds: int,
    include: Sequence[str],
    exclude: Sequence[str],
    list_by: ListBy = ListBy.AUTO,
) -> PollView:
    """Store how a registry is polled. The next poll is due at once.

    With other patterns, or another list, the next complete poll is the first again: it may see repositories for the
    first time.
    """
    former = get(session, registry_id)
    same = (former.include, former.exclude, former.list_by) == (tuple(include), tuple(exclude), list_by)
    values = {
        "registry_id": registry_id,
        "seconds": seconds,
        "include": list(include),
        "exclude": list(exclude),
        "list_by": list_by.value,
        "next_epoch": epoch(session),
        "baseline_at": former.baseline_at if same else None,
        "last_at": former.last_at,
        "last": _last(former.last, former.problems, former.listed_by) if former.last is not None else {},
    }
    put(session, registry_poll, values, ("registry_id",))
    return get(session, registry_id)


def due(session: Connection) -> Sequence[str]:
    """Return the registries whose next scheduled poll is due."""
    return list(session.execute(sa.select(registry_poll.c.registry_id).where(_is_due(epoch(session)))).scalars())


def _is_due(now: float) -> sa.ColumnElement[bool]:
    columns = registry_poll.c
    # A poll that is due later than one interval from now was scheduled before the clock was set back. A minute: time
    # servers correct clocks by less all the time.
    at_once = sa.or_(columns.next_epoch <= now, columns.next_epoch > now + columns.seconds + 60)
    return sa.and_(columns.seconds > 0, at_once)


def postpone(session: Connection, registry_id: str) -> bool:
    """Schedule the poll after the one that is due now. Returns False if another worker did so."""
    now = epoch(session)
    one = sa.and_(registry_poll.c.registry_id == registry_id, _is_due(now))
    following = registry_poll.update().where(one).values(next_epoch=now + registry_poll.c.seconds)
    return bool(session.execute(following).rowcount)


def _last(counts: Mapping[str, int], problems: Sequence[str], listing: ListedBy) -> dict[str, object]:
    return {"counts": dict(counts), "problems": list(problems), "listed_by": list(astuple(listing))}


def record_poll(
    session: Connection,
    registry_id: str,
    counts: Mapping[str, int],
    problems: Sequence[str],
    complete: bool,
    listing: ListedBy = ListedBy(),
) -> None:
    """Record the result of a poll. ``complete``: it saw every repository and tag that its patterns select."""
    former, now = get(session, registry_id), moment(session)
    values = {
        "registry_id": registry_id,
        "seconds": former.seconds,
        "include": list(former.include),
        "exclude": list(former.exclude),
        "next_epoch": epoch(session) + former.seconds,
        # Only a complete poll is a baseline. After a partial one, old tags would be reported as lost pushes by the
        # next.
        "baseline_at": former.baseline_at or (now if complete else None),
        "last_at": now,
        "last": _last(counts, problems, listing),
    }
    put(session, registry_poll, values, ("registry_id",))


def known_scan(session: Connection, repository: str, tag: str, digest: str) -> KnownScan | None:
    """Return the newest scan that announced what a tag names now; None: nothing announced it.

    It names the tag with this digest, or only the tag and has read this digest or none yet. Scans from before the tag
    last named this digest do not count: the tag may have named another one meanwhile.
    """
    named = sa.and_(tag_move.c.repository == repository, tag_move.c.tag == tag)
    last = session.execute(
        sa.select(sa.func.max(tag_move.c.seen_at)).where(named, tag_move.c.digest == digest)
    ).scalar()
    pinned = f"{repository}:{tag}@{digest}"
    read = sa.or_(scan.c.digest == digest, sa.and_(scan.c.digest.is_(None), scan.c.state.in_(ACTIVE)))
    query = sa.select(scan.c.source, scan.c.state).where(
        sa.or_(scan.c.target == pinned, sa.and_(scan.c.target == f"{repository}:{tag}", read))
    )
    if last is not None:
        query = query.where(scan.c.created_at > sa.literal(last, scan.c.created_at.type))
    row = session.execute(query.order_by(scan.c.created_epoch.desc()).limit(1)).first()
    if row is None:
        return None
    return KnownScan(row.source, ScanState(row.state))


def is_listed(session: Connection, repository: str, tag: str, digest: str) -> bool:
    """Return whether evidence of the tag with this digest is stored."""
    one = (listing.c.repository == repository, listing.c.tag == tag, listing.c.digest == digest)
    return session.execute(sa.select(listing.c.id).where(*one).limit(1)).first() is not None


def was_announced(session: Connection, repository: str) -> bool:
    """Return whether anything other than a poll or an import has reported a tag of this repository."""
    one = sa.and_(tag_move.c.repository == repository, tag_move.c.source.not_in(["poll", "import"]))
    return session.execute(sa.select(tag_move.c.id).where(one).limit(1)).first() is not None


def repositories(
    session: Connection, host: str, after: str, limit: int, before: float | None = None
) -> tuple[str, ...]:
    """Return names of repositories of a host that the tag ledger has, after ``after``, without the host, sorted.

    ``before``: only those that it had at this Unix time.
    """
    prefix = f"{host}/"
    name = tag_move.c.repository
    query = sa.select(name).distinct().where(name > prefix + after, name.startswith(prefix, autoescape=True))
    if before is not None:
        query = query.where(tag_move.c.seen_at < datetime.fromtimestamp(before, UTC))
    rows = session.execute(query.order_by(name).limit(limit)).scalars()
    return tuple(str(row).removeprefix(prefix) for row in rows)


def known_repositories(session: Connection, host: str, names: Collection[str], before: float) -> frozenset[str]:
    """Return which of these repositories, without the host, the tag ledger had at a Unix time."""
    prefix = f"{host}/"
    one = sa.and_(
        tag_move.c.repository.in_([prefix + name for name in names]),
        tag_move.c.seen_at < datetime.fromtimestamp(before, UTC),
    )
    rows = session.execute(sa.select(tag_move.c.repository).distinct().where(one)).scalars()
    return frozenset(str(row).removeprefix(prefix) for row in rows)


def webhook_of(session: Connection, registry_id: str, repository: str) -> str | None:
    """Return the webhook that should have announced a push: the one that last announced this repository.

    Else the oldest enabled one, else the oldest. None: the registry has no webhook.
    """
    told = (
        sa.select(delivery.c.webhook_id)
        .join(webhook, webhook.c.id == delivery.c.webhook_id)
        .join(delivery_scan, delivery_scan.c.delivery_id == delivery.c.id)
        .join(scan, scan.c.id == delivery_scan.c.scan_id)
        .where(webhook.c.registry_id == registry_id, scan.c.target.startswith(f"{repository}:", autoescape=True))
        .order_by(delivery.c.received_at.desc())
        .limit(1)
    )
    found = session.execute(told).scalar()
    if found is None:
        # False sorts before True, so enabled ones come first.
        any_ = sa.select(webhook.c.id).where(webhook.c.registry_id == registry_id)
        found = session.execute(any_.order_by(webhook.c.disabled, webhook.c.created_at).limit(1)).scalar()
    return None if found is None else str(found)


def add(
    session: Connection,
    registry_id: str,
    job_id: str,
    kind: FoundKind,
    name: tuple[str, str, str],
    *,
    former: str = "",
    webhook_id: str | None = None,
    scan_id: str | None = None,
) -> None:
    """Record a found tag. ``name``: repository (with host), tag and digest."""
    repository, tag, digest = name
    values = {"registry_id": registry_id, "job_id": job_id, "kind": kind, "former": former, "webhook_id": webhook_id}
    values |= {"repository": repository, "tag": tag, "digest": digest, "scan_id": scan_id}
    session.execute(found_tag.insert().values(**values, found_at=moment(session)))


def list_found_tags(
    session: Connection,
    projects: frozenset[str] | None,
    *,
    registry_id: str | None = None,
    kinds: Collection[FoundKind] = (FoundKind.LOST, FoundKind.UNANNOUNCED),
    cursor: str | None = None,
    limit: int = 50,
) -> Page[FoundTag]:
    """Return found tags, the newest first."""
    query = (
        sa.select(*found_tag.c, registry.c.host, webhook.c.name.label("webhook"), scan.c.id.label("kept_scan"))
        .join(registry, registry.c.id == found_tag.c.registry_id)
        .outerjoin(webhook, webhook.c.id == found_tag.c.webhook_id)
        .outerjoin(scan, scan.c.id == found_tag.c.scan_id)
        .where(found_tag.c.kind.in_([str(kind) for kind in kinds]))
    )
    if projects is not None:
        query = query.where(registry.c.project.in_(projects))
    if registry_id is not None:
        query = query.where(found_tag.c.registry_id == registry_id)
    if cursor:
        query = query.where(found_tag.c.id < decode_cursor(cursor, (int,))[0])
    rows = session.execute(query.order_by(found_tag.c.id.desc()).limit(limit + 1)).all()
    items = tuple(
        FoundTag(
            r.id,
            r.registry_id,
            r.host,
            FoundKind(r.kind),
            r.webhook or "",
            r.repository,
            r.tag,
            r.digest,
            r.former,
            r.kept_scan,
            r.found_at,
        )
        for r in rows[:limit]
    )
    return Page(items, encode_cursor(rows[limit - 1].id) if len(rows) > limit else None)


def lost_by_webhook(session: Connection) -> Mapping[str, int]:
    """Return the number of lost events of each webhook that lost some, within the retention of deliveries."""
    query = sa.select(found_tag.c.webhook_id, sa.func.count().label("number")).where(
        found_tag.c.kind == FoundKind.LOST, found_tag.c.webhook_id.is_not(None)
    )
    return {row.webhook_id: row.number for row in session.execute(query.group_by(found_tag.c.webhook_id))}


def scans_of(session: Connection, job_id: str) -> tuple[int, int, int]:
    """Return how many scans an import queued, how many of them ended, and how many ended without a result."""
    queued = sa.select(found_tag.c.scan_id).distinct().where(found_tag.c.job_id == job_id).subquery()
    ended_ = scan.c.state.not_in(ACTIVE)
    failed = scan.c.state.in_([ScanState.FAILED, ScanState.DEAD])
    query = sa.select(
        sa.func.count(queued.c.scan_id),
        sa.func.coalesce(sa.func.sum(sa.case((sa.or_(scan.c.id.is_(None), ended_), 1), else_=0)), 0),
        sa.func.coalesce(sa.func.sum(sa.case((failed, 1), else_=0)), 0),
    ).select_from(queued.outerjoin(scan, scan.c.id == queued.c.scan_id))
    all_, done, bad = session.execute(query.where(queued.c.scan_id.is_not(None))).one()
    return int(all_), int(done), int(bad)


def cancel_scans(session: Connection, job_id: str) -> int:
    """Cancel the queued scans of an import that nothing else asked for. Returns their number."""
    waiting = (
        sa.select(scan.c.id)
        .join(found_tag, found_tag.c.scan_id == scan.c.id)
        .where(found_tag.c.job_id == job_id, scan.c.state == ScanState.QUEUED, scan.c.source == "import")
        # A push that joined the scan has moved it to the lane of pushes.
        .where(scan.c.lane == Lane.BACKGROUND)
    )
    return sum(scans.cancel(session, scan_id) for scan_id in session.execute(waiting).scalars().all())


def seconds_per_scan(session: Connection) -> float:
    """Return the mean duration of the last 100 scans with a result, in seconds; 0: there are none."""
    recent = (
        sa.select(scan.c.started_at, scan.c.finished_at)
        .where(scan.c.state == ScanState.DONE, scan.c.started_at.is_not(None), scan.c.finished_at.is_not(None))
        .order_by(scan.c.created_epoch.desc())
        .limit(100)
    )
    spans = [(row.finished_at - row.started_at).total_seconds() for row in session.execute(recent)]
    return sum(spans) / len(spans) if spans else 0.0


def count_scanned(session: Connection, repository: str, names: Collection[str]) -> int:
    """Return how many of a repository's tags have stored evidence, of whatever digest."""
    own = (listing.c.repository == repository, listing.c.tag.in_(list(names)))
    return int(session.execute(sa.select(sa.func.count(listing.c.tag.distinct())).where(*own)).scalar_one())
