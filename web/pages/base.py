"""Shared by all pages: navigation, times, sizes, and error pages.

All values from images are escaped by Jinja; nothing here marks text as safe.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from flask import Response, current_app, g, render_template, request, url_for
from werkzeug.exceptions import HTTPException

from scanner import __version__
from scanner.errors import RefusedError
from scanner.model.actor import Actor
from scanner.model.pem import holds_private_key
from scanner.model.reasons import sentence
from web import kept_forms
from web.auth import check_origin

PAGE_SIZE = 50  # rows
THEMES = ("light", "dark")


# Fields whose values are never sent back, and must be typed again. A channel's URL may hold its secret.
_SECRET = re.compile(r"(?!(token_service|purl)$).*(password|secret|token|key|url)|current|new")


@dataclass(frozen=True)
class Entries:
    """What a form sent that was not carried out: to submit it again. ``secret``: names of fields to type again.

    ``token`` and ``key``: see `web.kept_forms`.
    """

    fields: tuple[tuple[str, str], ...]
    secret: tuple[str, ...]
    token: str
    key: str


@dataclass(frozen=True, order=True)
class NavigationItem:
    """A page's entry in the menu. Orders from 80 on are in the menu under the user's name.

    Each module defines its own ``NAVIGATION``; ``create_app`` collects them.
    """

    order: int
    endpoint: str  # of Flask
    title: str
    permission: str  # who may not do this does not see the entry

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
        shown_at=here(),
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

    A caller who is not signed in is sent to the sign-in form first. What a form sent can be submitted again.
    """
    part = "HX-Request" in request.headers
    # Only after a GET: the address of a form's POST cannot be opened afterwards, and what was typed would be lost.
    if document["status"] == 401 and request.method == "GET":
        try:
            shown = urlsplit(request.headers.get("HX-Current-URL", "") if part else request.full_path.rstrip("?"))
            target = shown._replace(scheme="", netloc="", fragment="").geturl()
        except ValueError:  # no address, such as http://[
            target = ""
        location = url_for("sign_in_page.form", next=target) if safe_next(target) else url_for("sign_in_page.form")
        # htmx would follow a redirect, and put the sign-in form where the answer belongs.
        return Response(status=401, headers={"HX-Redirect": location}) if part else _see_other(location)
    # What a person may not do, the list of the same area may refuse as well.
    back = _list_of("/" if document["status"] == 403 else request.path)
    template = "error_part.html" if part else "error.html"
    entries = _entries() if _can_pass(document) and not part else None
    again = _address_of_request()
    rendered = page(
        template,
        problem=document,
        back=back,
        entries=entries,
        kept_field=kept_forms.FIELD,
        passes=_can_pass(document),
        again=again,
    )
    answer = Response(rendered, document["status"], mimetype="text/html")
    return kept_forms.remember(answer, entries.key) if entries else answer


def _see_other(location: str) -> Response:
    return Response(status=303, headers={"Location": location})


def _address_of_request() -> str:
    """The path with its escapes, and the query: browsers take ``/\\evil.example`` for the address of another site."""
    query = request.query_string.decode("ascii", "replace")
    return quote(request.path) + (f"?{query}" if query else "")


def _can_pass(document: Mapping[str, Any]) -> bool:
    """Whether the same request can succeed later: after signing in, with the form's new token, or when we are well."""
    return document["status"] in (401, 429) or document["status"] >= 500 or document["reason"] == "csrf"


def _entries() -> Entries | None:
    """The fields of the form that was sent. None if there are none, or they did not come from one of our pages."""
    if request.method != "POST":
        return None
    try:
        # Another site must not have its entries shown here, with a button that submits them as this person.
        check_origin()
        own = ("csrf_token", kept_forms.FIELD)
        sent = [(name, text) for name, text in request.form.items(multi=True) if name not in own]
    except (RefusedError, HTTPException):  # too large to be read, for example
        return None
    secret = {name for name, text in sent if _SECRET.match(name) or holds_private_key(text)}
    shown = tuple((name, text) for name, text in sent if name not in secret)
    return Entries(shown, tuple(sorted(secret)), *kept_forms.new_token()) if sent else None


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
    plain = (
        target.startswith("/")
        and not target.startswith(("//", "/\\"))
        and "\\" not in target
        and not any(c < " " for c in target)
    )
    if not plain or target == "/":
        return ""
    parts = urlsplit(target)  # only of what is plain: it raises for ``//[``
    return target if not parts.scheme and not parts.netloc else ""


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
    """This page's URL with changed parameters; None removes one. Repeated parameters are kept.

    A refused form comes back at an address that takes only a POST: then, of the page that has the form.
    """
    kept = [(name, value) for name, value in request.args.items(multi=True) if name not in changes]
    query = urlencode([(name, value) for name, value in (*kept, *changes.items()) if value])
    path = request.path if request.method in ("GET", "HEAD") else _page_above(request.path)
    return path + (f"?{query}" if query else "")


def _page_above(path: str) -> str:
    """The nearest address that can be opened: this one, or one above it."""
    addresses = current_app.create_url_adapter(request)
    while addresses and path and not addresses.test(path, "GET"):
        path = path.rpartition("/")[0]
    return path or "/"
