"""Exemptions: somebody requests one, another person approves or denies it, and it ends by itself.

The rules: it never covers everything, it ends within a year, who requests it does not decide about it, and it takes
a person to decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.engine import Connection

from scanner.errors import ConflictError, RefusedError
from scanner.model.actor import Actor, Person
from scanner.model.audit import Action
from scanner.services import _fields as fields
from scanner.services import projects
from scanner.store import audit, exemptions, gate, listings

IMAGES = r"^[a-z0-9*][A-Za-z0-9._:/*@-]*$"  # a glob over host/repository, or a digest
IMAGES_LENGTH, IMAGES_MOST = 300, 50
RULE = r"^([a-z0-9][a-z0-9._-]{0,63})?$"
SUBJECT_LENGTH, PURL_LENGTH = 200, 1000
JUSTIFICATION_SHORTEST, JUSTIFICATION_LONGEST = 10, 2000
NOTE_LENGTH = 2000


@dataclass(frozen=True)
class NewExemption:
    """What is requested.

    ``images`` are globs over host/repository, or digests. Empty ``rule`` or ``subject``: any, but not both.

    ``until_fixed`` None: true, unless there is a fix already.
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
    """Record the request.

    It changes no decision until another person approves it. Raises UsageError naming the field, NotFoundError.
    """
    _check(wanted)
    project = projects.named(session, actor, wanted.project)
    fixable = bool(wanted.subject) and listings.is_fixable(session, project, wanted.subject, wanted.purl)
    until_fixed = not fixable if wanted.until_fixed is None else wanted.until_fixed
    if wanted.until_exploited and listings.is_exploited(session, project, wanted.subject, wanted.purl):
        raise _would_lapse("until_exploited", f"{wanted.subject} is already exploited")
    if until_fixed and fixable:
        raise _would_lapse("until_fixed", f"there is a fix for {wanted.subject} already")
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
    return found


def approve(session: Connection, actor: Actor, identifier: str, note: str = "") -> exemptions.ExemptionView:
    """Approve, as another person than the one who requested it. Decisions about its images are made anew.

    Raises NotFoundError, RefusedError(reason="needs_person" or "four_eyes"), ConflictError when it is not waiting
    any more.
    """
    exemptions.get(session, identifier, actor.projects)
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
    """End it: its owner may, and who may approve. Decisions about its images are made anew. Raises as `approve`."""
    found = exemptions.get(session, identifier, actor.projects)
    if found.owner_id != actor.person.id and not actor.may("triage"):
        raise RefusedError("only its owner, or who may approve, ends an exemption", reason="not_allowed")
    found = exemptions.revoke(session, identifier, actor.person.name, note=_note(note))
    gate.invalidate_for(session, found.project, found.images)
    _record(session, actor, Action.EXEMPTION_REVOKE, found)
    return found


def _would_lapse(field: str, why: str) -> ConflictError:
    return ConflictError(
        f"{why}, so this exemption would lapse at once",
        reason="would_lapse",
        hint=f"to accept it all the same, request it with {field} set to false",
        field=field,
    )


def _check(wanted: NewExemption) -> None:
    fields.matching("project", wanted.project, fields.NAME, fields.NAME_LENGTH)
    fields.at_most("images", wanted.images, IMAGES_MOST, least=1)
    for image in wanted.images:
        fields.pattern_of_names("images", image, IMAGES, IMAGES_LENGTH)
    fields.matching("rule", wanted.rule, RULE, 64, "write the id of a policy's rule")
    fields.text("subject", wanted.subject, SUBJECT_LENGTH)
    fields.text("purl", wanted.purl, PURL_LENGTH)
    fields.text(
        "justification", wanted.justification, JUSTIFICATION_LONGEST, shortest=JUSTIFICATION_SHORTEST, lines=True
    )
    if wanted.rule == wanted.subject == "":
        raise fields.invalid("subject", "name a rule, a subject, or both", "an exemption never covers everything")


def _decider(actor: Actor) -> Person:
    """The person who decides. A token without an owner is nobody's pair of eyes."""
    if not actor.user_id:
        raise RefusedError(
            "this takes a person", reason="needs_person", hint="sign in as a user, or with a token that a user created"
        )
    return actor.person


def _note(note: str) -> str:
    return fields.text("note", note, NOTE_LENGTH, lines=True)


def _record(session: Connection, actor: Actor, action: Action, found: exemptions.ExemptionView) -> None:
    """The audit log's entry: what the exemption is about, and what it is now."""
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
