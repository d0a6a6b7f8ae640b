"""The lists in ``docs`` that are made from the catalogue. ``make docs`` writes them anew.

A list stands between ``<!-- list of NAME, made by: make docs -->`` and ``<!-- end of list -->``; a page that is made
as a whole has no marks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from scanner import catalog
from scanner.checks import _catalogue, _secret_catalogue
from scanner.commands.trust import schemes_table
from scanner.notify.base import format_table as channel_table
from scanner.registry.listings.base import list_table
from scanner.reports.base import format_table
from scanner.workloads.base import target_table
from web.webhooks import formats
from web.webhooks.base import format_list

DOCS = Path(__file__).parents[1] / "docs"
LISTS: Mapping[tuple[str, str], Callable[[], str]] = {
    ("notifications.md", "channels"): lambda: channel_table(catalog.channels().values()),
    ("registries.md", "lists"): lambda: list_table(catalog.listings().values()),
    ("reports.md", "formats"): lambda: format_table(catalog.reports().values()),
    ("secrets.md", "kinds"): _secret_catalogue.kinds_table,
    ("signatures.md", "schemes"): lambda: schemes_table(catalog.schemes().values()),
    ("webhooks.md", "formats"): lambda: format_list(formats().values()),
    ("workloads.md", "targets"): lambda: target_table(catalog.workload_sources().values()),
}


def checks_page() -> str:
    """``docs/checks.md``, as ``dockwarden checks --format markdown`` prints it."""
    return _catalogue.render("markdown", catalog.checks()).rstrip("\n") + "\n"


def with_list(page: str, name: str, content: str) -> str:
    """``page`` with the list ``name`` replaced. Raises ValueError if the page has no such list, or two."""
    begin, end = f"<!-- list of {name}, made by: make docs -->\n", "<!-- end of list -->"
    if page.count(begin) != 1 or end not in page.partition(begin)[2]:
        raise ValueError(f"the page must have one list of {name}")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}{content.strip()}\n{end}{rest.partition(end)[2]}"


def pages() -> dict[str, str]:
    """Each page with a list, as it has to be."""
    found = {"checks.md": checks_page()}
    for (page, name), content in LISTS.items():
        found[page] = with_list(found.get(page) or (DOCS / page).read_text("utf-8"), name, content())
    return found


if __name__ == "__main__":
    for page, text in pages().items():
        (DOCS / page).write_text(text, "utf-8")
