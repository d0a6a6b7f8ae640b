"""The tag ledger: what a tag named, when it moved, and what it named first."""

from __future__ import annotations

import pytest

from scanner.store import tags
from scanner.store.session import Database

NAME = "registry.example.com/shop/app"
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.fixture
def noted(database: Database) -> list[str]:
    """A tag that is moved and moved back, and one that is not."""
    with database.session() as session:
        found = [tags.note(session, NAME, "1.4.2", digest, "webhook") for digest in (A, A, B, A)]
        tags.note(session, NAME, "1.4.3", B, "api")
    return found


def test_a_tag_is_noted_whenever_it_names_another_digest(database: Database, noted: list[str]) -> None:
    assert noted == ["", "", A, B]
    with database.read() as session:
        found = tags.history(session, None, repository=NAME, tag="1.4.2").items
        first = tags.first(session, NAME, "1.4.2")
    assert [(m.digest, m.previous, m.rollback, m.source) for m in found] == [
        (A, B, True, "webhook"),
        (B, A, False, "webhook"),
        (A, "", False, "webhook"),
    ]
    assert first
    assert first.digest == A


def test_moves_only_and_page_by_page(database: Database, noted: list[str]) -> None:
    with database.read() as session:
        whole = tags.history(session, None).items
        page = tags.history(session, None, limit=3)
        rest = tags.history(session, None, limit=3, cursor=page.next_cursor)
        moved = tags.history(session, None, moved=True).items
    assert (*page.items, *rest.items) == whole
    assert len(whole) == 4
    assert [m.digest for m in moved] == [A, B]


def test_nothing_of_others_and_nothing_of_what_was_never_seen(database: Database, noted: list[str]) -> None:
    with database.read() as session:
        assert tags.history(session, frozenset({"shop"})).items == ()
        assert tags.first(session, NAME, "9") is None
