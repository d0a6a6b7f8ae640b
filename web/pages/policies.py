"""Policies: what is in force, each version, and its text."""

from __future__ import annotations

from flask import Blueprint

from scanner import catalog
from scanner.policy.rules import default_policy
from scanner.store import policies
from web.auth import permission
from web.pages.base import NavigationItem, page
from web.services import services

bp = Blueprint("policies_page", __name__)
NAVIGATION = NavigationItem(50, "policies_page.index", "Policies", "read")


@bp.get("/policies")
@permission("read")
def index() -> str:
    """The policies, and the one that decides where none of them matches."""
    with services().database.read() as session:
        found = policies.list_(session)
    return page("policies.html", found=found, fallback=default_policy(catalog.known()))


@bp.get("/policies/<name>")
@permission("read")
def one(name: str) -> str:
    """One policy: the text in force and its versions."""
    with services().database.read() as session:
        versions = policies.versions(session, name)
    return page("policy.html", current=versions[0], versions=versions)
