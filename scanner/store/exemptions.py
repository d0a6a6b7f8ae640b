"""Exemptions: violations that somebody asked to accept and a second person accepted, for some images, until a day to
come.

``requested -> approved | rejected``, ``approved -> revoked | lapsed``; whoever asked may take it back (``revoked``)
at any time. Past its end it is ``expired``, which is no state that is written: time alone makes it so. Only
conditional updates move one, so of fifty people who approve at once one does.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.errors import ConflictError, NotFoundError, RefusedError, UsageError
from scanner.model.actor import Person
from scanner.model.vex import Exemption
from scanner.store.page import Page, decode_cursor, encode_cursor
from scanner.store.schema import exemption
from scanner.store.session import moment

LONGEST = timedelta(days=366)
STATES = ("requested", "approved", "rejected", "revoked", "lapsed", "expired")


@dataclass(frozen=True)
class ExemptionView:
    """``state`` is what it is now: ``expired`` when its time is over.

    ``version`` is its ETag. ``note``: what was said at its last move.
    """

    id: str
    project: str
    images: tuple[str, ...]
    rule: str
    subject: str
    purl: str
    justification: str
    state: str
    owner: str
    owner_id: str
    requested_at: datetime
    expires_at: datetime
    decided_by: str
    decided_at: datetime | None
    ended_by: str
    ended_at: datetime | None
    note: str
    until_fixed: bool
    until_exploited: bool
    version: int


def request(
    session: Connection,
    project: str,
    owner: Person,
    *,
    images: Sequence[str],
    justification: str,
    expires_at: datetime,
    rule: str = "",
    subject: str = "",
    purl: str = "",
    until_fixed: bool = False,
    until_exploited: bool = False,
) -> ExemptionView:
    """Ask for one. ``images``: globs over host/repository, or digests. ``until_fixed``: it lapses when there is a fix.

    Raises UsageError when it would cover everything, or its end is past or too far away.
    """
    now = moment(session)
    if not rule and not subject:
        raise UsageError("an exemption names a rule, a subject (a vulnerability or a check), or both", reason="invalid")
    if not now < expires_at <= now + LONGEST:
        raise UsageError(
            "an exemption ends within a year from now",
            reason="invalid",
            hint="set expires_at to a day to come",
            field="expires_at",
        )
    identifier = str(uuid.uuid4())
    values = {
        "id": identifier,
        "project": project,
        "images": list(images),
        "rule": rule,
        "subject": subject,
        "purl": purl,
        "justification": justification,
        "state": "requested",
        "owner": owner.name,
        "owner_id": owner.id,
        "requested_at": now,
        "expires_at": expires_at,
        "while_unfixed": until_fixed and bool(subject),
        "while_unexploited": until_exploited and bool(subject),
        "version": 1,
    }
    session.execute(exemption.insert().values(**values))
    return get(session, identifier)


def approve(session: Connection, identifier: str, by: Person, *, note: str = "") -> ExemptionView:
    """Accept it.

    Raises RefusedError(reason="four_eyes") for whoever asked, ConflictError when it is not waiting any more.
    """
    found = get(session, identifier)
    _check_second(found, by)
    now = moment(session)
    waiting = sa.and_(exemption.c.state == "requested", exemption.c.expires_at > now)
    return _move(session, found, waiting, state="approved", decided_by=by.name, decided_at=now, note=note)


def reject(session: Connection, identifier: str, by: Person, *, note: str = "") -> ExemptionView:
    """Refuse it. Raises as `approve`."""
    found = get(session, identifier)
    _check_second(found, by)
    values = {"state": "rejected", "decided_by": by.name, "decided_at": moment(session), "note": note}
    return _move(session, found, exemption.c.state == "requested", **values)


def revoke(session: Connection, identifier: str, by: str, *, note: str = "") -> ExemptionView:
    """End it, approved or not. Raises NotFoundError, ConflictError when it has ended."""
    living = exemption.c.state.in_(("requested", "approved"))
    values = {"state": "revoked", "ended_by": by, "ended_at": moment(session), "note": note}
    return _move(session, get(session, identifier), living, **values)


def lapse(session: Connection, identifier: str, why: str) -> bool:
    """The facts it was approved on have changed. False: it had ended already."""
    values = {"state": "lapsed", "ended_by": "dockwarden", "ended_at": moment(session), "note": why}
    changed = (
        exemption.update()
        .where(exemption.c.id == identifier, exemption.c.state == "approved")
        .values(**values, version=exemption.c.version + 1)
    )
    return session.execute(changed).rowcount == 1


def get(session: Connection, identifier: str, projects: frozenset[str] | None = None) -> ExemptionView:
    """Raises NotFoundError, also for another project's."""
    row = session.execute(sa.select(*exemption.c).where(exemption.c.id == identifier)).first()
    if row is None or (projects is not None and row.project not in projects):
        raise NotFoundError("there is no such exemption")
    return _view(row, moment(session))


def list_(
    session: Connection,
    projects: frozenset[str] | None,
    *,
    states: Sequence[str] = (),
    project: str | None = None,
    subject: str = "",
    ends_before: datetime | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[ExemptionView]:
    """Exemptions, the newest request first. ``ends_before``: those whose end comes by then."""
    now = moment(session)
    query = sa.select(*exemption.c).order_by(exemption.c.requested_at.desc(), exemption.c.id.desc()).limit(limit + 1)
    if projects is not None:
        query = query.where(exemption.c.project.in_(projects))
    if project is not None:
        query = query.where(exemption.c.project == project)
    if subject:
        query = query.where(exemption.c.subject == subject)
    if ends_before is not None:
        query = query.where(exemption.c.expires_at <= ends_before)
    if states:
        query = query.where(sa.or_(*(_is(state, now) for state in states)))
    if cursor:
        at, identifier = decode_cursor(cursor, (str, str))
        place = sa.literal(datetime.fromisoformat(at), exemption.c.requested_at.type)
        query = query.where(
            sa.tuple_(exemption.c.requested_at, exemption.c.id) < sa.tuple_(place, sa.literal(identifier))
        )
    rows = session.execute(query).all()
    more = encode_cursor(rows[limit - 1].requested_at.isoformat(), rows[limit - 1].id) if len(rows) > limit else None
    return Page(tuple(_view(row, now) for row in rows[:limit]), more)


def counts(session: Connection, projects: frozenset[str] | None) -> dict[str, int]:
    """How many there are in each state."""
    now = moment(session)
    query = sa.select(*(sa.func.count().filter(_is(state, now)).label(state) for state in STATES))
    if projects is not None:
        query = query.where(exemption.c.project.in_(projects))
    return dict(session.execute(query.select_from(exemption)).one()._mapping)


def holding(session: Connection, project: str) -> tuple[Exemption, ...]:
    """Those that decisions about a project's images take into account now."""
    query = sa.select(*exemption.c).where(exemption.c.project == project, _is("approved", moment(session)))
    return tuple(
        Exemption(
            id=row.id,
            owner=row.owner,
            justification=row.justification,
            expires_at=row.expires_at,
            images=tuple(row.images),
            rule=row.rule,
            subject=row.subject,
            purl=row.purl,
            approved_by=row.decided_by,
            while_unfixed=row.while_unfixed,
            while_unexploited=row.while_unexploited,
        )
        for row in session.execute(query.order_by(exemption.c.id))
    )


def _check_second(found: ExemptionView, by: Person) -> None:
    if by.id == found.owner_id or by.name == found.owner:
        raise RefusedError(
            "whoever asks for an exemption does not decide about it", reason="four_eyes", hint="ask another person"
        )


def _move(session: Connection, found: ExemptionView, from_: sa.ColumnElement[bool], **values: object) -> ExemptionView:
    changed = exemption.update().where(exemption.c.id == found.id, from_)
    if session.execute(changed.values(**values, version=exemption.c.version + 1)).rowcount != 1:
        now = get(session, found.id)
        raise ConflictError(f"the exemption is {now.state}", reason="already_decided", hint="ask for a new one")
    return get(session, found.id)


def _is(state: str, now: datetime) -> sa.ColumnElement[bool]:
    over = exemption.c.expires_at <= now
    if state == "expired":
        return sa.and_(exemption.c.state.in_(("requested", "approved")), over)
    if state in ("requested", "approved"):
        return sa.and_(exemption.c.state == state, ~over)
    return exemption.c.state == state


def _view(row: sa.Row[tuple[object, ...]], now: datetime) -> ExemptionView:
    r = row._mapping
    over = r["state"] in ("requested", "approved") and r["expires_at"] <= now
    return ExemptionView(
        r["id"],
        r["project"],
        tuple(r["images"]),
        r["rule"],
        r["subject"],
        r["purl"],
        r["justification"],
        "expired" if over else r["state"],
        r["owner"],
        r["owner_id"],
        r["requested_at"],
        r["expires_at"],
        r["decided_by"],
        r["decided_at"],
        r["ended_by"],
        r["ended_at"],
        r["note"],
        bool(r["while_unfixed"]),
        bool(r["while_unexploited"]),
        r["version"],
    )
