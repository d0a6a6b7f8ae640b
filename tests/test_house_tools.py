"""Linters, types, import contracts and the coverage gate are tests: they fail here as they would for a reviewer."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["lint-imports"]],
    ids=lambda command: " ".join(command),
)
def test_tool_has_nothing_to_say(command: list[str]) -> None:
    done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def _report(covered: int, *paths: str) -> str:
    """A report of ``coverage json``: each file has 10 lines and 10 branches, ``covered`` of each covered."""
    summary = {"num_statements": 10, "covered_lines": covered, "num_branches": 10, "covered_branches": covered}
    return json.dumps({"files": {path: {"summary": summary} for path in paths}})


def _gate(directory: Path, report: str, *, total: int, room: int) -> subprocess.CompletedProcess[str]:
    (directory / "report.json").write_text(report)
    (directory / "pyproject.toml").write_text(
        f'[tool.coverage-gate]\ntotal = {total}\n[tool.coverage-gate.rooms]\n"scanner/policy" = {room}\n'
    )
    command = [sys.executable, ROOT / ".ci/coverage-gate", directory / "report.json", directory / "pyproject.toml"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_coverage_gate_opens_at_its_figure(tmp_path: Path) -> None:
    done = _gate(tmp_path, _report(9, "scanner/policy/rules.py", "web/auth.py"), total=90, room=90)
    assert done.returncode == 0, done.stderr
    assert "scanner/policy" in done.stdout


def test_the_coverage_gate_names_the_room_and_its_files(tmp_path: Path) -> None:
    done = _gate(tmp_path, _report(9, "scanner/policy/rules.py", "web/auth.py"), total=90, room=91)
    assert done.returncode == 1
    assert "scanner/policy misses 1 branches" in done.stderr
    assert "scanner/policy/rules.py" in done.stderr
    assert "web/auth.py" not in done.stderr


def test_the_coverage_gate_is_of_everything_too(tmp_path: Path) -> None:
    done = _gate(tmp_path, _report(8, "scanner/policy/rules.py", "web/auth.py"), total=81, room=80)
    assert done.returncode == 1
    assert "total misses 4 branches" in done.stderr


@pytest.mark.parametrize("path", ["web/auth.py", "scanner/policy_rules.py"])
def test_a_room_without_a_measured_file_does_not_pass(tmp_path: Path, path: str) -> None:
    """A room that was renamed would otherwise leave the gate unseen."""
    assert _gate(tmp_path, _report(10, path), total=90, room=90).returncode == 1


def _listed(name: str) -> list[str]:
    return (ROOT / ".ci/test").read_text().partition(f"\n{name}=(\n")[2].partition(")")[0].split()


def test_what_the_test_script_names_is_there() -> None:
    """A path that is gone would stop a side of the run, or run its tests on the other side."""
    named = _listed("measured") + _listed("extra")
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert len(set(named)) == len(named) > 10


def test_the_tests_of_every_room_with_a_gate_are_measured() -> None:
    rooms = [
        Path(room) for room in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage-gate"]["rooms"]
    ]
    own = [str("tests" / room.with_name(f"test_{room.name}") if room.suffix else "tests" / room) for room in rooms]
    assert set(own) <= set(_listed("measured"))


def test_what_is_not_measured_has_a_reason() -> None:
    for room in ("scanner", "web"):
        for file in (ROOT / room).rglob("*.py"):
            for number, line in enumerate(file.read_text().splitlines(), 1):
                _, excluded, reason = line.partition("pragma: no cover")
                assert not excluded or len(reason.strip(" -:#(").split()) >= 3, f"{file}:{number} needs its reason"
