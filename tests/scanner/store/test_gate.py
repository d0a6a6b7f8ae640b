"""The gate's single question, on SQLite and PostgreSQL: over the driver, and over a connection that the server
ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import RemoteError
from scanner.model.decision import Verdict
from scanner.policy.evaluate import evidence_digest
from scanner.store import accounts, gate, images, scans
from scanner.store.schema import token, verdict
from scanner.store.session import Database
from tests.scanner.store import factories as make
from tests.scanner.store.recorded import claim, record

KEY = Secret("a secret key for tests, long enough")
FOUND = make.report()


@pytest.fixture
def text(database: Database) -> str:
    """The hash of a token that may ask; the image is decided."""
    with database.session() as session:
        made = accounts.create_token(session, "ci", ["gate"], KEY, projects=["default"])[1]
        scans.request(session, make.request())
        claim = scans.claim(session, "w", ["push"], 60)
        assert claim
        images.record(session, claim, FOUND, evidence_digest(FOUND), [make.decided(FOUND)])
    return accounts.hash_token(made.reveal(), KEY)


def ask(database: Database, text: str, **changes: str) -> gate.GateLookup | None:
    values = {"digest": str(FOUND.digest), "repository": make.REPOSITORY, "environment": ""} | changes
    return gate.Gate(database).ask(text, **values)


def test_token_and_decision_in_one_answer(database: Database, text: str) -> None:
    found = ask(database, text)
    assert found is not None
    assert (found.name, found.scopes, found.projects, found.owner_role) == ("ci", ("gate",), {"default"}, "")
    assert found.row is not None
    assert (found.row.project, found.current, found.unnoted) == ("default", True, True)


@pytest.mark.parametrize(
    "changes", [{"digest": "sha256:" + "0" * 64}, {"repository": "other/name"}, {"environment": "production"}]
)
def test_a_token_without_a_decision(database: Database, text: str, changes: dict[str, str]) -> None:
    found = ask(database, text, **changes)
    assert found is not None
    assert (found.row, found.current) == (None, False)


@pytest.mark.parametrize("how", ["unknown", "revoked", "expired", "disabled"])
def test_no_token_no_answer(database: Database, text: str, how: str) -> None:
    with database.session() as session:
        if how == "revoked":
            session.execute(token.update().values(revoked_at=datetime.now(UTC)))
        elif how == "expired":
            session.execute(token.update().values(expires_at=datetime.now(UTC) - timedelta(seconds=2)))
        elif how == "disabled":
            user = accounts.create_user(session, "ada", "a long password", "developer")
            session.execute(token.update().values(owner_id=user.id))
            accounts.set_disabled(session, user.id, True)
    assert ask(database, "0" * 64 if how == "unknown" else text) is None


def test_a_token_of_another_project_does_not_see_it(database: Database, text: str) -> None:
    with database.session() as session:
        session.execute(token.update().values(projects=["other"]))
    found = ask(database, text)
    assert found is not None
    assert found.row is None


def test_time_and_policies_end_a_decision(database: Database, text: str) -> None:
    with database.session() as session:
        session.execute(verdict.update().values(valid_until=datetime.now(UTC).timestamp() + 60))
    assert ask(database, text).current  # type: ignore[union-attr]
    with database.session() as session:
        assert gate.invalidate(session) == 1
    found = ask(database, text)
    assert found is not None
    assert found.row is not None
    assert not found.current
    with database.read() as session:
        assert not gate.is_valid(session, found.row)


def test_use_is_noted_once_a_minute(database: Database, text: str) -> None:
    found = ask(database, text)
    assert found is not None
    with database.session() as session:
        accounts.touch_token(session, found.token_id)
    assert not ask(database, text).unnoted  # type: ignore[union-attr]


# SQLite has no server that could end a connection.
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_connection_that_the_server_ended_is_replaced(database: Database, text: str) -> None:
    asking = gate.Gate(database)
    values = (text, str(FOUND.digest), make.REPOSITORY, "")
    assert asking.ask(*values) is not None
    with database.session() as session:
        session.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND "
                "datname = current_database()"
            )
        )
    assert asking.ask(*values) is not None


def test_a_database_that_is_away(text: str) -> None:
    away = gate.Gate(Database("postgresql+psycopg://nobody@/none?host=/no/such/directory"))
    with pytest.raises(RemoteError) as caught:
        away.ask(text, "", "", "")
    assert caught.value.reason == "db_unavailable"


def test_a_schema_of_another_version(database: Database, text: str) -> None:
    with database.session() as session:
        session.execute(sa.text("ALTER TABLE api_token RENAME COLUMN expires_at TO former_name"))
        session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(RemoteError) as caught:
        gate.Gate(database).ask(text, "", "", "")
    assert caught.value.reason == "db_not_at_head"
    assert "9999" in str(caught.value)


def test_it_sees_what_was_just_committed(database: Database, text: str) -> None:
    """An open SELECT would keep SQLite's former snapshot."""
    asking = gate.Gate(database)
    values = (text, str(FOUND.digest), make.REPOSITORY, "")
    assert asking.ask(*values).current  # type: ignore[union-attr]
    with database.session() as session:
        gate.invalidate(session)
    assert not asking.ask(*values).current  # type: ignore[union-attr]


def test_the_gate_is_told_the_worst_of_all_names_or_that_of_one(database: Database) -> None:
    good, bad = make.report(repository="h.io/good"), make.report(repository="h.io/bad")
    record(database, good, Verdict.ALLOW)
    record(database, bad, Verdict.DENY)

    def decided(repository: str | None, projects: frozenset[str] | None = None, environment: str = "") -> str | None:
        with database.read() as session:
            row = gate.current_decision(session, good.digest, environment, repository, projects)
        return row.document if row else None

    assert "deny" in (decided(None) or "")
    assert "allow" in (decided("h.io/good") or "")
    assert decided("h.io/never-seen") is None
    assert decided(None, frozenset({"foreign"})) is None
    assert decided(None, environment="production") is None


def test_the_worst_of_any_number_of_names_counts(database: Database, text: str) -> None:
    with database.session() as session:
        row = dict(session.execute(sa.select(verdict)).one()._mapping)
        assert '"verdict":"deny"' not in row["document"]
        worst = row["document"].replace('"verdict":"allow"', '"verdict":"deny"', 1)
        assert worst != row["document"]
        many = [{**row, "repository": f"{make.REPOSITORY}/{number}"} for number in range(30)]
        session.execute(verdict.insert(), [*many, {**row, "repository": "z/denied", "document": worst}])
        found = gate.current_decision(session, str(FOUND.digest), "", None, None)
    assert found is not None
    assert found.repository == "z/denied"


@pytest.mark.parametrize(
    "change", [gate.invalidate, lambda session: gate.invalidate_for(session, "default", ["**"])], ids=["all", "project"]
)
def test_a_decision_that_is_stored_while_its_policy_changes_is_outdated(
    database: Database, change: Callable[[Connection], int]
) -> None:
    """The decision was made by the former policy. It is the first of the image, so there is no row to lock."""
    deciding = threading.Event()

    def write_policy() -> None:
        assert deciding.wait(60)
        with database.session() as session:
            change(session)

    held, made = claim(database), [make.decided(FOUND, Verdict.ALLOW)]
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(write_policy)
        with database.session() as session:
            gate.begin_decision(session)  # and here the policies are read
            deciding.set()
            assert not wait([writer], timeout=0.2).done, "the change waits for the decision"
            images.record(session, held, FOUND, make.evidence(FOUND), made)
        writer.result(60)
    with database.read() as session:
        assert session.execute(sa.select(verdict.c.valid_until)).scalar_one() == 0.0
