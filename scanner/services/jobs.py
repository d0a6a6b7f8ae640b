"""Jobs that a person asks for: an update of the advisories, a re-match of every package; and stopping one."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.engine import Connection

from scanner.errors import ConflictError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.store import audit, jobs

_ACTIONS = {jobs.UPDATE: Action.JOB_UPDATE, jobs.REMATCH: Action.JOB_REMATCH}


def request(session: Connection, actor: Actor, kind: str, key: str, parameters: Mapping[str, object]) -> jobs.JobView:
    """Ask for a job, or join the one of the same kind and key that has not ended. Raises RefusedError."""
    actor.require_every_project()
    job = jobs.get(session, jobs.request(session, kind, key, actor.name, parameters))
    audit.record(session, actor, _ACTIONS[kind], job.id)
    return job


def cancel(session: Connection, actor: Actor, job_id: str) -> jobs.JobView:
    """Stop a job; what it has done stays done.

    Raises NotFoundError, RefusedError, ConflictError for one that has ended.
    """
    actor.require_every_project()
    found = jobs.get(session, job_id)
    if not jobs.cancel(session, found.id):
        raise ConflictError(f"it is already {found.state}", reason="already_ended")
    audit.record(session, actor, Action.JOB_CANCEL, found.id)
    return jobs.get(session, found.id)
