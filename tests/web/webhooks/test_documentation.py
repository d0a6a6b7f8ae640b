"""``docs/webhooks.md`` lists every format there is.

To write its list anew: ``python -m tests.web.webhooks.test_documentation``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scanner import plugins
from web.webhooks import formats
from web.webhooks.base import WebhookFormat, format_list

PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"
BEGIN, END = "list of formats: ", "<!-- end of list -->"


def parts() -> tuple[str, str, str]:
    """What stands before the list, the list, and what stands after it."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    head, _, rest = rest.partition("\n")
    listed, _, after = rest.partition(END)
    return f"{before}{BEGIN}{head}\n", listed, f"{END}{after}"


def test_the_page_lists_the_formats_that_there_are() -> None:
    assert parts()[1].strip() == format_list(formats().values())


def test_the_command_line_offers_the_formats_that_there_are() -> None:
    """It knows nothing of the web, and finds them by their files."""
    assert plugins.ids("web.webhooks") == tuple(formats())


@pytest.mark.parametrize("form", formats().values(), ids=lambda form: form.id)
def test_a_format_says_how_it_is_set_up(form: WebhookFormat) -> None:
    assert form.title
    assert form.setup.endswith(".")
    assert form.snippet
    shown = form.configured("https://d.example/webhooks/x", form.header, "s3cret")
    assert "https://d.example/webhooks/x" in shown
    assert "s3cret" in shown
    assert form.sender_example in shown
    assert "<" not in shown.replace("<digest>", "")


if __name__ == "__main__":
    before, _, after = parts()
    PAGE.write_text(f"{before}{format_list(formats().values())}\n{after}")
