"""``docs/reports.md`` lists every format there is.

To write its list anew: ``python -m tests.scanner.reports.test_documentation``.
"""

from __future__ import annotations

from pathlib import Path

from scanner import catalog
from scanner.reports.base import format_table

PAGE = Path(__file__).parents[3] / "docs" / "reports.md"
BEGIN, END = "list of formats: ", "<!-- end of list -->"


def parts() -> tuple[str, str, str]:
    """What stands before the list, the list, and what stands after it."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    head, _, rest = rest.partition("\n")
    listed, _, after = rest.partition(END)
    return f"{before}{BEGIN}{head}\n", listed, f"{END}{after}"


def test_the_page_lists_the_formats_of_the_catalogue() -> None:
    assert parts()[1].strip() == format_table(catalog.reports().values())


if __name__ == "__main__":
    before, _, after = parts()
    PAGE.write_text(f"{before}{format_table(catalog.reports().values())}\n{after}")
