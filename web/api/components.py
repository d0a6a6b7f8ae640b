"""Packages: which images hold one, and which of these images run."""

from __future__ import annotations

from typing import Annotated

from flask import Response
from pydantic import Field, StringConstraints

from scanner.model.decision import Verdict
from scanner.model.version_ranges import VersionRange
from scanner.store import components
from web.api.base import DigestText, Model, PageQuery, Text, answer, blueprint, problems
from web.auth import permission, principal
from web.resources import resources

# What VersionRange.parse takes, for those who read the document.
_CONSTRAINT = r"\s*((<=|>=|==|!=|<|>|=)?\s*[^\s,<>=!|^~][^\s,<>=!|]*\s*)?"
_RANGE = rf"^{_CONSTRAINT}(,{_CONSTRAINT}){{0,9}}$"

api = blueprint("components", "Packages", "Which images hold a package, and which of them run.")


class HolderOut(Model):
    """A package version, and a tagged image that holds it."""

    name: str
    version: str
    purl: str
    comparable: bool = Field(
        description="False: the version could not be compared with the range, so the image may hold the package."
    )
    digest: DigestText
    repository: str
    tag: str
    project: str
    verdict: Verdict
    undecided: bool
    environments: list[str] = Field(description="Where the image runs, by the inventory.")


class HolderPage(Model):
    items: list[HolderOut]
    next_cursor: str | None
    truncated: bool = Field(description="More versions match than are looked at: name the package more exactly.")
    incomplete_images: int = Field(
        description="Images that could not be examined completely. They may hold the package too."
    )


class HolderQuery(PageQuery):
    name: Text = Field("", description="Part of the package's name, in any case of letters: log4j.")
    version: Annotated[str, StringConstraints(max_length=200, pattern=_RANGE)] = Field(
        "",
        description="Range of versions, compared by the rules of the package's ecosystem: `>=2.0,<2.17.1`.",
    )
    purl: Text = Field("", description="Package URL, with or without a version; qualifiers are ignored.")
    exact: bool = Field(False, description="The name must match as a whole.")
    running: bool = Field(False, description="Only images that run, by the inventory.")


@api.get("/components", responses={"200": HolderPage, **problems(404)})
@permission("read")
def index(query: HolderQuery) -> Response:
    """Which images hold a package? Without a name or a purl: all packages

    One row for each package version and image name. An index is named if one of its platforms holds the package.
    """
    asked = components.Search(
        query.name.strip(), VersionRange.parse(query.version), query.purl.strip(), query.exact, query.running
    )
    with resources().database.read() as session:
        found = components.search(session, asked, principal().projects, cursor=query.cursor, limit=query.limit)
    return answer(
        HolderPage(
            items=[
                HolderOut(**{name: getattr(h, name) for name in HolderOut.model_fields}) for h in found.holders.items
            ],
            next_cursor=found.holders.next_cursor,
            truncated=found.truncated,
            incomplete_images=found.incomplete,
        )
    )
