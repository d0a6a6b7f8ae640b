"""The package page: who has a package, and where it runs."""

from __future__ import annotations

from flask import Blueprint, Response, request

from scanner.errors import UsageError
from scanner.model.version_ranges import VersionRange
from scanner.store import components
from web.auth import permission, principal
from web.pages import export
from web.pages.base import PAGE_SIZE, NavigationItem, here, page
from web.resources import resources

bp = Blueprint("packages_page", __name__)
NAVIGATION = NavigationItem(35, "packages_page.index", "Packages", "read")

_COLUMNS = (
    "name",
    "version",
    "purl",
    "comparable",
    "project",
    "repository",
    "tag",
    "digest",
    "verdict",
    "undecided",
    "environments",
)


@bp.get("/packages")
@permission("read")
def index() -> str | Response:
    """Find the images that hold a package. htmx requests get the list only."""
    name = request.args.get("q", "").strip()[:500]
    version = request.args.get("version", "").strip()[:200]
    running = bool(request.args.get("running"))
    problem, found = "", None
    try:
        versions = VersionRange.parse(version)
    except UsageError as error:
        problem, versions = f"{error.hint.capitalize()}.", VersionRange()
    if name and not problem:
        purl = name if name.startswith("pkg:") else ""
        asked = components.Search("" if purl else name, versions, purl, running=running)
        with resources().database.read() as session:
            found = components.search(
                session, asked, principal().projects, cursor=request.args.get("cursor"), limit=PAGE_SIZE
            )
    if found and (wanted := export.requested_format()):
        rows = [
            {column: getattr(item, column) for column in _COLUMNS} | {"environments": " ".join(item.environments)}
            for item in found.holders.items
        ]
        return export.answer("packages", _COLUMNS, rows, wanted)
    template = "packages_list.html" if request.headers.get("HX-Request") else "packages.html"
    return page(template, found=found, name=name, range_text=version, running=running, problem=problem, here=here)
