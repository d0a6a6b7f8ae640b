"""The vulnerability pages: search, and all images that one vulnerability affects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, request

from scanner.store import inventory, listings, vulnerabilities
from web.auth import permission, principal
from web.pages import export
from web.pages.base import PAGE_SIZE, NavigationItem, here, page
from web.resources import resources

bp = Blueprint("vulnerabilities_page", __name__)
NAVIGATION = NavigationItem(30, "vulnerabilities_page.index", "Vulnerabilities", "read")

_MOST = 500
_RUNNING = 200
_COLUMNS = ("project", "repository", "tag", "digest", "package", "version", "fixable", "verdict", "first_seen")
SEVERITIES = ("critical", "high", "medium", "low", "unknown")


@bp.get("/vulnerabilities")
@permission("read")
def index() -> str | Response:
    """List vulnerabilities of visible images, highest severity first. htmx requests get the list only."""
    search = request.args.get("q", "").strip()[:200]
    chosen = [name for name in request.args.getlist("severity") if name in SEVERITIES]
    cursor = request.args.get("cursor")
    with resources().database.read() as session:
        found = vulnerabilities.list_(
            session, principal().projects, search=search, severities=chosen, cursor=cursor, limit=PAGE_SIZE
        )
    if wanted := export.asked():
        columns = ("name", "severity", "title", "images", "fixable")
        rows = [{column: getattr(item, column) for column in columns} for item in found.items]
        return export.answer("vulnerabilities", columns, rows, wanted)
    template = "vulnerabilities_list.html" if request.headers.get("HX-Request") else "vulnerabilities.html"
    return page(template, found=found, search=search, chosen=chosen, severities=SEVERITIES, here=here)


@bp.get("/vulnerabilities/<name>")
@permission("read")
def one(name: str) -> str | Response:
    """Show an advisory and every affected image."""
    with resources().database.read() as session:
        advisory, affected = listings.affected(session, name, principal().projects, limit=_MOST + 1)
        running, environments, touched = inventory.affected(session, name, principal().projects, limit=_RUNNING)
    shown = affected[:_MOST]
    if wanted := export.asked():
        rows = [{column: getattr(item, column) for column in _COLUMNS} for item in shown]
        return export.answer(
            name if name.isascii() and name.replace("-", "").isalnum() else "vulnerability", _COLUMNS, rows, wanted
        )
    owners = Counter(item.project for item in shown)
    return page(
        "vulnerability.html",
        advisory=advisory,
        more=Known.of(advisory["document"]),
        affected=shown,
        truncated=len(affected) > _MOST,
        owners=owners,
        running=running,
        environments=environments,
        touched=touched,
        most_running=_RUNNING,
        here=here,
    )


@dataclass(frozen=True)
class Known:
    """Details of a vulnerability. None means not looked up, which is not the same as no."""

    known_exploited: bool | None
    epss: float | None
    cvss: tuple[tuple[str, str, float, str], ...]
    aliases: tuple[str, ...]
    cwes: tuple[str, ...]
    references: tuple[str, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Known:
        """Parse the stored document. Older versions stored fewer fields."""
        lists = {name: tuple(document.get(name) or ()) for name in ("aliases", "cwes", "references")}
        scores = tuple(
            (str(v), str(vector), float(score), str(source)) for v, vector, score, source in document.get("cvss") or ()
        )
        return cls(document.get("known_exploited"), document.get("epss"), scores, **lists)
