"""``dockwarden trust`` as a person uses it: mistakes are one line, and what cannot be told is exit 3."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scanner import catalog
from scanner.cli import cli
from scanner.config import Settings
from scanner.errors import ScannerError
from tests.servers import free_port
from tests.test_end_to_end import dockwarden

MISTAKES = {
    "nothing to verify": (["verify"], "nothing to verify"),
    "no such scheme": (["verify", "a.example/b:1", "--scheme", "pgp"], "there is no signature scheme 'pgp'"),
    "no time": (["verify", "a.example/b:1", "--at", "yesterday"], "not an RFC 3339 time"),
    "no time zone": (["verify", "a.example/b:1", "--at", "2026-11-23T07:00:00"], "the time zone is missing"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(tmp_path: Path, name: str) -> None:
    arguments, words = MISTAKES[name]
    done = dockwarden(Settings(home=tmp_path), "trust", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_groups_of_commands_are_found() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output
    assert "trust " in shown
    assert "scan " in shown


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line in this process, in a home of its own."""
    monkeypatch.setenv("DOCKWARDEN_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["trust", *arguments], standalone_mode=False)

    return run


def test_trust_roots_are_added_listed_and_removed(run: Callable[..., Result]) -> None:
    assert "there are no trust roots yet" in run("root", "list").output
    added = run(
        "root",
        "add",
        "team",
        "a" * 64,
        "--scheme",
        "notary-v1",
        "--scope",
        "a.example/shop/**",
        "--notary-server",
        "https://n.example",
    )
    assert "trust root 'team', version 1, for a.example/shop/**" in added.output
    assert "team  notary-v1  version 1  a.example/shop/**" in run("root", "list").output
    (shown,) = json.loads(run("root", "list", "--format", "json").output)
    assert shown["document"] == {"mode": "cert_ids", "ids": ["a" * 64], "server": "https://n.example"}
    assert "is removed" in run("root", "remove", "team").output
    gone = run("root", "remove", "team").exception
    assert isinstance(gone, ScannerError)
    assert gone.reason == "not_found"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Team", "tofu", "--scheme", "notary-v1"], "not a name"),
        (["team", "tofu", "--scheme", "pgp"], "there is no signature scheme 'pgp'"),
        (["team", "tofu", "--scheme", "notary-v1", "--scope", "a b"], "not a pattern"),
        (["team", "tofu", "--scheme", "notary-v1", "--notary-server", "http://n.example"], "https://"),
        (["team", "hope", "--scheme", "notary-v1"], "is neither a file nor a key id nor 'tofu'"),
    ],
)
def test_what_is_no_trust_root_is_refused(run: Callable[..., Result], arguments: list[str], words: str) -> None:
    refused = run("root", "add", *arguments).exception
    assert isinstance(refused, ScannerError)
    assert words in f"{refused} {refused.hint}"


def test_the_report_of_a_new_installation(run: Callable[..., Result]) -> None:
    assert "no image was scanned yet" in run("report").output
    assert json.loads(run("report", "--format", "json").output) == []
    assert "0 stored versions deleted" in run("forget", "a.example/app").output


def test_a_registry_that_is_not_there_is_asked_once(run: Callable[..., Result]) -> None:
    shown = run("inspect", f"127.0.0.1:{free_port()}/app:1")
    assert shown.return_value == 3
    assert shown.output.count("? unknown: unavailable") == len(catalog.schemes())


def test_the_schemes_and_their_page_agree(run: Callable[..., Result]) -> None:
    table = run("schemes", "--format", "markdown").output
    assert table in (Path(__file__).parents[3] / "docs" / "signatures.md").read_text()
    assert len(table.splitlines()) == len(catalog.schemes()) + 2


@pytest.mark.parametrize("command", [["verify"], ["root", "add"]])
def test_help_lists_the_schemes_that_there_are(command: list[str], run: Callable[..., Result]) -> None:
    shown = " ".join(run(*command, "--help").output.split())
    assert f"One of: {', '.join(catalog.schemes())}." in shown
    listed = run("schemes").output
    assert all(scheme.id in listed and scheme.title in listed for scheme in catalog.schemes().values())
