"""Shared by all pages: navigation, times, sizes, and error pages.

All values from images are escaped by Jinja; nothing here marks text as safe.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from flask import Response, current_app, g, render_template, request, url_for

from scanner import __version__
from scanner.model.actor import Actor
from scanner.model.reasons import sentence

PAGE_SIZE = 50


THEMES = ("light", "dark")


@dataclass(frozen=True, order=True)
class NavigationItem:
    """A page's entry in the menu. Orders from 80 on are in the menu under the user's name.

    Each module defines its own ``NAVIGATION``; ``create_app`` collects them.
    """

    order: int
    endpoint: str
    title: str
    permission: str

    @property
    def current(self) -> bool:
        """True on its own pages and on all below its address, which other modules may serve."""
        if (request.endpoint or "").partition(".")[0] == self.endpoint.partition(".")[0]:
            return True
        return request.path.startswith(url_for(self.endpoint) + "/")


def page(template: str, **values: Any) -> str:
    """Render a whole page with the frame's values."""
    who: Actor | None = g.get("principal")
    items: list[NavigationItem] = current_app.extensions["navigation"]
    # What the caller may not open is not offered. The views check the permission themselves.
    navigation = [item for item in items if who and who.may(item.permission)]
    theme = request.cookies.get("theme", "")
    return render_template(
        template,
        principal=who,
        navigation=navigation,
        theme=theme if theme in THEMES else "",
        version=__version__,
        ago=ago,
        exact=exact,
        megabytes=megabytes,
        sentence=sentence,
        begins_with_word=begins_with_word,
        short_reference=short_reference,
        **values,
    )


def error_page(document: Mapping[str, Any]) -> Response:
    """Show an error: what is wrong, what to do, and the request id to quote.

    A caller who is not signed in is sent to the sign-in form first.
    """
    # Only after a GET: the address of a form's POST cannot be opened afterwards.
    if document["status"] == 401 and request.method == "GET":
        target = request.full_path.rstrip("?")
        location = url_for("sign_in_page.form", next=target) if safe_next(target) else url_for("sign_in_page.form")
        return Response(status=303, headers={"Location": location})
    # What a person may not do, the list of the same area may refuse as well.
    rendered = page("error.html", problem=document, back=_list_of("/" if document["status"] == 403 else request.path))
    return Response(rendered, document["status"], mimetype="text/html")


def _list_of(path: str) -> tuple[str, str]:
    """Name and address of the list that the failed page belongs to: the way on that a person expects."""
    name = path.split("/")[1].replace("-", "_")
    if f"{name}_page.index" in current_app.view_functions:
        return name.replace("_", " ").capitalize(), url_for(f"{name}_page.index")
    return "Overview", url_for("overview_page.index")


def begins_with_word(message: str) -> bool:
    """Return whether an error's message may be shown with a capital: it begins with a word, not with a name.

    The capital is the style sheet's, so that what programs and logs show is what people read.
    """
    first = message.partition(" ")[0].rstrip(",:;.")
    return first.isalpha() and first != "dockwarden"


def safe_next(target: str) -> str:
    """Return the target if it is a path of this site, otherwise an empty text: a link must never redirect to another
    site (tests cover 20 spellings of ``//evil``).
    """
    # Browsers take a backslash for a slash and drop tabs and line breaks within an address (WHATWG URL, 4.4), so
    # ``/\evil`` leads to another site, too.
    parts = urlsplit(target)
    plain = (
        target.startswith("/")
        and not target.startswith(("//", "/\\"))
        and "\\" not in target
        and not any(c < " " for c in target)
    )
    return target if plain and not parts.scheme and not parts.netloc and target != "/" else ""


def ago(moment: datetime | None) -> str:
    """Relative time for reading. Templates show the exact time beside it."""
    if moment is None:
        return "never"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for limit, size, name in (
        (90, 1, "second"),
        (5400, 60, "minute"),
        (129600, 3600, "hour"),
        (7776000, 86400, "day"),
        (63072000, 2592000, "month"),
    ):
        if abs(seconds) < limit:
            count = max(0, round(abs(seconds) / size))
            text = f"{count} {name}{'' if count == 1 else 's'}"
            return "just now" if count == 0 else f"{text} ago" if seconds >= 0 else f"in {text}"
    return f"{moment:%Y-%m-%d}"


def exact(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if moment else ""


def short_reference(reference: str) -> str:
    """A reference for a table: the first twelve digits of its digest tell images apart."""
    name, at, digest = reference.partition("@sha256:")
    return f"{name}{at}{digest[:12]}…" if at and len(digest) > 12 else reference


def megabytes(size: int | None) -> str:
    return f"{(size or 0) / 1e6:,.1f} MB"


def size(value: int) -> str:
    """A size in the unit that suits it."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:,.1f} {unit}"
    return f"{value} B"


def query_of(names: Collection[str]) -> str:
    """These parameters of the address as a query string, to save them."""
    return urlencode([(name, value) for name, value in request.args.items(multi=True) if name in names and value])


def here(**changes: str | None) -> str:
    """This page's URL with changed parameters; None removes one. Repeated parameters are kept."""
    kept = [(name, value) for name, value in request.args.items(multi=True) if name not in changes]
    query = urlencode([(name, value) for name, value in (*kept, *changes.items()) if value])
    return request.path + (f"?{query}" if query else "")
