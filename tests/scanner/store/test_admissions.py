"""Calls of doors: newest first, narrowed by what a page or an API client asks for."""

from __future__ import annotations

from typing import Any

from scanner.store import admissions
from scanner.store.session import Database

CALLS = [
    ("kubernetes", "shop", "denied"),
    ("kubernetes", "shop", "allowed"),
    ("kubernetes", "bank", "denied"),
    ("docker", "", "denied"),
]


def row(number: int, door: str, namespace: str, outcome: str) -> dict[str, Any]:
    empty = dict.fromkeys(("token", "user", "operation", "kind", "mode", "environment", "message"), "")
    return {**empty, "door": door, "namespace": namespace, "outcome": outcome, "name": str(number), "images": []}


def names(database: Database, **narrowed: Any) -> list[str]:
    with database.read() as session:
        return [view.name for view in admissions.list_reviews(session, **narrowed).items]


def test_calls_are_narrowed_and_paged(database: Database) -> None:
    with database.session() as session:
        admissions.record(session, [row(number, *call) for number, call in enumerate(CALLS)])
    assert names(database) == ["3", "2", "1", "0"]
    assert names(database, outcome="denied") == ["3", "2", "0"]
    assert names(database, namespace="shop") == ["1", "0"]
    assert names(database, door="kubernetes", outcome="denied", namespace="shop") == ["0"]
    with database.read() as session:
        first = admissions.list_reviews(session, limit=3)
        rest = admissions.list_reviews(session, limit=3, cursor=first.next_cursor)
    assert [view.name for view in (*first.items, *rest.items)] == names(database)
    assert rest.next_cursor is None
