"""Jobs that users start and cancel: updating the advisories, matching all packages again."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.engine import Connection

from scanner.errors import ConflictError
from scanner.model.actor import Actor
from scanner.model.audit import Action
from scanner.store import audit, jobs

_ACTIONS = {jobs.UPDATE: Action.JOB_UPDATE, jobs.REMATCH: Action.JOB_REMATCH}


def request(session: Connection, actor: Actor, kind: str, key: str, parameters: Mapping[str, object]) -> jobs.JobView:
    """Request a job, or return the unfinished one of the same kind and key. Raises RefusedError."""
    actor.require_every_project()
    job = jobs.get(session, jobs.request(session, kind, key, actor.name, parameters))
    audit.record(session, actor, _ACTIONS[kind], job.id)
    return job


def cancel(session: Connection, actor: Actor, job_id: str) -> jobs.JobView:
    """Cancel a job. Its completed work is kept.

    Raises NotFoundError, RefusedError, ConflictError if it has ended.
    """
    actor.require_every_project()
    found = jobs.get(session, job_id)
    if not jobs.cancel(session, found.id):
        raise ConflictError(f"the job is already {found.state}", reason="already_ended")
    audit.record(session, actor, Action.JOB_CANCEL, found.id)
    return jobs.get(session, found.id)
