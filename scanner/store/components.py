"""Packages across all images: which image holds a package, and which of these images run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.model.decision import Verdict
from scanner.model.version_ranges import VersionRange
from scanner.store import inventory
from scanner.store.images import purl_key
from scanner.store.listings import literal
from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import component, image, image_component, image_stack, listing, report

T = TypeVar("T")

_MOST_VERSIONS = 5000  # versions that are compared for one question; more are answered as "truncated"
_AT_ONCE = 500


@dataclass(frozen=True)
class Holder:
    """A tagged image that holds a package.

    ``comparable`` is False if the package's version could not be compared with the range: the image may hold it.
    ``environments`` are those in which the image runs, by the inventory.
    """

    name: str
    version: str
    purl: str
    comparable: bool
    digest: str
    repository: str
    tag: str
    project: str
    verdict: Verdict
    undecided: bool  # denied only because evidence is missing
    environments: tuple[str, ...] = ()


@dataclass(frozen=True)
class HolderRows:
    """The holders of a page. ``truncated``: more versions match than are looked at, so some images may be missing.

    ``incomplete`` is the number of visible images whose packages could not all be read: they may hold it too.
    """

    holders: Page[Holder]
    truncated: bool
    incomplete: int


@dataclass(frozen=True)
class Search:
    """``name`` is part of a package's name, in any case of letters; ``purl`` is the whole purl without qualifiers."""

    name: str = ""
    versions: VersionRange = VersionRange()  # which versions of the package
    purl: str = ""
    exact: bool = False  # the name is the whole name, not a part of it
    running: bool = False  # only images that a workload runs


def search(
    session: Connection, asked: Search, projects: frozenset[str] | None, *, cursor: str | None = None, limit: int = 50
) -> HolderRows:
    """Find the images that hold a package, one row for each package version and name of an image.

    An image of several platforms is found if one of them holds it.
    """
    numbers, unsure, truncated = _matching_versions(session, asked)
    after = decode_cursor(cursor, (int, int, int)) if cursor else (0, 0, 0)
    rows: list[sa.Row[tuple[object, ...]]] = []
    # The numbers are in the order of the cursor, so that a page reads only the packages from its own beginning on.
    for chunk in _chunks([number for number in numbers if number >= after[0]]):
        query = _holders(chunk, projects, after, asked.running).limit(limit + 1 - len(rows))
        rows += session.execute(query).all()
        if len(rows) > limit:
            break
    running = inventory.running_in(session, {digest for row in rows for digest in (row.digest, row.child)}, projects)
    holders = tuple(
        Holder(
            row.name,
            row.version,
            row.purl,
            row.component_id not in unsure,
            row.digest,
            row.repository,
            row.tag,
            row.project,
            Verdict(row.verdict),
            bool(row.undecided),
            tuple(sorted({*running.get(row.digest, ()), *running.get(row.child, ())})),
        )
        for row in rows[:limit]
    )
    last = rows[limit - 1] if len(rows) > limit else None
    page = Page(holders, encode_cursor(last.component_id, last.image_id, last.id) if last else None)
    return HolderRows(page, truncated, _incomplete(session, projects))


def _matching_versions(session: Connection, asked: Search) -> tuple[list[int], set[int], bool]:
    """The numbers of the package versions that match, those that cannot be compared, whether there are more."""
    named = sa.select(component.c.id)
    if asked.purl:
        # Qualifiers (arch, distro) tell builds of one version apart; who asks for a purl means all of them.
        whole = purl_key(asked.purl)
        named = named.where(
            sa.or_(component.c.purl == whole, component.c.purl.like(literal(whole) + "?%", escape="\\"))
            if "@" in whole
            else component.c.purl.like(literal(whole) + "@%", escape="\\")
        )
    if asked.name and asked.exact:
        named = named.where(component.c.name == asked.name)
    elif asked.name:
        # SQLite's LIKE ignores case by itself; its lower() would triple the time.
        like = component.c.name.like if session.dialect.name == "sqlite" else component.c.name.ilike
        named = named.where(like("%" + literal(asked.name) + "%", escape="\\"))
    # In two steps, because the index on the name is several times smaller than the table.
    columns = (
        (component.c.id, component.c.version, component.c.purl) if asked.versions.constraints else (component.c.id,)
    )
    query = sa.select(*columns).where(component.c.id.in_(named)).order_by(component.c.id).limit(_MOST_VERSIONS + 1)
    rows = session.execute(query).all()
    if not asked.versions.constraints:
        return [row.id for row in rows[:_MOST_VERSIONS]], set(), len(rows) > _MOST_VERSIONS
    inside = {
        row.id: asked.versions.contains(row.purl.removeprefix("pkg:").partition("/")[0], row.version)
        for row in rows[:_MOST_VERSIONS]
    }
    # None means "cannot be compared", and stays in the result. Leaving it out would report an image as free of a
    # package that it may hold.
    numbers = [number for number, answer in inside.items() if answer is not False]
    return numbers, {number for number in numbers if inside[number] is None}, len(rows) > _MOST_VERSIONS


def _holders(
    numbers: Sequence[int], projects: frozenset[str] | None, after: tuple[int, int, int], running: bool
) -> sa.Select[tuple[object, ...]]:
    """One row for each name of an image, in the order of the index, so that a page costs what it shows."""
    place = (image_component.c.component_id, image_component.c.image_id, listing.c.id)
    query = (
        sa.select(
            *place,
            component.c.name,
            component.c.version,
            component.c.purl,
            image.c.digest.label("child"),
            listing.c.digest,
            listing.c.repository,
            listing.c.tag,
            listing.c.project,
            listing.c.verdict,
            listing.c.undecided,
        )
        .select_from(image_component)
        .join(component, component.c.id == image_component.c.component_id)
        .join(image, image.c.id == image_component.c.image_id)
        .join(image_stack, image_stack.c.digest == image.c.digest)
        .join(listing, listing.c.digest == image_stack.c.subject)
        .where(image_component.c.component_id.in_(numbers), sa.tuple_(*place) > after)
        .order_by(*place)
    )
    if projects is not None:
        query = query.where(listing.c.project.in_(projects))
    if running:
        # A workload can name the index or the image of its platform.
        query = query.where(inventory.runs(listing.c.digest, image.c.digest, projects=projects))
    return query


def _incomplete(session: Connection, projects: frozenset[str] | None) -> int:
    # Of the packages alone: a check or a signature that could not be examined hides no package.
    query = (
        sa.select(sa.func.count(sa.distinct(listing.c.digest)))
        .join(report, report.c.id == listing.c.report_id)
        .where(sa.not_(report.c.complete))
    )
    return int(
        session.execute(query if projects is None else query.where(listing.c.project.in_(projects))).scalar_one()
    )


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
