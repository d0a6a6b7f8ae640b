"""State on the disk: its owner's alone, whoever makes it, and nothing of anybody else's touched."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from scanner.cli import main
from scanner.config import Settings, keep_private
from scanner.store.session import Database


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(autouse=True)
def generous_umask() -> object:
    former = os.umask(0)
    yield None
    os.umask(former)


def test_a_new_home_and_its_database_are_closed(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "deep" / "var")
    database = Database.of(settings)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE a (b)")
        assert mode(settings.home / "dockwarden.db-wal") == 0o600
    database.engine.dispose()
    assert mode(settings.home) == 0o700
    assert mode(settings.home / "dockwarden.db") == 0o600


def test_what_was_left_open_is_closed(tmp_path: Path) -> None:
    home = tmp_path / "var"
    (home / "blobs").mkdir(parents=True)
    (home / "dockwarden.db").touch()
    (home / "elsewhere").symlink_to(tmp_path)
    before = mode(tmp_path)
    keep_private(home)
    assert [mode(path) for path in (home, home / "blobs", home / "dockwarden.db")] == [0o700, 0o700, 0o600]
    assert mode(tmp_path) == before, "a link was followed"


def test_a_directory_that_everybody_shares_is_left_alone(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "theirs").touch()
    keep_private(shared)
    assert mode(shared) == 0o1777
    assert mode(shared / "theirs") == 0o666


def test_a_command_closes_its_state_and_not_the_report(
    tmp_path: Path, sample_layouts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.umask(0o022)
    monkeypatch.setenv("DOCKWARDEN_HOME", str(tmp_path / "var"))
    report = tmp_path / "report.json"
    with pytest.raises(SystemExit):
        main(["scan", f"oci:{sample_layouts / 'shop/good'}", "--format", "json", "-o", str(report)])
    made = list((tmp_path / "var").rglob("*"))
    assert made
    assert {str(path): oct(mode(path)) for path in made if mode(path) & 0o077 and not path.is_symlink()} == {}
    assert mode(report) == 0o644
    assert os.umask(0o022) == 0o022, "the caller's own umask is back"
