"""What verifiers remember survives, on both databases, and never goes back."""

from __future__ import annotations

from scanner.store import trust
from scanner.store.session import Database
from scanner.store.trust import StoredState


def test_what_is_saved_is_there(database: Database) -> None:
    state = StoredState(database)
    assert state.load("registry.example/app#1") is None
    assert state.save("registry.example/app#1", b"one", None)
    assert StoredState(database).load("registry.example/app#1") == b"one"
    assert StoredState(database).load("registry.example/app#2") is None, "another anchor, another memory"


def test_a_run_that_was_overtaken_is_told_so(database: Database) -> None:
    state = StoredState(database)
    for before, expected in ((None, b"newer"), (b"newer", b"newest")):  # at first, and over something
        assert state.save("gun#1", expected, before)
        assert not state.save("gun#1", b"older", before)
        assert state.load("gun#1") == expected


def test_forgetting_is_by_name(database: Database) -> None:
    for key in ("a/app#1", "a/app#2", "a/app2#1"):
        assert StoredState(database).save(key, b"x", None)
    with database.session() as session:
        assert trust.forget(session, "a/app") == 2
    assert StoredState(database).load("a/app#1") is None
    assert StoredState(database).load("a/app2#1") == b"x"
