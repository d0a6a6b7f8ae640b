"""Policies: a version is a change of the text."""

from __future__ import annotations

from scanner.store import policies
from scanner.store.session import Database


def test_the_same_text_again_is_no_new_version(database: Database) -> None:
    with database.session() as session:
        made = policies.put(session, "mine", "name: mine\n", "ada")
        assert policies.put(session, "mine", "name: mine\n", "bob") == made
        changed = policies.put(session, "mine", "name: mine\n# more\n", "bob", if_version=made.version)
        assert (changed.version, changed.author) == (made.version + 1, "bob")
        assert len(policies.versions(session, "mine")) == 2
