"""Projects: who sees what. They own repositories by pattern, policies and members."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from flask import Response
from pydantic import AfterValidator, Field, StringConstraints

from scanner import catalog
from scanner.model.audit import Action
from scanner.store import accounts, audit, gate, projects
from web.api.base import PREFIX, Body, Model, Name, Text, answer, blueprint, problems
from web.auth import everywhere, permission, principal
from web.services import services

api = blueprint("projects", "Projects", "Repositories, policies, registries, images and tokens belong to one.")

Pattern = Annotated[
    str,
    StringConstraints(min_length=3, max_length=300, pattern=r"^[a-z0-9][a-z0-9._:-]*/[a-z0-9*._/-]+$"),
    Field(description="host/repository, with `*` within a part and `**` for any number of parts."),
]


def _engine(value: str) -> str:
    if value and value not in catalog.engine_choices():
        raise ValueError(f"there is no engine {value!r}; one of {', '.join(catalog.engine_choices())}")
    return value


Engine = Annotated[
    str,
    StringConstraints(max_length=64),
    AfterValidator(_engine),
    Field(description="`trivy`, `clair` or `both`, for scans that name none; empty: the server's own choice."),
]
Group = Annotated[Text, Field(min_length=1, max_length=200)]


class ProjectIn(Body):
    name: Name
    description: Annotated[Text, Field(max_length=400)] = ""
    patterns: list[Pattern] = Field([], max_length=100, examples=[["registry.example.com/shop/**"]])
    groups: list[Group] = Field([], max_length=50, description="Of the identity provider: their people are members.")
    engine: Engine = ""


class ProjectChange(Body):
    """Absent members stay as they are."""

    description: Annotated[Text, Field(max_length=400)] | None = None
    patterns: list[Pattern] | None = Field(None, max_length=100)
    groups: list[Group] | None = Field(None, max_length=50)
    engine: Engine | None = None


class ProjectOut(Model):
    name: str
    created_at: datetime | None
    description: str
    patterns: list[str] = Field(
        description="Repositories that it owns: the most specific pattern of all projects counts."
    )
    groups: list[str]
    engine: str = Field(
        description="Of scans that name none: `trivy`, `clair` or `both`; empty: the server's own choice."
    )


class ProjectList(Model):
    items: list[ProjectOut]


class MemberIn(Body):
    user: UUID = Field(strict=False)


class MemberOut(Model):
    """``source``: `local`, or `oidc` for whom a group brought in."""

    user: UUID
    name: str
    role: str
    source: str
    added_at: datetime


class MemberList(Model):
    items: list[MemberOut]


class ProjectPath(Model):
    name: Name


class MemberPath(ProjectPath):
    user_id: UUID


def show(project: projects.ProjectView) -> ProjectOut:
    return ProjectOut(
        name=project.name,
        created_at=project.created_at,
        description=project.description,
        patterns=list(project.patterns),
        groups=list(project.groups),
        engine=project.engine,
    )


@api.get("/projects", responses={"200": ProjectList})
@permission("read")
def index() -> Response:
    """List the projects you see"""
    with services().database.read() as session:
        found = projects.list_(session, principal().projects)
    return answer(ProjectList(items=[show(project) for project in found]))


@api.post("/projects", responses={"201": ProjectOut, **problems(409)})
@permission("manage")
def create(body: ProjectIn) -> Response:
    """Add a project"""
    everywhere()
    with services().database.session() as session:
        project = projects.create(
            session,
            body.name,
            description=body.description,
            patterns=body.patterns,
            groups=body.groups,
            engine=body.engine,
        )
        if project.patterns:
            gate.invalidate(session)
        detail = {"patterns": list(project.patterns), "groups": list(project.groups)}
        audit.record(session, principal(), Action.PROJECT_CREATE, project.name, detail=detail)
    return answer(show(project), 201, {"Location": f"{PREFIX}/projects/{project.name}"})


@api.get("/projects/<name>", responses={"200": ProjectOut, **problems(404)})
@permission("read")
def get(path: ProjectPath) -> Response:
    """Read a project"""
    with services().database.read() as session:
        return answer(show(projects.get(session, path.name, principal().projects)))


@api.patch("/projects/<name>", responses={"200": ProjectOut, **problems(404, 409)})
@permission("manage")
def change(path: ProjectPath, body: ProjectChange) -> Response:
    """Change a project

    Images whose repository comes to belong to another project move to it.
    """
    everywhere()
    with services().database.session() as session:
        before = projects.get(session, path.name)
        project = projects.update(
            session,
            path.name,
            description=body.description,
            patterns=body.patterns,
            groups=body.groups,
            engine=body.engine,
        )
        if project.patterns != before.patterns:
            gate.invalidate(session)
        named = ("description", "patterns", "groups", "engine")
        detail = {
            name: {"before": getattr(before, name), "after": getattr(project, name)}
            for name in named
            if getattr(before, name) != getattr(project, name)
        }
        audit.record(session, principal(), Action.PROJECT_CHANGE, path.name, detail=detail)
    return answer(show(project))


@api.get("/projects/<name>/members", responses={"200": MemberList, **problems(404)})
@permission("read")
def members(path: ProjectPath) -> Response:
    """List who is a member

    Viewers and developers see the projects that they are members of; security and admin see every project.
    """
    with services().database.read() as session:
        projects.get(session, path.name, principal().projects)
        found = projects.members(session, path.name)
    items = [
        MemberOut(user=UUID(m.user_id), name=m.name, role=m.role, source=m.source, added_at=m.added_at) for m in found
    ]
    return answer(MemberList(items=items))


@api.post("/projects/<name>/members", responses={"204": None, **problems(404)})
@permission("manage")
def add_member(path: ProjectPath, body: MemberIn) -> Response:
    """Make a user a member"""
    everywhere()
    with services().database.session() as session:
        user = accounts.get_user(session, str(body.user))
        projects.add_member(session, path.name, user.id)
        detail = {"user": user.id, "name": user.name}
        audit.record(session, principal(), Action.PROJECT_MEMBER_ADD, path.name, detail=detail)
    return Response(status=204)


@api.delete("/projects/<name>/members/<uuid:user_id>", responses={"204": None, **problems(404)})
@permission("manage")
def remove_member(path: MemberPath) -> Response:
    """Take a user out of a project

    Effective at once, also for the user's tokens.
    """
    everywhere()
    with services().database.session() as session:
        projects.remove_member(session, path.name, str(path.user_id))
        detail = {"user": str(path.user_id)}
        audit.record(session, principal(), Action.PROJECT_MEMBER_REMOVE, path.name, detail=detail)
    return Response(status=204)
