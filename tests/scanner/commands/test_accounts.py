"""Administration from the command line: what is said, what is printed once, and that every change is in the audit
log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scanner.cli import cli
from scanner.config import Secret, Settings, audit_key, load, secret_key
from scanner.errors import ScannerError, UsageError
from scanner.services import audit_anchors
from scanner.store import accounts, audit
from scanner.store.session import Database

PASSWORD = "correct horse battery"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("DOCKWARDEN_HOME", str(tmp_path))
    return load()


@pytest.fixture
def run(settings: Settings) -> Callable[..., Result]:
    return lambda *arguments, **env: CliRunner().invoke(cli, [*map(str, arguments)], env=env)


def test_people_projects_and_tokens(run: Callable[..., Result], settings: Settings) -> None:
    assert "there are no users yet" in run("user", "list").stderr
    assert run("project", "create", "shop", "--pattern", "registry.example.com/shop/**").exit_code == 0
    made = run("user", "add", "ada", "--role", "developer", "--project", "shop", DOCKWARDEN_PASSWORD=PASSWORD)
    assert "user 'ada' can sign in as developer and sees shop" in made.stderr
    assert PASSWORD not in made.output
    hinted = run("user", "add", "bob", DOCKWARDEN_PASSWORD=PASSWORD)
    assert "dockwarden project member PROJECT bob" in hinted.stderr
    assert run("project", "member", "shop", "bob").exit_code == 0
    assert "members: ada, bob" in run("project", "list").stdout
    assert run("project", "member", "shop", "bob", "--remove").exit_code == 0
    listed = run("user", "list").stdout
    assert [line.split()[:2] for line in listed.splitlines()] == [["ada", "developer"], ["bob", "viewer"]]
    token = run("token", "create", "ci", "--scope", "gate", "--project", "shop")
    assert "token 'ci' for gate in shop" in token.stderr
    with Database.of(settings).read() as session:
        found = accounts.find_token(session, token.stdout.strip(), secret_key(settings))
        assert found is not None
    assert token.stdout.strip() not in run("token", "list").output
    assert run("token", "revoke", f"dw_{found.prefix}").exit_code == 0
    assert "revoked" in run("token", "list").stdout
    assert run("user", "password", "ada", DOCKWARDEN_PASSWORD="another horse battery").exit_code == 0
    assert run("user", "disable", "ada").exit_code == 0
    assert "(disabled)" in run("user", "list").stdout
    hook = run("webhook", "create", "--registry", "registry.example.com")
    assert hook.stdout.startswith("dwh_")
    assert "registry.example.com" in run("webhook", "list").stdout
    with Database.of(settings).read() as session:
        actions = {entry.action for entry in audit.list_entries(session).items}
    assert actions >= {
        "user.create",
        "user.password",
        "user.disable",
        "project.create",
        "project.member.add",
        "project.member.remove",
        "token.create",
        "token.revoke",
        "webhook.create",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("token", "create", "x", "--project", "nowhere"), "no such project"),
        (("user", "add", "x", "--project", "nowhere"), "no such project"),
        (("user", "password", "nobody"), "there is no user 'nobody'"),
        (("user", "disable", "nobody"), "there is no user 'nobody'"),
        (("project", "member", "default", "nobody"), "there is no user 'nobody'"),
        (("token", "revoke", "dw_12345678"), "no token begins with"),
        (("audit-log", "verify", "--anchors", "/no/such"), "cannot read /no/such"),
        (("worker", "--lanes", "gate,fast"), "--lanes: there is no lane 'fast'"),
        (("worker", "--lanes", ","), "--lanes names no lane"),
        (("beat",), "the scheduler needs a broker"),
        (("break-glass", "end", "everything", "--server", "http://127.0.0.1:9"), "not an ID: 'everything'"),
    ],
)
def test_a_mistake_is_told(run: Callable[..., Result], arguments: tuple[str, ...], said: str) -> None:
    found = run(*arguments, DOCKWARDEN_PASSWORD=PASSWORD)
    assert said in str(found.exception)
    assert found.exit_code != 0


def test_a_password_is_not_asked_for_without_a_terminal(run: Callable[..., Result]) -> None:
    found = run("user", "add", "ada", DOCKWARDEN_PASSWORD=None)
    assert isinstance(found.exception, UsageError)
    assert "DOCKWARDEN_PASSWORD" in found.exception.hint


def test_there_is_no_previous_key_to_forget(run: Callable[..., Result]) -> None:
    assert "there is no previous key" in run("secrets", "forget").stderr


def test_the_log_is_verified_and_exported(run: Callable[..., Result], settings: Settings, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        run("project", "create", name)
    told = run("audit-log", "verify")
    assert "the chain is intact: 3 entries, none of them anchored outside the database yet" in told.stderr
    assert told.exit_code == 0
    database = Database.of(settings)
    audit_anchors.append_anchor(settings, database)
    assert "1 of them anchored outside the database" in run("audit-log", "verify").stderr
    assert len(run("audit-log", "export").stdout.splitlines()) == 3
    run("audit-log", "export", "--action", "project.create", "-o", tmp_path / "log.jsonl")
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3
    with database.session() as session:
        for trigger in ("audit_log_immutable", "audit_log_kept"):
            session.exec_driver_sql(f"DROP TRIGGER {trigger}")
        session.exec_driver_sql("DELETE FROM audit_log WHERE id = 3")
    cut = run("audit-log", "verify")
    assert "entry 3: entries up to 3 were deleted: an anchor proves that they existed" in cut.stderr
    with database.session() as session:
        session.exec_driver_sql("UPDATE audit_log SET actor = 'mallory' WHERE id = 2")
    changed = run("audit-log", "verify")
    assert "entry 2: its MAC does not match its content and the previous entry" in changed.stderr


def test_processes_that_share_a_secret_key_chain_with_one_audit_key(settings: Settings, tmp_path: Path) -> None:
    shared = Secret("s" * 40)
    web, worker = (replace(settings, home=tmp_path / name, secret_key=shared) for name in ("web", "worker"))
    assert audit_key(web) == audit_key(worker) != shared
    assert not (tmp_path / "web").exists()  # a process with a read-only home needs none
    assert audit_key(replace(web, audit_key=Secret("a" * 40))) == Secret("a" * 40)


def test_the_keys_are_made_once_and_are_not_each_others(settings: Settings) -> None:
    assert audit_key(settings) == audit_key(replace(settings)) != secret_key(settings)
    assert (settings.home / "audit_key").stat().st_mode & 0o777 == 0o600


def test_the_secret_key_is_changed_in_three_steps(run: Callable[..., Result], settings: Settings) -> None:
    token = run("token", "create", "ci").stdout.strip()
    run("webhook", "create", "--registry", "registry.example.com")
    before = secret_key(settings)
    assert "0 secrets use another key than the current one; there is no previous key" in run("secrets", "status").stderr
    assert run("secrets", "new-key").exit_code == 0
    assert "not finished" in str(run("secrets", "new-key").exception)
    assert secret_key(settings).previous == before != secret_key(settings)
    assert (settings.home / "secret_key_previous").stat().st_mode & 0o777 == 0o600
    assert "1 secret uses another key than the current one; there is a previous key" in run("secrets", "status").stderr
    assert "1 secret still encrypted with the previous key" in run("secrets", "forget").stderr
    assert "1 secret encrypted again" in run("secrets", "rotate").stderr
    assert "0 secrets encrypted again" in run("secrets", "rotate").stderr
    with Database.of(settings).read() as session:
        assert accounts.find_token(session, token, secret_key(settings)) is not None
    assert run("secrets", "forget").exit_code == 0
    assert secret_key(settings).previous == ""
    set_by_hand = run("secrets", "new-key", DOCKWARDEN_SECRET_KEY="k" * 40)
    assert "DOCKWARDEN_SECRET_KEY_PREVIOUS" in getattr(set_by_hand.exception, "hint", "")


def test_registries_and_their_webhooks_are_managed(run: Callable[..., Result], settings: Settings) -> None:
    host, secret = "registry.example.com", "a-password-of-the-registry"
    assert "there are no registries yet" in run("registry", "list").stderr
    made = run("registry", "add", host, "--username", "robot", DOCKWARDEN_PASSWORD=secret)
    assert made.exit_code == 0, made.output
    assert secret not in made.output
    assert "signs in as robot" in run("registry", "list").stdout
    assert run("registry", "edit", host, "--alias", "localhost:5000", "--insecure").exit_code == 0
    assert "plain HTTP" in run("registry", "list").stdout
    assert run("registry", "credentials", host, DOCKWARDEN_PASSWORD="another").exit_code == 0
    assert run("registry", "credentials", host, "--remove").exit_code == 0
    assert " anonymous " in run("registry", "list").stdout
    old = run("webhook", "create", "--registry", host, "--header", "X-Registry-Token")
    assert "'X-Registry-Token: <secret>'" in old.stderr
    (line,) = run("webhook", "list").stdout.splitlines()
    identifier = line.split()[0]
    new = run("webhook", "rotate", identifier[:8])
    assert new.stdout.startswith("dwh_")
    assert new.stdout != old.stdout
    assert "two secrets since" in run("webhook", "list").stdout
    assert "two valid secrets already" in str(run("webhook", "rotate", identifier).exception)
    assert run("webhook", "rotate", identifier, "--finish").exit_code == 0
    assert "has only one secret" in str(run("webhook", "rotate", identifier, "--cancel").exception)
    assert run("webhook", "disable", identifier).exit_code == 0
    assert "(disabled)" in run("webhook", "list").stdout
    assert run("webhook", "enable", identifier).exit_code == 0
    assert "this registry has webhooks" in str(run("registry", "remove", host).exception)
    assert run("webhook", "remove", identifier[:8]).exit_code == 0
    assert run("registry", "remove", host).exit_code == 0
    with Database.of(settings).read() as session:
        found = audit.list_entries(session).items
    assert {entry.actor for entry in found} == {"command line"}
    assert not any(secret in str(entry.detail) for entry in found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("registry", "add", "https://registry.example.com"), "write host[:port], without https://"),
        (("registry", "edit", "nowhere.example"), "dockwarden registry list"),
        (("webhook", "rotate", "12345678"), "dockwarden webhook list"),
        (("webhook", "create", "--registry", "registry.example.com", "--format", "pigeon"), "distribution"),
        (("webhook", "create", "--registry", "registry.example.com", "--header", "a b"), "name of an HTTP header"),
    ],
)
def test_a_registrys_mistakes_say_what_to_do(run: Callable[..., Result], arguments: tuple[str, ...], said: str) -> None:
    result = run(*arguments)
    error = result.exception
    assert result.exit_code != 0
    assert said in (f"{error} {error.hint}" if isinstance(error, ScannerError) else result.stderr)


def test_the_audit_log_is_read_as_sentences(run: Callable[..., Result]) -> None:
    assert "the audit log is empty" in run("audit-log", "list").stderr
    run("project", "create", "shop")
    run("user", "add", "ada", "--role", "developer", "--project", "shop", DOCKWARDEN_PASSWORD=PASSWORD)
    newest, oldest = run("audit-log", "list").stdout.splitlines()
    assert newest.endswith("command line added user ada as developer  (projects: shop)")
    assert oldest.endswith("command line added project shop")
    assert len(run("audit-log", "list", "--action", "user").stdout.splitlines()) == 1
    assert "no entry matches" in run("audit-log", "list", "--actor", "nobody").stderr


def test_credentials_of_a_cloud_registry(run: Callable[..., Result], tmp_path: Path) -> None:
    host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
    made = run("registry", "add", host, "--credentials", "ecr", "--machine-role")
    assert made.exit_code == 0, made.output
    assert "ecr, machine role" in run("registry", "list").stdout
    key = ("--credentials", "ecr", "--no-machine-role", "--username", "AKIDEXAMPLE00000")
    stored = run("registry", "credentials", host, *key, DOCKWARDEN_PASSWORD="the-secret-key")
    assert stored.exit_code == 0, stored.output
    assert "the-secret-key" not in stored.output
    assert "ecr, AKIDEXAMPLE00000" in run("registry", "list").stdout
    wrong = run("registry", "credentials", host, "--username", "short", DOCKWARDEN_PASSWORD="x")
    assert "username cannot be 'short'" in f"{wrong.exception}"
    (tmp_path / "key.json").write_text("{}\n")
    google = ("--credentials", "gar", "--password-file", tmp_path / "key.json")
    assert "its type is not service_account" in f"{run('registry', 'add', 'europe-docker.pkg.dev', *google).exception}"
    elsewhere = run("registry", "add", "registry.example.com", "--credentials", "acr", "--machine-role")
    assert "registry.example.com is not a registry of Azure Container Registry" in f"{elsewhere.exception}"
    assert run("registry", "edit", host, "--machine-role").exit_code == 0
    assert "ecr, machine role" in run("registry", "list").stdout
    both = run("registry", "credentials", host, "--remove", "--machine-role")
    assert "give --remove alone" in f"{both.exception}"
    assert run("registry", "credentials", host, "--remove").exit_code == 0
    assert "anonymous" in run("registry", "list").stdout
