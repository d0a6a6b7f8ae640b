"""Commands of healthchecks: what cannot fail, or hides that it failed, says nothing."""

from __future__ import annotations

import pytest

from scanner.checks._healthchecks import why_useless

NEVER = ("", "  ", "true", "/bin/true", ":", "exit 0", "sh -c 'exit 0'", "echo ok", "sleep 1", "date")
HIDES = ("curl -f http://localhost || true", "curl x; exit 0", "wget -q x || echo down")


@pytest.mark.parametrize("command", NEVER)
def test_a_command_that_always_succeeds(command: str) -> None:
    assert why_useless(command).startswith("the healthcheck can never fail")


@pytest.mark.parametrize("command", HIDES)
def test_a_command_that_hides_its_failure(command: str) -> None:
    assert why_useless(command) == f"the healthcheck hides its own failure: {command}"


@pytest.mark.parametrize("command", ["curl -f http://localhost || exit 1", "pg_isready", "echo x | grep y", "exit 1"])
def test_a_command_that_can_fail(command: str) -> None:
    assert why_useless(command) == ""


def test_a_long_row_of_blanks_is_read_once() -> None:
    """In the pattern, a row of this length would take minutes."""
    assert why_useless(f"curl x ||echo{' ' * 200_000}&") == ""
    assert why_useless(f"curl x || true{'; ' * 100_000}") != ""
