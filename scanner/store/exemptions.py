"""Exemptions: accepted violations of some images until a date.

States: ``requested -> approved | rejected``, ``approved -> revoked | lapsed``. The requester may revoke at any time.
``expired`` is computed from the time and never stored. All changes are conditional updates, so of several concurrent
approvals exactly one succeeds.
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
from scanner.store.page import Page, cursor_moment, decode_cursor, encode_cursor
from scanner.store.schema import exemption
from scanner.store.session import moment

LONGEST = timedelta(days=366)  # a year, leap years included: then a person decides anew
STATES = ("requested", "approved", "rejected", "revoked", "lapsed", "expired")


@dataclass(frozen=True)
class ExemptionView:
    """An exemption. ``state`` is the current one, including ``expired``. ``version`` is its ETag.

    ``note``: the comment of the last change.
    """

    id: str
    project: str
    images: tuple[str, ...]  # globs over host/repository, or digests
    rule: str  # empty: any
    subject: str  # id of a vulnerability or check; empty: any
    purl: str  # empty: any package
    justification: str  # the requester's reason, for the approver
    state: str
    owner: str  # name of the requester at that time
    owner_id: str
    requested_at: datetime
    expires_at: datetime
    decided_by: str  # empty: waits for a second person
    decided_at: datetime | None
    ended_by: str  # empty: not ended, or ended by time or by a changed fact
    ended_at: datetime | None
    note: str
    until_fixed: bool  # ends when a fix exists
    until_exploited: bool  # ends when the vulnerability is known to be exploited
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
    """Insert a request. ``images``: globs over host/repository, or digests.

    Raises UsageError if neither rule nor subject is given, or if it does not expire within a year.
    """
    now = moment(session)
    if not rule and not subject:
        raise UsageError("an exemption needs a rule, a subject (a vulnerability or a check), or both", reason="invalid")
    if not now < expires_at <= now + LONGEST:
        raise UsageError(
            "an exemption must expire within a year from now",
            reason="invalid",
            hint="set expires_at to a date in the future, at most 366 days away",
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
        # Both conditions are about one vulnerability. Without a subject there is nothing whose fix could end the
        # exemption.
        "while_unfixed": until_fixed and bool(subject),
        "while_unexploited": until_exploited and bool(subject),
        "version": 1,
    }
    session.execute(exemption.insert().values(**values))
    return get(session, identifier)


def approve(session: Connection, identifier: str, by: Person, *, note: str = "") -> ExemptionView:
    """Approve a request.

    Raises RefusedError(reason="four_eyes") for the requester, ConflictError if it was decided or has expired.
    """
    found = get(session, identifier)
    _check_second(found, by)
    now = moment(session)
    waiting = sa.and_(exemption.c.state == "requested", exemption.c.expires_at > now)
    return _move(session, found, waiting, state="approved", decided_by=by.name, decided_at=now, note=note)


def reject(session: Connection, identifier: str, by: Person, *, note: str = "") -> ExemptionView:
    """Deny a request. Raises as `approve`."""
    found = get(session, identifier)
    _check_second(found, by)
    values = {"state": "rejected", "decided_by": by.name, "decided_at": moment(session), "note": note}
    return _move(session, found, exemption.c.state == "requested", **values)


def revoke(session: Connection, identifier: str, by: str, *, note: str = "") -> ExemptionView:
    """End an exemption, approved or not. Raises NotFoundError, ConflictError if it has ended."""
    living = exemption.c.state.in_(("requested", "approved"))
    values = {"state": "revoked", "ended_by": by, "ended_at": moment(session), "note": note}
    return _move(session, get(session, identifier), living, **values)


def lapse(session: Connection, identifier: str, why: str) -> bool:
    """End an approved exemption whose condition is met (``why``). Returns False if it had ended already."""
    values = {"state": "lapsed", "ended_by": "dockwarden", "ended_at": moment(session), "note": why}
    changed = (
        exemption.update()
        .where(exemption.c.id == identifier, exemption.c.state == "approved")
        .values(**values, version=exemption.c.version + 1)
    )
    return session.execute(changed).rowcount == 1


def get(session: Connection, identifier: str, projects: frozenset[str] | None = None) -> ExemptionView:
    """Return the exemption. Raises NotFoundError, also for another project's."""
    row = session.execute(sa.select(*exemption.c).where(exemption.c.id == identifier)).first()
    if row is None or (projects is not None and row.project not in projects):
        raise NotFoundError("there is no such exemption")
    return _view(row, moment(session))


def list_exemptions(
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
    """Return exemptions, the newest request first. ``ends_before``: only those that expire by then."""
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
        at, identifier = decode_cursor(cursor, (cursor_moment, str))
        place = sa.literal(at, exemption.c.requested_at.type)
        query = query.where(
            sa.tuple_(exemption.c.requested_at, exemption.c.id) < sa.tuple_(place, sa.literal(identifier))
        )
    rows = session.execute(query).all()
    more = encode_cursor(rows[limit - 1].requested_at.isoformat(), rows[limit - 1].id) if len(rows) > limit else None
    return Page(tuple(_view(row, now) for row in rows[:limit]), more)


def counts(session: Connection, projects: frozenset[str] | None) -> dict[str, int]:
    """Return the number of exemptions in each state."""
    now = moment(session)
    query = sa.select(*(sa.func.count().filter(_is(state, now)).label(state) for state in STATES))
    if projects is not None:
        query = query.where(exemption.c.project.in_(projects))
    return dict(session.execute(query.select_from(exemption)).one()._mapping)


def expiring_between(session: Connection, after: datetime, before: datetime) -> tuple[ExemptionView, ...]:
    """Approved exemptions whose end is in this time, the first to end first."""
    mine = (exemption.c.state == "approved", exemption.c.expires_at > after, exemption.c.expires_at <= before)
    query = sa.select(*exemption.c).where(*mine).order_by(exemption.c.expires_at, exemption.c.id).limit(1000)
    now = moment(session)
    return tuple(_view(row, now) for row in session.execute(query))


def exemptions_in_effect(session: Connection, project: str, at: datetime | None = None) -> tuple[Exemption, ...]:
    """Return the approved, unexpired exemptions of a project, for decisions; ``at``: those of a past moment."""
    # The expiry is part of the condition, by the database's clock. No job has to run for an exemption to end.
    in_force = _is("approved", moment(session)) if at is None else _was_in_force(at)
    query = sa.select(*exemption.c).where(exemption.c.project == project, in_force)
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
    # The name too: a deleted and recreated user, or a local user of the same name, has another id.
    if by.id == found.owner_id or by.name == found.owner:
        raise RefusedError("you cannot decide about your own request", reason="four_eyes", hint="ask another approver")


def _move(session: Connection, found: ExemptionView, from_: sa.ColumnElement[bool], **values: object) -> ExemptionView:
    # The state is part of the condition: of two who decide at once, the second changes no row and gets a conflict.
    changed = exemption.update().where(exemption.c.id == found.id, from_)
    if session.execute(changed.values(**values, version=exemption.c.version + 1)).rowcount != 1:
        now = get(session, found.id)
        raise ConflictError(f"the exemption is {now.state}", reason="already_decided", hint="request a new one")
    return get(session, found.id)


def _is(state: str, now: datetime) -> sa.ColumnElement[bool]:
    over = exemption.c.expires_at <= now
    if state == "expired":
        return sa.and_(exemption.c.state.in_(("requested", "approved")), over)
    if state in ("requested", "approved"):
        return sa.and_(exemption.c.state == state, ~over)
    return exemption.c.state == state


def _was_in_force(at: datetime) -> sa.ColumnElement[bool]:
    """Approved by then, and neither expired nor ended."""
    columns = exemption.c
    ended_later = sa.and_(columns.state.in_(("revoked", "lapsed")), columns.ended_at > at)
    return sa.and_(columns.decided_at <= at, columns.expires_at > at, sa.or_(columns.state == "approved", ended_later))


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
