"""Matching of stored packages with newer advisories, to find the images whose evidence changes.

Each package version is stored once with the newest engine answer about it. Each listing stores, for each of its
packages, the fingerprint of its evidence. If both differ, the listing's evidence is outdated; if all are equal, the
newer advisories confirm it. So a new advisory database costs one look-up per package version, not one per image.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.engine import Connection

from scanner.model.decision import Revoked
from scanner.model.finding import Vulnerability
from scanner.model.matching import (
    NOT_COMPARED,
    RUNGS,
    Basis,
    Confirmed,
    Package,
    basis_of,
    by_package,
    fingerprint,
    without_advisories,
)
from scanner.model.scan import ScanReport
from scanner.store.schema import basis, listing, listing_package, package, rests_on
from scanner.store.session import insert_new, moment

_CHUNK = 500  # rows of one statement


@lru_cache(maxsize=1)
def _vulnerabilities() -> TypeAdapter[tuple[Vulnerability, ...]]:
    return TypeAdapter(tuple[Vulnerability, ...])


@lru_cache(maxsize=1)
def _bases() -> TypeAdapter[Basis]:
    return TypeAdapter(Basis)


def _pack(items: Sequence[Vulnerability]) -> bytes | None:
    return zlib.compress(_vulnerabilities().dump_json(tuple(items)), 6) if items else None


def _unpack(data: bytes | None) -> tuple[Vulnerability, ...]:
    return _vulnerabilities().validate_json(zlib.decompress(data)) if data else ()


def link(session: Connection, listing_id: int, found: ScanReport, rungs: Sequence[float] = RUNGS) -> None:
    """Store the fingerprints and the basis of a listing's evidence, in the transaction that records the evidence."""
    said: dict[Package, list[Vulnerability]] = {}
    for image in found.images:
        for engine in image.engines:
            for item, vulnerabilities in by_package(engine).items():
                said.setdefault(item, []).extend(vulnerabilities)
    without = {key for image in found.images for engine in image.engines for key in without_advisories(engine)}
    prints = {k.key: NOT_COMPARED if k.key in without else fingerprint(items, rungs) for k, items in said.items()}
    packages = {item.key: item for item in said}
    numbers = _package_ids(session, packages)
    session.execute(listing_package.delete().where(listing_package.c.listing_id == listing_id))
    rows = [{"listing_id": listing_id, "package_id": numbers[k], "matched": prints[k]} for k in sorted(numbers)]
    insert_new(session, listing_package, rows)
    note_basis(session, listing_id, found, rungs)


def _package_ids(session: Connection, packages: Mapping[str, Package]) -> dict[str, int]:
    """Return the ids of packages by key. New ones are inserted without an answer; the next re-match gets one."""
    known = _numbers(session, packages)
    missing = sorted(packages.keys() - known.keys())
    if missing:
        rows = [
            {"key": k, "engine": packages[k].engine, "os": packages[k].os, "document": asdict(packages[k]), "basis": ""}
            for k in missing
        ]
        insert_new(session, package, rows)
        known |= _numbers(session, missing)
    return known


def _numbers(session: Connection, keys: Iterable[str]) -> dict[str, int]:
    wanted = list(keys)
    found: dict[str, int] = {}
    for start in range(0, len(wanted), _CHUNK):
        part = wanted[start : start + _CHUNK]
        rows = session.execute(sa.select(package.c.key, package.c.id).where(package.c.key.in_(part)))
        found.update((row.key, row.id) for row in rows)
    return found


def note_basis(session: Connection, listing_id: int, found: ScanReport, rungs: Sequence[float] = RUNGS) -> None:
    """Store the basis (engines, binaries, advisories) of a listing's evidence."""
    session.execute(rests_on.delete().where(rests_on.c.listing_id == listing_id))
    rows: list[dict[str, Any]] = [
        {
            "listing_id": listing_id,
            "position": position,
            "image": image.image.digest,
            "engine": engine.engine,
            "version": engine.version[:64],
            "binary": engine.binary or "",
            "advisories": engine.advisories.digest or "",
            "os": f"{engine.coverage.os_family} {engine.coverage.os_version}".strip()[:600],
            "supported": engine.coverage.os_supported,
            "basis": basis_of(engine, rungs).id,
        }
        for position, (image, engine) in enumerate((i, e) for i in found.images for e in i.engines)
    ]
    nobody = {
        "position": 0,
        "image": found.digest,
        "engine": "",
        "version": "",
        "binary": "",
        "advisories": "",
        "os": "",
    }
    session.execute(rests_on.insert(), rows or [{**nobody, "listing_id": listing_id, "supported": None, "basis": ""}])


def resting_on(session: Connection, image: str, engine: str) -> list[int]:
    """Return the ids of listings whose evidence contains this engine's answer about this image."""
    query = sa.select(rests_on.c.listing_id).where(rests_on.c.image == image, rests_on.c.engine == engine)
    return sorted(session.execute(query.distinct()).scalars())


def listings_without_basis(session: Connection, limit: int, *, after: int = 0) -> list[tuple[int, str]]:
    """Return (listing id, report id) of listings without a stored basis, from before it was stored."""
    nothing = ~sa.exists().where(rests_on.c.listing_id == listing.c.id)
    query = sa.select(listing.c.id, listing.c.report_id).where(nothing, listing.c.id > after)
    return [(row.id, row.report_id) for row in session.execute(query.order_by(listing.c.id).limit(limit))]


# Re-matching


def begin(session: Connection, on: Basis) -> None:
    """Store the basis of the following answers."""
    row = {
        "id": on.id,
        "engine": on.engine,
        "document": _bases().dump_python(on, mode="json"),
        "releases": {},
        "created_at": moment(session),
    }
    insert_new(session, basis, [row])


def due(session: Connection, on: Basis, *, since: datetime | None = None) -> bool:
    """Return whether evidence of this engine was not yet compared with this basis.

    ``since``: only evidence of scans after that moment.
    """
    rests = sa.select(rests_on.c.listing_id).where(rests_on.c.engine == on.engine, rests_on.c.basis != on.id).limit(1)
    if since is not None:
        rests = rests.join(listing, listing.c.id == rests_on.c.listing_id).where(listing.c.scanned_at >= since)
    return session.execute(rests).first() is not None


def is_newest(session: Connection, on: Basis, revoked: Sequence[Revoked]) -> bool:
    """Return whether no newer, unrevoked advisories were used for matching yet."""
    bad = {item.digest for item in revoked if item.digest}
    if on.advisories.digest in bad or on.binary in bad or Revoked(on.engine, on.version) in revoked:
        return False
    query = sa.select(basis.c.document).where(basis.c.engine == on.engine).order_by(basis.c.created_at.desc()).limit(50)
    built = on.advisories.updated_at
    for row in session.execute(query):
        other = _bases().validate_python(row.document)
        newer = built is None or (other.advisories.updated_at is not None and other.advisories.updated_at > built)
        # Revoked advisories do not count as newer. Otherwise a bad database would block the return to the one before
        # it.
        if newer and other.advisories.digest not in bad:
            return False
    return True


def engine_of(session: Connection, listing_id: int) -> str:
    """Return the ``engine`` value that repeats a listing's scan: an engine or ``both``; empty: no engine answered."""
    query = sa.select(rests_on.c.engine).where(rests_on.c.listing_id == listing_id).order_by(rests_on.c.position)
    found = list(dict.fromkeys(session.execute(query).scalars()))
    return "both" if len(found) > 1 else str(found[0] if found else "")


def releases(session: Connection, on: Basis) -> dict[str, int]:
    """Return the number of packages without an answer on this basis, by OS release."""
    query = sa.select(package.c.os, sa.func.count()).where(package.c.engine == on.engine, package.c.basis != on.id)
    return {row[0]: row[1] for row in session.execute(query.group_by(package.c.os).order_by(package.c.os))}


def unanswered_packages(session: Connection, on: Basis, release: str, limit: int) -> list[tuple[int, Package]]:
    """Return packages of a release without an answer on this basis, with their ids."""
    query = (
        sa.select(package.c.id, package.c.document)
        .where(package.c.engine == on.engine, package.c.os == release, package.c.basis != on.id)
        .order_by(package.c.id)
        .limit(limit)
    )
    return [(row.id, Package(**row.document)) for row in session.execute(query)]


def answer(
    session: Connection,
    on: Basis,
    answers: Mapping[int, Sequence[Vulnerability] | None],
    release: str = "",
    there: bool | None = None,
) -> frozenset[int]:
    """Store an engine's answers by package id (None: needs the image), and whether their release is supported.

    Returns the ids of packages whose answer changed. For the others only the basis is updated.
    """
    former = _fingerprints(session, answers)  # without packages that were pruned in the meantime
    prints = {n: None if i is None else fingerprint(i, on.rungs) for n, i in answers.items() if n in former}
    # Answers are large and most stay equal, so an equal one costs an update of one column and writes no answer.
    new = sorted(n for n, found in prints.items() if found is None or found != former[n])
    rows = [{"n": n, "matched": prints[n], "matches": _pack(answers[n] or ()), "basis": on.id} for n in new]
    if rows:
        values: dict[str, Any] = {name: sa.bindparam(name) for name in ("matched", "matches", "basis")}
        session.execute(package.update().where(package.c.id == sa.bindparam("n")).values(values), rows)
    same = sorted(prints.keys() - set(new))
    for start in range(0, len(same), _CHUNK):
        part = same[start : start + _CHUNK]
        session.execute(package.update().where(package.c.id.in_(part)).values(basis=on.id))
    if release:
        known = supported_releases(session, on)
        session.execute(basis.update().where(basis.c.id == on.id).values(releases={**known, release: there}))
    return frozenset(new)


def _fingerprints(session: Connection, numbers: Iterable[int]) -> dict[int, int | None]:
    wanted = sorted(numbers)
    found: dict[int, int | None] = {}
    for start in range(0, len(wanted), _CHUNK):
        part = wanted[start : start + _CHUNK]
        rows = session.execute(sa.select(package.c.id, package.c.matched).where(package.c.id.in_(part)))
        found.update((row.id, row.matched) for row in rows)
    return found


def changed_listings(session: Connection, on: Basis) -> list[int]:
    """Return the ids of listings whose evidence differs from the answers, in a package or in the release's support."""
    differing = (
        sa.select(listing_package.c.listing_id)
        .join(package, package.c.id == listing_package.c.package_id)
        .where(package.c.engine == on.engine, package.c.basis == on.id, listing_package.c.matched != package.c.matched)
        .distinct()
    )
    # False only. None means that the engine did not say, which changes nothing.
    ended = [release for release, there in supported_releases(session, on).items() if there is False]
    found = {row[0] for row in session.execute(differing)}
    for start in range(0, len(ended), _CHUNK):
        past = sa.select(rests_on.c.listing_id).where(
            rests_on.c.engine == on.engine,
            rests_on.c.os.in_(ended[start : start + _CHUNK]),
            rests_on.c.supported.is_not(False),
        )
        found |= {row[0] for row in session.execute(past)}
    return sorted(found)


def supported_releases(session: Connection, on: Basis) -> Mapping[str, bool | None]:
    """Return whether each release is still supported, according to the answers on this basis."""
    found: Mapping[str, bool | None] = session.execute(
        sa.select(basis.c.releases).where(basis.c.id == on.id)
    ).scalar_one()
    return found


def listings_to_scan(session: Connection, on: Basis) -> list[int]:
    """Return the ids of listings that need a scan: a package cannot be matched without the image, and their evidence is
    based on other advisories.
    """
    query = (
        sa.select(rests_on.c.listing_id)
        .join(listing_package, listing_package.c.listing_id == rests_on.c.listing_id)
        .join(package, package.c.id == listing_package.c.package_id)
        .where(
            package.c.engine == on.engine,
            package.c.basis == on.id,
            package.c.matched.is_(None),
            rests_on.c.engine == on.engine,
            rests_on.c.advisories != (on.advisories.digest or ""),
        )
        .distinct()
    )
    return sorted(row[0] for row in session.execute(query))


def answers(
    session: Connection, on: Basis, listing_id: int, *, only_changed: bool = True
) -> dict[str, tuple[Vulnerability, ...]] | None:
    """Return the answers about a listing's packages that differ from its evidence (or all), by package key.

    None: answers are missing.
    """
    query = (
        sa.select(
            package.c.key, package.c.basis, package.c.matched, package.c.id, listing_package.c.matched.label("said")
        )
        .join(listing_package, listing_package.c.package_id == package.c.id)
        .where(listing_package.c.listing_id == listing_id, package.c.engine == on.engine)
    )
    rows = session.execute(query).all()
    # An answer is missing, or one package needs the image. Evidence that mixes two versions of the advisories must
    # not be written.
    if any(row.basis != on.id or row.matched is None for row in rows):
        return None
    wanted = [row.id for row in rows if not only_changed or row.matched != row.said]
    found: dict[str, tuple[Vulnerability, ...]] = {}
    for start in range(0, len(wanted), _CHUNK):
        part = sa.select(package.c.key, package.c.matches).where(package.c.id.in_(wanted[start : start + _CHUNK]))
        found.update((row.key, _unpack(row.matches)) for row in session.execute(part))
    return found


def accept(session: Connection, on: Basis, listing_id: int) -> None:
    """Set a listing's fingerprints to those of the answers, from which its new evidence was built."""
    newest = sa.select(package.c.matched).where(package.c.id == listing_package.c.package_id).scalar_subquery()
    of_engine = sa.select(package.c.id).where(package.c.engine == on.engine)
    session.execute(
        listing_package.update()
        .where(listing_package.c.listing_id == listing_id, listing_package.c.package_id.in_(of_engine))
        .values(matched=newest)
    )


def confirm(session: Connection, on: Basis) -> int:
    """Set this basis for every listing whose packages all have equal answers. Returns the number of changed rows."""
    differing = (
        sa.select(listing_package.c.listing_id)
        .join(package, package.c.id == listing_package.c.package_id)
        .where(
            package.c.engine == on.engine,
            sa.or_(
                # Every package must have been asked. One that was not keeps the listing unconfirmed: unknown is not
                # confirmed.
                package.c.basis != on.id,
                package.c.matched.is_(None),
                listing_package.c.matched != package.c.matched,
            ),
        )
    )
    where = (rests_on.c.engine == on.engine, rests_on.c.basis != on.id, rests_on.c.listing_id.not_in(differing))
    return session.execute(rests_on.update().where(*where).values(basis=on.id)).rowcount


def has_run(session: Connection) -> bool:
    """Return whether any re-match has ever run."""
    return session.execute(sa.select(basis.c.id).limit(1)).first() is not None


def confirmations(session: Connection, report_id: str) -> tuple[Confirmed, ...]:
    """Return the newer advisories that confirmed the evidence, the newest last."""
    query = (
        sa.select(rests_on.c.image, rests_on.c.engine, basis.c.document)
        .join(listing, listing.c.id == rests_on.c.listing_id)
        .join(basis, basis.c.id == rests_on.c.basis)
        .where(listing.c.report_id == report_id)
        .order_by(basis.c.created_at)
    )
    return tuple(Confirmed(r.image, r.engine, _bases().validate_python(r.document)) for r in session.execute(query))


def figures(session: Connection) -> Mapping[str, Any]:
    """Return the numbers of packages and listings, for metrics and pages."""
    packages = session.execute(sa.select(sa.func.count()).select_from(package)).scalar_one()
    names = session.execute(sa.select(sa.func.count(sa.distinct(rests_on.c.listing_id)))).scalar_one()
    return {"packages": packages, "names": names}
