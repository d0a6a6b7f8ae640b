"""Exemptions: one user requests, another approves or denies.

An exemption names a rule or a subject, never everything. It expires within a year. The requester cannot approve it, and
a token without an owner cannot approve any (four eyes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.engine import Connection

from scanner.errors import ConflictError, RefusedError
from scanner.model.actor import Actor, Person
from scanner.model.audit import Action
from scanner.model.notification import Event, EventKind, Level
from scanner.services import _fields as fields
from scanner.services import projects
from scanner.store import audit, exemptions, gate, listings, outbox

IMAGES = r"^[a-z0-9*][A-Za-z0-9._:/*@-]*$"  # a glob over host/repository, or a digest
# Characters of a pattern, and patterns.
IMAGES_LENGTH, IMAGES_MOST = 300, 50
RULE = r"^([a-z0-9][a-z0-9._-]{0,63})?$"
# Characters.
SUBJECT_LENGTH, PURL_LENGTH = 200, 1000
JUSTIFICATION_SHORTEST, JUSTIFICATION_LONGEST = 10, 2000  # characters: the reviewer must be able to judge it
NOTE_LENGTH = 2000


@dataclass(frozen=True)
class NewExemption:
    """A requested exemption.

    ``images`` are globs over host/repository, or digests. ``rule`` or ``subject`` may be empty (any), but not both.
    ``purl`` limits it to one package. ``until_fixed``: it ends when a fix is available; None: true unless a fix is
    available already. ``until_exploited``: it ends when the vulnerability is exploited.
    """

    images: Sequence[str]
    justification: str
    expires_at: datetime
    project: str = "default"
    rule: str = ""
    subject: str = ""
    purl: str = ""
    until_fixed: bool | None = None
    until_exploited: bool = True


def request(session: Connection, actor: Actor, wanted: NewExemption) -> exemptions.ExemptionView:
    """Record the request. It has no effect until another user approves it.

    Raises UsageError naming the field, NotFoundError, ConflictError(reason="would_lapse").
    """
    _check(wanted)
    project = projects.visible_name(session, actor, wanted.project)
    # The default follows what is known now: an exemption "until a fix is available" for a vulnerability that has a
    # fix would end with the next decision.
    fixable = bool(wanted.subject) and listings.is_fixable(session, project, wanted.subject, wanted.purl)
    until_fixed = not fixable if wanted.until_fixed is None else wanted.until_fixed
    if wanted.until_exploited and listings.is_exploited(session, project, wanted.subject, wanted.purl):
        raise _would_lapse("until_exploited", f"{wanted.subject} is already exploited")
    if until_fixed and fixable:
        raise _would_lapse("until_fixed", f"a fix for {wanted.subject} is available")
    found = exemptions.request(
        session,
        project,
        actor.person,
        images=wanted.images,
        justification=wanted.justification,
        expires_at=wanted.expires_at,
        rule=wanted.rule,
        subject=wanted.subject,
        purl=wanted.purl,
        until_fixed=until_fixed,
        until_exploited=wanted.until_exploited,
    )
    _record(session, actor, Action.EXEMPTION_REQUEST, found)
    outbox.add(session, [event_of(found, EventKind.EXEMPTION_REQUESTED, f"{found.owner} requests an exemption")])
    return found


def approve(session: Connection, actor: Actor, identifier: str, note: str = "") -> exemptions.ExemptionView:
    """Approve a request. The decisions about its images are renewed.

    Raises NotFoundError, RefusedError(reason="needs_person" or "four_eyes"), ConflictError if it was decided already.
    """
    gate.begin_change(session)
    exemptions.get(session, identifier, actor.projects)
    # The store refuses the requester (four eyes), and changes the state only while it is still "requested": of two
    # decisions at once, one fails.
    found = exemptions.approve(session, identifier, _decider(actor), note=_note(note))
    gate.invalidate_for(session, found.project, found.images)
    _record(session, actor, Action.EXEMPTION_APPROVE, found)
    return found


def reject(session: Connection, actor: Actor, identifier: str, note: str = "") -> exemptions.ExemptionView:
    """Deny the request. Raises as `approve`."""
    exemptions.get(session, identifier, actor.projects)
    found = exemptions.reject(session, identifier, _decider(actor), note=_note(note))
    _record(session, actor, Action.EXEMPTION_REJECT, found)
    return found


def revoke(session: Connection, actor: Actor, identifier: str, note: str = "") -> exemptions.ExemptionView:
    """End an exemption.

    Its owner and approvers may. The decisions about its images are renewed. Raises as `approve`.
    """
    gate.begin_change(session)
    found = exemptions.get(session, identifier, actor.projects)
    # Ending an exemption makes the gate stricter, so its owner needs nobody's approval.
    if found.owner_id != actor.person.id and not actor.may("triage"):
        raise RefusedError("only the owner or an approver can end an exemption", reason="not_allowed")
    found = exemptions.revoke(session, identifier, actor.person.name, note=_note(note))
    gate.invalidate_for(session, found.project, found.images)
    _record(session, actor, Action.EXEMPTION_REVOKE, found)
    return found


def event_of(
    found: exemptions.ExemptionView, kind: EventKind, headline: str, level: Level = Level.INFO, *, why: str = ""
) -> Event:
    """Return the event for an exemption."""
    about = " and ".join(part for part in (found.subject, f"rule {found.rule}" if found.rule else "") if part)
    return Event(
        kind,
        found.id,
        headline,
        found.project,
        item=f"{about} for {', '.join(found.images[:3])}" + (" and more" if len(found.images) > 3 else ""),
        level=level,
        path=f"/exemptions/{found.id}",
        data={
            "exemption": found.id,
            "rule": found.rule,
            "subject": found.subject,
            "images": list(found.images[:20]),
            "owner": found.owner,
            "expires_at": found.expires_at.isoformat(),
            "why": why,
        },
    )


def _would_lapse(field: str, why: str) -> ConflictError:
    return ConflictError(
        f"{why}: this exemption would end at once",
        reason="would_lapse",
        hint=f"to request it anyway, set {field} to false",
        field=field,
    )


def _check(wanted: NewExemption) -> None:
    fields.check_pattern("project", wanted.project, fields.NAME, fields.NAME_LENGTH)
    fields.at_most("images", wanted.images, IMAGES_MOST, least=1)
    for image in wanted.images:
        fields.pattern_of_names("images", image, IMAGES, IMAGES_LENGTH)
    fields.check_pattern("rule", wanted.rule, RULE, 64, "write the id of a rule")
    fields.text("subject", wanted.subject, SUBJECT_LENGTH)
    fields.text("purl", wanted.purl, PURL_LENGTH)
    fields.text(
        "justification", wanted.justification, JUSTIFICATION_LONGEST, shortest=JUSTIFICATION_SHORTEST, lines=True
    )
    # An exemption from every rule for every finding would be a switch for the whole gate.
    if wanted.rule == wanted.subject == "":
        raise fields.invalid("subject", "a rule or a subject is required", "an exemption cannot cover everything")


def _decider(actor: Actor) -> Person:
    """Return the user who decides. A token without an owner is refused: it could be the requester's."""
    if not actor.user_id:
        raise RefusedError(
            "this needs a user", reason="needs_person", hint="sign in as a user, or use a token that a user created"
        )
    return actor.person


def _note(note: str) -> str:
    return fields.text("note", note, NOTE_LENGTH, lines=True)


def _record(session: Connection, actor: Actor, action: Action, found: exemptions.ExemptionView) -> None:
    """Write the audit entry with the exemption's content and its new state."""
    detail = {
        "project": found.project,
        "images": list(found.images),
        "rule": found.rule,
        "subject": found.subject,
        "purl": found.purl,
        "state": found.state,
        "expires_at": found.expires_at.isoformat(),
        "note": found.note,
    }
    audit.record(session, actor, action, found.id, detail=detail)
