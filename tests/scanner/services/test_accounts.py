"""Accounts: what administrators may set, and what a user may do to the own account only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import ConflictError, NotFoundError, RefusedError, ScannerError, UsageError
from scanner.model.access import SCOPES
from scanner.model.actor import COMMAND_LINE
from scanner.services import accounts, projects
from scanner.store import accounts as stored
from tests.actors import ownerless, person

KEY = Secret("a secret key for tests, long enough")
PASSWORD, OTHER = "correct horse battery", "another horse battery"
SSO = stored.Identity("https://idp.example.com", "subject", "ida", frozenset())


def test_a_new_user_joins_the_projects_at_once(session: Connection) -> None:
    projects.create(session, COMMAND_LINE, "shop")
    made = accounts.create_user(session, COMMAND_LINE, "ada", PASSWORD, "developer", ["shop"])
    assert made.projects == ("shop",)
    assert accounts.user_by_name(session, "ada") == made
    with pytest.raises(NotFoundError) as unknown:
        accounts.user_by_name(session, "eve")
    assert "dockwarden user list" in unknown.value.hint


@pytest.mark.parametrize(
    ("name", "password", "role", "members", "error"),
    [
        ("ada lovelace", PASSWORD, "viewer", (), UsageError),
        ("ada", PASSWORD, "queen", (), UsageError),
        ("ada", "short", "viewer", (), UsageError),
        ("ada", "x" * 1001, "viewer", (), UsageError),
        ("ada", "abababababababab", "viewer", (), UsageError),
        ("adalovelace", "adalovelace and a horse", "viewer", (), UsageError),
        ("ada", "password1234", "viewer", (), UsageError),
        ("ada", PASSWORD, "viewer", ("none",), NotFoundError),
    ],
)
def test_an_account_that_cannot_be(
    session: Connection, name: str, password: str, role: str, members: tuple[str, ...], error: type[ScannerError]
) -> None:
    with pytest.raises(error):
        accounts.create_user(session, COMMAND_LINE, name, password, role, members)


def test_a_name_is_used_once(session: Connection) -> None:
    accounts.create_user(session, COMMAND_LINE, "ada", PASSWORD, "viewer")
    with pytest.raises(ConflictError, match="exists already"):
        accounts.create_user(session, COMMAND_LINE, "ada", OTHER, "viewer")


@pytest.mark.parametrize(
    "work",
    [
        lambda s: accounts.set_role(s, COMMAND_LINE, "none", "viewer"),
        lambda s: accounts.set_disabled(s, COMMAND_LINE, "none", True),
        lambda s: accounts.set_password(s, COMMAND_LINE, "none", OTHER),
        lambda s: accounts.sign_out(s, COMMAND_LINE, "none"),
        lambda s: stored.set_role(s, "none", "viewer"),
        lambda s: stored.signed_in(s, "none"),
        lambda s: accounts.end_session(s, person("ada"), "none"),
    ],
)
def test_what_does_not_exist_is_not_changed(session: Connection, work: Callable[[Connection], Any]) -> None:
    with pytest.raises(NotFoundError):
        work(session)


def test_only_a_person_in_a_session_changes_the_own_password(session: Connection) -> None:
    """A stolen token would otherwise become a stolen account."""
    ada = accounts.create_user(session, COMMAND_LINE, "ada", PASSWORD, "viewer")
    token = person("ada", id_=ada.id)
    object.__setattr__(token, "kind", "token")
    for actor in (token, ownerless("ci", *SCOPES)):
        with pytest.raises(RefusedError) as refused:
            accounts.change_own_password(session, actor, PASSWORD, OTHER)
        assert refused.value.reason == "needs_person"
    herself = person("ada", id_=ada.id)
    with pytest.raises(RefusedError) as wrong:
        accounts.change_own_password(session, herself, OTHER, OTHER)
    assert wrong.value.field == "current"
    stored.begin_session(session, KEY, user_id=ada.id)
    accounts.change_own_password(session, herself, PASSWORD, OTHER)
    assert stored.verify_password(session, "ada", OTHER) == ada
    assert stored.open_sessions(session, ada.id) == (), "a session that somebody else opened ends with the password"


def test_sessions_end_one_by_one_or_all_at_once(session: Connection) -> None:
    ada = accounts.create_user(session, COMMAND_LINE, "ada", PASSWORD, "viewer")
    herself = person("ada", id_=ada.id)
    for _ in range(3):
        stored.begin_session(session, KEY, user_id=ada.id)
    first, *_ = stored.open_sessions(session, ada.id)
    with pytest.raises(NotFoundError):
        accounts.end_session(session, person("eve"), first.id)
    accounts.end_session(session, herself, first.id)
    assert accounts.end_own_sessions(session, herself) == 2
    with pytest.raises(RefusedError, match="needs a user"):
        accounts.end_own_sessions(session, ownerless("ci", *SCOPES))


def test_an_identity_has_no_password_here_and_takes_over_no_account(session: Connection) -> None:
    local = accounts.create_user(session, COMMAND_LINE, "ida", PASSWORD, "admin")
    ida = accounts.from_provider(session, SSO, "viewer", "192.0.2.1")
    assert (ida.id != local.id, ida.name) == (True, "ida@idp.example.com")
    with pytest.raises(ConflictError) as refused:
        accounts.set_password(session, COMMAND_LINE, ida.id, OTHER)
    assert refused.value.reason == "no_password"
    accounts.set_disabled(session, COMMAND_LINE, ida.id, True)
    with pytest.raises(RefusedError) as disabled:
        accounts.from_provider(session, SSO, "viewer", "192.0.2.1")
    assert disabled.value.reason == "oidc_refused"
    assert not accounts.set_disabled(session, COMMAND_LINE, ida.id, False).disabled
