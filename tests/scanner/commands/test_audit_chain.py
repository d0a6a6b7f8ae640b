"""Every command that writes opens the database in one way, so that its entries of the audit log are chained with the
key.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scanner.cli import cli
from scanner.config import Settings, load
from scanner.model.audit import Action
from scanner.store import audit
from scanner.store.session import Database

ROOT = Path(__file__).parents[3]
PASSWORD = "correct horse battery"
TOFU = ("tofu", "--scheme", "notary-v1", "--scope", "registry.example.com/**")
WRITES = [
    ("project", "create", "shop"),
    ("user", "add", "ada"),
    ("project", "member", "shop", "ada"),
    ("user", "password", "ada"),
    ("user", "disable", "ada"),
    ("token", "create", "ci"),
    ("webhook", "create", "--registry", "registry.example.com"),
    ("advisories", "revoke", "--engine", "trivy", "--version", "0.1", "--reason", "it misread a file"),
    ("advisories", "rematch", "--no-wait"),
    ("advisories", "rematch", "--cancel"),
    ("trust", "root", "add", "team", *TOFU),
    ("trust", "root", "remove", "team"),
    ("trust", "forget", "registry.example.com/shop/cart"),
    ("secrets", "new-key"),
    ("secrets", "rotate"),
    ("secrets", "forget"),
    ("db", "upgrade"),
    ("db", "prune"),
]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample_layouts: Path) -> Settings:
    from scanner.advisories import database

    monkeypatch.setenv("DOCKWARDEN_HOME", str(tmp_path))
    database.import_file(load(), sample_layouts / "advisories")
    return load()


@pytest.fixture
def run(settings: Settings) -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(cli, [*arguments], env={"DOCKWARDEN_PASSWORD": PASSWORD})


def test_the_chain_holds_after_every_command_that_writes(run: Callable[..., Result], settings: Settings) -> None:
    for words in WRITES:
        done = run(*words)
        assert done.exit_code == 0, (words, done.output, done.exception)
        verified = run("audit-log", "verify")
        assert "the chain is intact" in verified.stderr, (words, verified.stderr)
    with Database.of(settings).read() as session:
        actions = {entry.action for entry in audit.list_entries(session).items}
        (revocation,) = audit.list_entries(session, audit.Filter(action="advisories.revoke")).items
    assert {Action.ADVISORIES_REVOKE, Action.USER_CREATE, Action.TOKEN_CREATE, Action.SECRETS_ROTATE} <= actions
    assert run("advisories", "revocations", "--lift", revocation.object).exit_code == 0
    assert "the chain is intact" in run("audit-log", "verify").stderr


def opened(file: Path) -> list[str]:
    """How a module makes a ``Database``: the lines of its calls, without those of the class's own methods."""
    calls = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    return [
        f"{file.name}:{call.lineno}" for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Database"
    ]


def test_nothing_opens_the_database_without_the_key_of_its_audit_log() -> None:
    """``Database(url)`` has no key: what it records breaks the chain. ``Database.of(settings)`` has it."""
    files = [file for room in ("scanner", "web") for file in (ROOT / room).rglob("*.py")]
    assert [line for file in files for line in opened(file)] == []
