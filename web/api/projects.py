"""Projects: access to images. They own repositories (by pattern) and policies, and have members."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from flask import Response
from pydantic import AfterValidator, Field, StringConstraints

from scanner.errors import UsageError
from scanner.services import projects as use_cases
from scanner.store import projects
from web.api.base import PREFIX, Body, Model, Name, Text, answer, blueprint, problems
from web.auth import permission, principal
from web.resources import resources

api = blueprint("projects", "Projects", "Owners of repositories, policies, registries, images and tokens.")

Pattern = Annotated[
    str,
    StringConstraints(
        min_length=use_cases.PATTERN_SHORTEST, max_length=use_cases.PATTERN_LENGTH, pattern=use_cases.PATTERN
    ),
    Field(description="host/repository, with `*` within a segment and `**` for any number of segments."),
]


def _engine(value: str) -> str:
    try:
        return use_cases.check_engine(value)
    except UsageError as error:
        raise ValueError(f"{error}; {error.hint}") from error


Engine = Annotated[
    str,
    StringConstraints(max_length=64),
    AfterValidator(_engine),
    Field(
        description="For scans that name none: an engine's id, or `both` for Trivy and Clair. "
        "Empty: the server's default."
    ),
]
Group = Annotated[Text, Field(min_length=1, max_length=use_cases.GROUP_LENGTH)]


class ProjectIn(Body):
    name: Name
    description: Annotated[Text, Field(max_length=use_cases.DESCRIPTION_LENGTH)] = ""
    patterns: list[Pattern] = Field([], max_length=use_cases.PATTERNS_MOST, examples=[["registry.example.com/shop/**"]])
    groups: list[Group] = Field(
        [], max_length=use_cases.GROUPS_MOST, description="Groups of the identity provider; their users are members."
    )
    engine: Engine = ""


class ProjectChange(Body):
    """Absent members keep their values."""

    description: Annotated[Text, Field(max_length=use_cases.DESCRIPTION_LENGTH)] | None = None
    patterns: list[Pattern] | None = Field(None, max_length=use_cases.PATTERNS_MOST)
    groups: list[Group] | None = Field(None, max_length=use_cases.GROUPS_MOST)
    engine: Engine | None = None


class ProjectOut(Model):
    name: str
    created_at: datetime | None
    description: str
    patterns: list[str] = Field(description="Its repositories; among all projects, the most specific pattern decides.")
    groups: list[str]
    engine: str = Field(
        description="For scans that name none: an engine's id, or `both` for Trivy and Clair. "
        "Empty: the server's default."
    )


class ProjectList(Model):
    items: list[ProjectOut]


class MemberIn(Body):
    user: UUID = Field(strict=False)


class MemberOut(Model):
    """``source``: `local`, or `oidc` for members by a group of the identity provider."""

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
    """List the projects that you can see"""
    with resources().database.read() as session:
        found = projects.list_projects(session, principal().projects)
    return answer(ProjectList(items=[show(project) for project in found]))


@api.post("/projects", responses={"201": ProjectOut, **problems(409)})
@permission("manage")
def create(body: ProjectIn) -> Response:
    """Add a project"""
    with resources().database.session() as session:
        project = use_cases.create(
            session,
            principal(),
            body.name,
            description=body.description,
            patterns=body.patterns,
            groups=body.groups,
            engine=body.engine,
        )
    return answer(show(project), 201, {"Location": f"{PREFIX}/projects/{project.name}"})


@api.get("/projects/<name>", responses={"200": ProjectOut, **problems(404)})
@permission("read")
def get(path: ProjectPath) -> Response:
    """Read a project"""
    with resources().database.read() as session:
        return answer(show(projects.get(session, path.name, principal().projects)))


@api.patch("/projects/<name>", responses={"200": ProjectOut, **problems(404, 409)})
@permission("manage")
def change(path: ProjectPath, body: ProjectChange) -> Response:
    """Change a project

    Images move to the project that then owns their repository.
    """
    with resources().database.session() as session:
        project = use_cases.change(
            session,
            principal(),
            path.name,
            description=body.description,
            patterns=body.patterns,
            groups=body.groups,
            engine=body.engine,
        )
    return answer(show(project))


@api.get("/projects/<name>/members", responses={"200": MemberList, **problems(404)})
@permission("read")
def members(path: ProjectPath) -> Response:
    """List members

    Viewers and developers see only the projects of which they are members; security and admin see all projects.
    """
    with resources().database.read() as session:
        # For its 404: without it, the members of a project that is not visible would be an empty list.
        projects.get(session, path.name, principal().projects)
        found = projects.members(session, path.name)
    items = [
        MemberOut(user=UUID(m.user_id), name=m.name, role=m.role, source=m.source, added_at=m.added_at) for m in found
    ]
    return answer(MemberList(items=items))


@api.post("/projects/<name>/members", responses={"204": None, **problems(404)})
@permission("manage")
def add_member(path: ProjectPath, body: MemberIn) -> Response:
    """Add a member"""
    with resources().database.session() as session:
        use_cases.add_member(session, principal(), path.name, str(body.user))
    return Response(status=204)


@api.delete("/projects/<name>/members/<uuid:user_id>", responses={"204": None, **problems(404)})
@permission("manage")
def remove_member(path: MemberPath) -> Response:
    """Remove a member

    Effective at once, also for the user's tokens.
    """
    with resources().database.session() as session:
        use_cases.remove_member(session, principal(), path.name, str(path.user_id))
    return Response(status=204)
