"""VEX documents: import and removal. Both invalidate the decisions that they may change."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.policy import openvex
from scanner.services import projects
from scanner.store import audit, gate, vex


def add(session: Connection, actor: Actor, document: bytes, project: str | None = None) -> vex.DocumentView:
    """Import an OpenVEX document, completely or not at all. ``project`` None: it applies to every project.

    Raises UsageError(reason="bad_vex"), ConflictError for a document that exists already, RefusedError, NotFoundError.
    """
    if project is None:
        actor.require_every_project()
    owner = projects.visible_name(session, actor, project) if project is not None else ""
    read = openvex.parse(document)
    found = vex.add(
        session,
        owner,
        document,
        actor.name,
        name=read.id,
        author=read.author,
        version=read.version,
        statements=read.statements,
    )
    _invalidate(session, owner)
    detail = {"project": owner, "author": read.author, "digest": found.digest, "statements": found.statements}
    audit.record(session, actor, Action.VEX_IMPORT, found.id, detail=detail)
    return found


def remove(session: Connection, actor: Actor, document_id: str) -> None:
    """Remove a document with its statements. Raises NotFoundError, RefusedError."""
    found = vex.get(session, document_id, actor.projects)
    if not found.project:
        actor.require_every_project()
    vex.remove(session, found.id)
    _invalidate(session, found.project)
    detail = {"project": found.project, "author": found.author, "digest": found.digest}
    audit.record(session, actor, Action.VEX_REMOVE, found.id, detail=detail)


def _invalidate(session: Connection, project: str) -> None:
    if project:
        gate.invalidate_for(session, project, ["**"])
    else:
        gate.invalidate(session)
