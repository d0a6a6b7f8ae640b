"""Saved filters: one of a name, and a limit for each page."""

from __future__ import annotations

import pytest

from scanner.errors import ConflictError
from scanner.store import saved_views
from scanner.store.session import Database


def test_a_view_is_replaced_and_more_than_the_limit_is_refused(database: Database) -> None:
    with database.session() as session:
        for number in range(saved_views.MOST):
            saved_views.put(session, "id-of-ada", "images", f"view {number:02}", "verdict=deny")
        with pytest.raises(ConflictError) as refused:
            saved_views.put(session, "id-of-ada", "images", "one more", "")
        saved_views.put(session, "id-of-ada", "images", "view 00", "verdict=warn")
        saved_views.put(session, "id-of-ada", "scans", "one more", "")
        saved_views.put(session, "id-of-bob", "images", "one more", "")
        kept = saved_views.list_views(session, "id-of-ada", "images")
        assert refused.value.hint == "remove one first"
        assert len(kept) == saved_views.MOST
        assert kept[0] == saved_views.SavedView("view 00", "verdict=warn")
        saved_views.remove(session, "id-of-ada", "images", "view 00")
        assert len(saved_views.list_views(session, "id-of-ada", "images")) == saved_views.MOST - 1
