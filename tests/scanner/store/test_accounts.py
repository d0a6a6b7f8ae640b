"""Accounts: what is refused about a new user, and names of an identity provider's users."""

from __future__ import annotations

import pytest

from scanner.errors import UsageError
from scanner.store import accounts
from scanner.store.session import Database

PASSWORD = "correct horse battery staple"


@pytest.mark.parametrize(
    ("name", "role", "said"),
    [("ada", "emperor", "emperor"), ("  ", "viewer", "1 to 200"), ("a" * 201, "viewer", "200")],
)
def test_a_user_who_cannot_be_created(database: Database, name: str, role: str, said: str) -> None:
    with pytest.raises(UsageError, match=said), database.session() as session:
        accounts.create_user(session, name, PASSWORD, role)
    with database.read() as session:
        assert accounts.list_users(session) == ()


def test_users_of_a_provider_never_take_a_name_in_use(database: Database) -> None:
    """Otherwise a page would show two persons under one name, and an approval would name the wrong one."""
    with database.session() as session:
        accounts.create_user(session, "ada", PASSWORD, "viewer")
        found = [
            accounts.from_provider(
                session, accounts.Identity("https://login.example/realm", subject, "ada", frozenset()), "viewer"
            )
            for subject in ("1", "2", "1")
        ]
    assert found[0].name == "ada@login.example"
    assert found[1].name.startswith("ada@login.example~")
    assert found[2] == found[0], "the same subject is the same user"
