"""``dockwarden db prune``: says what would go, then removes it, and the audit log verifies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scanner.cli import cli
from scanner.config import load
from scanner.errors import UsageError
from scanner.model.audit import Action
from scanner.store import audit, jobs
from scanner.store.session import Database
from tests.scanner.store import factories, recorded

SOON = {f"DOCKWARDEN_RETENTION_{name}": "1s" for name in ("SCANS", "EVIDENCE", "DECISIONS", "OUTBOX")}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("DOCKWARDEN_HOME", str(tmp_path))
    return lambda *arguments, **settings: CliRunner().invoke(cli, ["db", *arguments], env=settings)


def figures(output: str) -> dict[str, int]:
    """Rows by label."""
    lines = [line for line in output.splitlines() if " row" in line]
    return {line[:46].strip(): int(line[46:].split()[0]) for line in lines}


def test_a_dry_run_says_what_goes_and_removes_nothing(run: Callable[..., Result]) -> None:
    assert run("upgrade").exit_code == 0
    database = Database.of(load())
    for number in (1, 2):
        recorded.record(database, factories.report(f"i{number}", packages=[factories.package(number)]))
    with database.session() as session:
        session.exec_driver_sql("UPDATE listing SET scanned_at = '2025-01-01 00:00:00'")
        session.exec_driver_sql("UPDATE tag_move SET seen_at = '2025-01-01 00:00:00'")
        session.exec_driver_sql("UPDATE outbox SET created_at = '2025-01-01 00:00:00'")
    planned = run("prune", "--dry-run", **SOON)
    assert planned.exit_code == 0
    assert "would be removed" in planned.stderr
    assert figures(planned.stdout)["Images without a tag or workload"] == 1
    with database.read() as session:
        assert jobs.list_jobs(session, [jobs.RETENTION]) == ()
    again = run("prune", "--dry-run", **SOON)
    assert figures(again.stdout)["Images without a tag or workload"] == 1
    done = run("prune", **SOON)
    assert done.exit_code == 0, done.output
    assert figures(done.stdout)["Images without a tag or workload"] == 1
    with database.read() as session:
        (entry,) = audit.list_entries(session, audit.Filter(action=Action.RETENTION_PRUNE)).items
    assert (entry.actor, entry.detail["removed"]["listing"]) == ("command line", 1)
    verified = CliRunner().invoke(cli, ["audit-log", "verify"])
    assert verified.exit_code == 0


def test_a_period_that_is_none_is_refused_before_anything_is_done(run: Callable[..., Result]) -> None:
    refused = run("prune", DOCKWARDEN_RETENTION_SCANS="90").exception
    assert isinstance(refused, UsageError)
    assert "DOCKWARDEN_RETENTION_SCANS" in str(refused)
    assert "90d" in refused.hint
