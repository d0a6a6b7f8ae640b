"""The lists in ``docs`` are those of the catalogue."""

from __future__ import annotations

import pytest

from tests import documentation


@pytest.mark.parametrize("page", ["checks.md", *dict.fromkeys(page for page, _ in documentation.LISTS)])
def test_a_page_lists_what_there_is(page: str) -> None:
    there = (documentation.DOCS / page).read_text("utf-8")
    assert there == documentation.pages()[page], "write the lists anew: make docs"


def test_a_page_without_its_list_is_noticed() -> None:
    with pytest.raises(ValueError, match="one list of formats"):
        documentation.with_list("# Reports\n", "formats", "| a |")
