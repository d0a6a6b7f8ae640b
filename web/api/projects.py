"""Projects: who sees what."""

from __future__ import annotations

from datetime import datetime

from flask import Response

from scanner.store import audit, projects
from web.api.base import Body, Model, Name, answer, blueprint, problems
from web.auth import address, everywhere, permission, principal
from web.services import services

api = blueprint("projects", "Projects", "Registries, scans, images and tokens belong to one.")


class ProjectIn(Body):
    name: Name


class ProjectOut(Model):
    name: str
    created_at: datetime | None


class ProjectList(Model):
    items: list[ProjectOut]


@api.get("/projects", responses={"200": ProjectList})
@permission("read")
def index() -> Response:
    """List the projects you see"""
    with services().database.read() as session:
        found = projects.list_(session, principal().projects)
    return answer(ProjectList(items=[ProjectOut(name=p.name, created_at=p.created_at) for p in found]))


@api.post("/projects", responses={"201": ProjectOut, **problems(409)})
@permission("manage")
def create(body: ProjectIn) -> Response:
    """Add a project"""
    everywhere()
    with services().database.session() as session:
        project = projects.create(session, body.name)
        audit.record(session, principal().name, "project.create", project.name, address=address())
    return answer(ProjectOut(name=project.name, created_at=project.created_at), 201)
