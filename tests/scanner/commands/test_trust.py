"""``dockwarden trust`` as a person uses it: mistakes are one line, and what cannot be told is exit 3."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from scanner.cli import cli
from scanner.config import Settings
from tests.test_end_to_end import dockwarden

MISTAKES = {
    "nothing to verify": (["verify"], "verify what?"),
    "no such scheme": (["verify", "a.example/b:1", "--scheme", "pgp"], "there is no signature scheme 'pgp'"),
    "no time": (["verify", "a.example/b:1", "--at", "yesterday"], "not an RFC 3339 time"),
    "no time zone": (["verify", "a.example/b:1", "--at", "2026-11-23T07:00:00"], "it has no time zone"),
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
