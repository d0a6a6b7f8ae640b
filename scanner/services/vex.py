"""VEX documents: import and removal. Both invalidate the decisions that they may change."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson
from sqlalchemy.engine import Connection

from scanner.errors import NotFoundError, UsageError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.model.vex import VexStatus
from scanner.policy import openvex
from scanner.services import projects
from scanner.store import audit, gate, listings, vex
from scanner.store.session import moment


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


@dataclass(frozen=True)
class NewStatement:
    """A statement that a person makes about everything in a project that has a vulnerability.

    ``packages``: it is about the affected packages in any image of the project, also in later builds. Otherwise it is
    about the images that were scanned, by digest.
    """

    vulnerability: str
    project: str
    status: VexStatus
    justification: str = ""
    impact: str = ""  # why it is not affected, in words
    packages: bool = False


def state(session: Connection, actor: Actor, wanted: NewStatement) -> vex.DocumentView:
    """Write an OpenVEX document with this statement and import it.

    Raises UsageError, NotFoundError if nothing in the project has the vulnerability, RefusedError.
    """
    owner = projects.visible_name(session, actor, wanted.project)
    if wanted.status is not VexStatus.NOT_AFFECTED and not wanted.impact:
        raise UsageError("explain the statement", reason="invalid", field="impact")
    if wanted.status is VexStatus.NOT_AFFECTED and not wanted.justification and not wanted.impact:
        hint = "choose one: OpenVEX requires it for this status"
        raise UsageError("not_affected needs a justification", reason="invalid", field="justification", hint=hint)
    affected = listings.affected_products(session, wanted.vulnerability, owner)
    if not affected:
        raise NotFoundError("no image of the project has this vulnerability")
    statement = {
        "vulnerability": {"name": wanted.vulnerability},
        "status": wanted.status.value,
        "products": _packages(affected) if wanted.packages else _images(affected),
    }
    if wanted.status is VexStatus.NOT_AFFECTED:
        statement["justification"] = wanted.justification
    # OpenVEX 0.2.0: an affected product needs an action statement, the other statuses may have an impact statement.
    text = "action_statement" if wanted.status is VexStatus.AFFECTED else "impact_statement"
    statement |= {text: wanted.impact} if wanted.impact else {}
    document = {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": f"urn:uuid:{uuid.uuid4()}",
        "author": actor.name,
        "timestamp": moment(session).isoformat(),
        "version": 1,
        "statements": [statement],
    }
    return add(session, actor, orjson.dumps(document), owner)


def _packages(affected: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    return [{"@id": purl} for purl in sorted({purl for _, _, purl in affected})]


def _images(affected: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """The images, each with its affected packages as subcomponents."""
    parts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for repository, digest, purl in affected:
        parts[repository, digest].append(purl)
    return [
        {
            "@id": f"pkg:oci/{quote(repository.rpartition('/')[2] or 'image', safe='')}@{quote(digest, safe='')}",
            "subcomponents": [{"@id": purl} for purl in purls],
        }
        for (repository, digest), purls in parts.items()
    ]


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
        # A project's document cannot change what other projects decide, so their decisions stay valid.
        gate.invalidate_for(session, project, ["**"])
    else:
        gate.invalidate(session)
