"""Registry posture: the last results, and requests for a new examination by a worker."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from flask import Response
from pydantic import Field

from scanner import catalog, queue
from scanner.model.finding import CheckResult, Failed, Incomplete, NotApplicable, Passed, Severity
from scanner.model.posture import Posture
from scanner.model.scan import Lane
from scanner.services import registries as use_cases
from scanner.store import registries, registry_checks
from web.api.base import PREFIX, Model, answer, blueprint, problems
from web.api.registries import RegistryPath
from web.auth import permission, principal
from web.resources import resources

api = blueprint("registry_checks", "Registry posture", "TLS, authentication and access control of registries.")


class ExaminationOut(Model):
    """``reason`` and ``message``: why an examination failed."""

    id: UUID
    state: str = Field(json_schema_extra={"enum": ["queued", "running", "done", "failed"]})
    requested_by: str
    created_at: datetime
    ended_at: datetime | None
    failed: int
    incomplete: int
    reason: str
    message: str


class PostureCheckOut(Model):
    check: str
    title: str
    severity: Severity
    remedy: str
    outcome: Annotated[Passed | Failed | NotApplicable | Incomplete, Field(discriminator="kind")]


class PostureOut(Model):
    """``checked_at`` null: never examined. ``examinations``: newest first."""

    registry: UUID
    host: str
    checked_at: datetime | None
    repository: str
    checks: list[PostureCheckOut]
    examinations: list[ExaminationOut]


@api.get("/registries/<uuid:registry_id>/check", responses={"200": PostureOut, **problems(404)})
@permission("manage")
def posture(path: RegistryPath) -> Response:
    """Read the posture of a registry"""
    with resources().database.read() as session:
        view = registries.get(session, str(path.registry_id), principal().projects)
        found = registry_checks.latest(session, view.id)
        past = registry_checks.history(session, view.id)
    return answer(
        PostureOut(
            registry=UUID(view.id),
            host=view.host,
            checked_at=found.checked_at if found else None,
            repository=found.repository if found else "",
            checks=_checks(found),
            examinations=[_examination(item) for item in past],
        )
    )


@api.post("/registries/<uuid:registry_id>/check", responses={"202": ExaminationOut, **problems(404)})
@permission("manage")
def check(path: RegistryPath) -> Response:
    """Request an examination of a registry

    A worker runs it soon; read the result with GET. If one is already queued or running, it is returned.
    """
    with resources().database.session() as session:
        found = use_cases.examine(session, principal(), str(path.registry_id))
    queue.enqueue(resources().celery, "", Lane.BACKGROUND)
    return answer(_examination(found), 202, {"Location": f"{PREFIX}/registries/{path.registry_id}/check"})


def _examination(view: registry_checks.CheckView) -> ExaminationOut:
    return ExaminationOut(
        id=UUID(view.id),
        state=view.state,
        requested_by=view.requested_by,
        created_at=view.created_at,
        ended_at=view.ended_at,
        failed=view.failed,
        incomplete=view.incomplete,
        reason=view.reason,
        message=view.message,
    )


def _checks(found: Posture | None) -> list[PostureCheckOut]:
    return [_check(result) for result in found.results] if found else []


def _check(result: CheckResult) -> PostureCheckOut:
    check, outcome = catalog.registry_checks().get(result.check), result.outcome
    own = outcome.remedy if isinstance(outcome, Failed) else ""
    return PostureCheckOut(
        check=result.check,
        title=check.title if check else result.check,
        severity=outcome.severity or result.severity if isinstance(outcome, Failed) else result.severity,
        remedy=own or (check.remedy if check else ""),
        outcome=outcome,
    )
