"""Base watch: the tags of bases, what they name now, and which images were built on something older.

A row of ``image_base`` is written with each listing. A row of ``base_watch`` belongs to a project: its own access asks
the registry. See ``scanner.worker.base_watch``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from scanner.errors import UsageError
from scanner.model.finding import Severity
from scanner.model.reference import Reference
from scanner.model.scan import ScanReport
from scanner.store import tags
from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import (
    base_watch,
    component,
    finding,
    image,
    image_base,
    image_stack,
    listing,
    report,
    vulnerability,
)
from scanner.store.session import epoch, insert_new, moment

_CHUNK = 500  # rows of one statement
_Pair = tuple[str, str]  # package, vulnerability


@dataclass(frozen=True)
class Name:
    """A tag that images name as their base, in a project."""

    repository: str
    tag: str
    project: str

    @property
    def reference(self) -> str:
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True)
class Comparison:
    """What a rebuild on the newest base changes: distinct pairs of package and vulnerability, by severity.

    ``problem``: a reason slug if it is not known, or not completely.
    """

    gone: Mapping[str, int] = field(default_factory=dict)
    come: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""

    @property
    def known(self) -> bool:
        return self.problem in ("", "base_incomplete")


@dataclass(frozen=True)
class Watch:
    """A watched tag. ``digest``: what it names; empty: unknown. ``members``: the digests of its index.

    ``seen_at``: when ``digest`` was seen first; ``asked_at``: the last answer. ``failures``: in a row, with ``reason``
    and ``message`` of the last one. ``scans``: ids of the scans of bases that the comparison needs. ``reported``: the
    digest that the last event was about.
    """

    name: Name
    digest: str = ""
    members: tuple[str, ...] = ()
    seen_at: datetime | None = None
    asked_at: datetime | None = None
    failures: int = 0
    reason: str = ""
    message: str = ""
    scans: tuple[str, ...] = ()
    reported: str = ""
    comparison: Comparison | None = None

    def is_newest(self, digest: str) -> bool | None:
        """Whether the tag names this image now. None: unknown."""
        return None if not (digest and self.digest) else digest == self.digest or digest in self.members


@dataclass(frozen=True)
class BuiltOn:
    """A current image, and the digest of its base. ``newest``: it is what the base's tag names now; None: unknown."""

    repository: str
    tag: str
    digest: str
    base: str  # digest of the base that it was built on
    newest: bool | None


@dataclass(frozen=True)
class WatchedBase:
    """A watched tag with the current images that name it."""

    watch: Watch
    images: tuple[BuiltOn, ...]

    @property
    def rebuild(self) -> tuple[BuiltOn, ...]:
        """The images that were built on an older base."""
        return tuple(one for one in self.images if one.newest is False)

    @property
    def state(self) -> str:
        """``newer``, ``current`` or ``unknown``."""
        if self.rebuild:
            return "newer"
        known = bool(self.watch.digest) and all(one.newest is not None for one in self.images)
        return "current" if known and not self.watch.reason else "unknown"


def note(session: Connection, listing_id: int, found: ScanReport, project: str) -> None:
    """Record the bases of a listing's images, and watch their tags."""
    rows: dict[str, dict[str, Any]] = {}
    for item in found.images:
        reference = _reference_with_tag(item.base.reference) if item.base else None
        if item.base and reference and reference.tag:
            digest = str(item.base.digest or "")
            values = {"repository": reference.name, "tag": reference.tag, "digest": digest}
            rows[str(item.image.digest)] = {"listing_id": listing_id, "image": str(item.image.digest), **values}
    # The listing of a tag is replaced by each scan, and a rebuild may have another base.
    session.execute(image_base.delete().where(image_base.c.listing_id == listing_id))
    insert_new(session, image_base, [rows[digest] for digest in sorted(rows)])
    names = {Name(row["repository"], row["tag"], project) for row in rows.values()}
    watch(session, names)
    for name in sorted(names, key=lambda n: n.reference):  # it may be the rebuild that an event asked for
        session.execute(base_watch.update().where(*_is(name), base_watch.c.reported != "").values(look_epoch=0.0))


def note_moved(session: Connection, repository: str, tag: str) -> None:
    """A scan saw that a tag names another image: if it is a base, its registry is asked soon."""
    mine = (base_watch.c.repository == repository, base_watch.c.tag == tag)
    session.execute(base_watch.update().where(*mine).values(ask_epoch=0.0))


def _reference_with_tag(text: str) -> Reference | None:
    try:
        found = Reference.parse(text)
    except UsageError:
        return None
    return found if found.tag and len(found.name) <= 600 else None


def watch(session: Connection, names: Iterable[Name]) -> None:
    """Watch these tags. Known ones are left as they are. Sorted, because concurrent scans share them."""
    rows = [
        {"repository": n.repository, "tag": n.tag, "project": n.project, "ask_epoch": 0.0, "look_epoch": 0.0}
        for n in sorted(names, key=lambda n: (n.repository, n.tag, n.project))
    ]
    insert_new(session, base_watch, rows)


def tidy(session: Connection) -> None:
    """Watch what moved to another project, and forget the tags that no current image names any more."""
    named = sa.select(image_base.c.repository, image_base.c.tag, listing.c.project)
    named = named.join(listing, listing.c.id == image_base.c.listing_id).where(_is_current()).distinct()
    names = {Name(row.repository, row.tag, row.project) for row in session.execute(named)}
    known = sa.select(base_watch.c.repository, base_watch.c.tag, base_watch.c.project)
    list_watched = {Name(*row) for row in session.execute(known)}
    watch(session, names - list_watched)
    for name in list_watched - names:
        session.execute(base_watch.delete().where(*_is(name)))


def is_due(session: Connection) -> bool:
    """Whether there is a tag to ask for, or images to compare."""
    now = epoch(session)
    ask, look = base_watch.c.ask_epoch <= now, base_watch.c.look_epoch <= now
    # Two queries: with OR between them, neither database would use an index.
    return any(session.execute(sa.select(sa.literal(1)).where(one).limit(1)).first() is not None for one in (ask, look))


def to_ask(session: Connection, limit: int) -> tuple[Watch, ...]:
    """The tags that the registry is due to be asked for, the longest due first."""
    query = sa.select(*base_watch.c).where(base_watch.c.ask_epoch <= epoch(session))
    order = (base_watch.c.ask_epoch, base_watch.c.repository, base_watch.c.tag, base_watch.c.project)
    return tuple(_watch(row) for row in session.execute(query.order_by(*order).limit(limit)))


def to_look(session: Connection, limit: int) -> tuple[Watch, ...]:
    """The tags whose images are due to be compared with what the tag names."""
    query = sa.select(*base_watch.c).where(base_watch.c.look_epoch <= epoch(session))
    order = (base_watch.c.look_epoch, base_watch.c.repository, base_watch.c.tag, base_watch.c.project)
    return tuple(_watch(row) for row in session.execute(query.order_by(*order).limit(limit)))


def record_answer(session: Connection, one: Watch, digest: str, members: Sequence[str], seconds: float) -> None:
    """The registry said what the tag names. It is asked again in ``seconds``."""
    now = epoch(session)
    values: dict[str, Any] = {"asked_at": moment(session), "ask_epoch": now + seconds, "look_epoch": now}
    # A new digest makes the former comparison wrong. It is dropped in the same write, so that no page shows it as the
    # current one.
    if digest != one.digest:
        values |= {"digest": digest, "seen_at": moment(session), "scans": [], "comparison": None}
    values |= {"members": list(members), "failures": 0, "reason": "", "message": ""}
    session.execute(base_watch.update().where(*_is(one.name)).values(**values))


def failed(session: Connection, one: Watch, reason: str, message: str, seconds: float) -> None:
    """The registry did not say what the tag names. The last answer stays."""
    # The digest stays: a registry that does not answer is no reason to say that a base is unknown which was known
    # yesterday.
    values = {"failures": one.failures + 1, "reason": reason[:64], "message": message[:1000]}
    when = epoch(session) + seconds
    session.execute(base_watch.update().where(*_is(one.name)).values(**values, ask_epoch=when, look_epoch=when))


def put_off(session: Connection, names: Iterable[Name], seconds: float) -> None:
    """The registry limits our requests: ask later for these too."""
    for name in names:
        session.execute(base_watch.update().where(*_is(name)).values(ask_epoch=epoch(session) + seconds))


def record_comparison(
    session: Connection,
    one: Watch,
    seconds: float | None,
    *,
    scans: Sequence[str] | None = None,
    reported: str | None = None,
    comparison: Comparison | None = None,
) -> None:
    """The images were compared. ``seconds``: until the next look; None: only after the registry's next answer."""
    values: dict[str, Any] = {
        # Not NULL: one index serves both searches.
        "look_epoch": epoch(session) + seconds if seconds is not None else base_watch.c.ask_epoch + 1.0,
    }
    if scans is not None:
        values["scans"] = list(scans)
    if reported is not None:
        values["reported"] = reported
    document = None
    if comparison is not None:
        document = {"gone": comparison.gone, "come": comparison.come, "problem": comparison.problem}
    session.execute(base_watch.update().where(*_is(one.name)).values(**values, comparison=document))


def built_on(session: Connection, one: Watch) -> tuple[BuiltOn, ...]:
    """The current images of the project that name this tag as their base, each once: an older base of any platform
    counts.
    """
    name = one.name
    query = (
        sa.select(listing.c.repository, listing.c.tag, listing.c.digest, image_base.c.digest.label("base"))
        .join(listing, listing.c.id == image_base.c.listing_id)
        .where(image_base.c.repository == name.repository, image_base.c.tag == name.tag)
        .where(listing.c.project == name.project, _is_current())
        .order_by(listing.c.repository, listing.c.tag, listing.c.digest, image_base.c.image)
    )
    found: dict[tuple[str, str, str], BuiltOn] = {}
    for row in session.execute(query):
        new = BuiltOn(row.repository, row.tag, row.digest, row.base, one.is_newest(row.base))
        known = found.setdefault((row.repository, row.tag, row.digest), new)
        if _rank(new) > _rank(known):
            found[row.repository, row.tag, row.digest] = new
    return tuple(found.values())


def _rank(one: BuiltOn) -> int:
    return {True: 0, None: 1, False: 2}[one.newest]


def list_watched(
    session: Connection, projects: frozenset[str] | None, *, cursor: str | None = None, limit: int = 50
) -> Page[WatchedBase]:
    """List watched tags by name, with the images of the projects."""
    key = (base_watch.c.repository, base_watch.c.tag, base_watch.c.project)
    query = sa.select(*base_watch.c).order_by(*key).limit(limit + 1)
    if projects is not None:
        query = query.where(base_watch.c.project.in_(projects))
    if cursor:
        query = query.where(sa.tuple_(*key) > sa.tuple_(*map(sa.literal, decode_cursor(cursor, (str, str, str)))))
    rows = [_watch(row) for row in session.execute(query)]
    items = [WatchedBase(one, built_on(session, one)) for one in rows[:limit]]
    last = rows[limit - 1].name if len(rows) > limit else None
    following = encode_cursor(last.repository, last.tag, last.project) if last else None
    return Page(tuple(item for item in items if item.images), following)


def get(session: Connection, name: Name) -> Watch | None:
    """Return a watched tag, or None."""
    row = session.execute(sa.select(*base_watch.c).where(*_is(name))).first()
    return _watch(row) if row else None


def is_recorded(session: Connection, digest: str, project: str) -> bool:
    """Whether the project has evidence about this digest, of an image, or of an index that contains it."""
    direct = sa.select(listing.c.id).where(listing.c.digest == digest, listing.c.project == project)
    inside = (
        sa.select(listing.c.id)
        .join(image_stack, image_stack.c.subject == listing.c.digest)
        .where(image_stack.c.digest == digest, listing.c.project == project)
    )
    return any(session.execute(query.limit(1)).first() is not None for query in (direct, inside))


def compare(session: Connection, one: Watch) -> Comparison:
    """What a rebuild on the newest base changes in the images that were built on an older one.

    A finding goes if the former base and the image have it, and the new base has not. It comes if only the new base has
    it. The bases' own scans are compared, platform by platform.
    """
    name = one.name
    query = (
        sa.select(image_base.c.image, image_base.c.digest.label("base"), image.c.platform)
        .join(listing, listing.c.id == image_base.c.listing_id)
        .join(image, image.c.digest == image_base.c.image)
        .where(image_base.c.repository == name.repository, image_base.c.tag == name.tag)
        .where(listing.c.project == name.project, _is_current())
    )
    built = [row for row in session.execute(query) if one.is_newest(row.base) is False]
    new = _by_platform(session, {one.digest})
    gone: dict[_Pair, str] = {}
    come: dict[_Pair, str] = {}
    problem = "" if _is_complete(session, one.digest, name.project) else "base_incomplete"
    for former, platform in sorted({(row.base, row.platform) for row in built}):
        old = _by_platform(session, {former}).get(platform, set())
        # Nothing is counted for this platform. The numbers of the others are shown with the problem: a sum that
        # silently lacks one would look like good news.
        if not old or not new.get(platform):
            problem = "former_base_unknown" if not old else "platform_missing"
            continue
        before, after = _pairs(session, old), _pairs(session, new[platform])
        own = _pairs(session, {row.image for row in built if (row.base, row.platform) == (former, platform)})
        # Only what the image still has. A finding of the former base that the image has removed itself would be
        # counted as a gain of the rebuild.
        gone |= {pair: severity for pair, severity in before.items() if pair in own and pair not in after}
        come |= {pair: severity for pair, severity in after.items() if pair not in before and pair not in own}
    return Comparison(_counts(gone), _counts(come), problem)


def _counts(pairs: Mapping[_Pair, str]) -> dict[str, int]:
    counts = Counter(pairs.values())
    return {one.value: counts[one.value] for one in reversed(Severity) if counts[one.value]}


def _by_platform(session: Connection, digests: Collection[str]) -> dict[str, set[str]]:
    """The images of these digests, which may be of an index, by platform."""
    query = (
        sa.select(image_stack.c.digest, image.c.platform)
        .join(image, image.c.digest == image_stack.c.digest)
        .where(sa.or_(image_stack.c.subject.in_(digests), image_stack.c.digest.in_(digests)))
    )
    found: dict[str, set[str]] = {}
    for row in session.execute(query):
        found.setdefault(row.platform, set()).add(row.digest)
    return found


def _pairs(session: Connection, digests: Collection[str]) -> dict[_Pair, str]:
    """Package and vulnerability of each finding with its severity. Without versions: a rebuild changes them."""
    found: dict[_Pair, str] = {}
    wanted = sorted(digests)
    for start in range(0, len(wanted), _CHUNK):
        query = (
            sa.select(component.c.name, vulnerability.c.name.label("vulnerability"), vulnerability.c.severity)
            .select_from(finding)
            .join(image, image.c.id == finding.c.image_id)
            .join(component, component.c.id == finding.c.component_id)
            .join(vulnerability, vulnerability.c.id == finding.c.vulnerability_id)
            .where(image.c.digest.in_(wanted[start : start + _CHUNK]))
            .distinct()
        )
        found |= {(row.name, row.vulnerability): row.severity for row in session.execute(query)}
    return found


def _is_complete(session: Connection, digest: str, project: str) -> bool:
    query = sa.select(report.c.complete).join(listing, listing.c.report_id == report.c.id)
    query = query.where(listing.c.digest == digest, listing.c.project == project)
    return bool(session.execute(query.order_by(listing.c.scanned_epoch.desc()).limit(1)).scalar())


def _is(name: Name) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        base_watch.c.repository == name.repository,
        base_watch.c.tag == name.tag,
        base_watch.c.project == name.project,
    )


def _is_current() -> sa.ColumnElement[bool]:
    """Images that their tag still names. A rebuild replaces nothing else."""
    return sa.and_(listing.c.tag != "", tags.is_named_last())


def _watch(row: Row[Any]) -> Watch:
    document = row.comparison
    return Watch(
        Name(row.repository, row.tag, row.project),
        row.digest,
        tuple(row.members),
        row.seen_at,
        row.asked_at,
        row.failures,
        row.reason,
        row.message,
        tuple(row.scans),
        row.reported,
        Comparison(document["gone"], document["come"], document["problem"]) if document else None,
    )
