"""Work directories: gone with the work, gone with a killed owner, and never taken from a living one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from scanner.config import Settings
from scanner.registry.work_directories import sweep, work_directory

OWNER = """
import sys, time
from pathlib import Path
from scanner.config import Settings
from scanner.registry.work_directories import work_directory
with work_directory(Settings(home=Path(sys.argv[1])), "scan") as work:
    (work / "layout").mkdir()
    (work / "layout" / "blob").write_bytes(b"x")
    (work / "layout").chmod(0o500)
    print(work, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(Settings(), home=tmp_path)


def test_it_is_gone_after_the_block_whatever_an_engine_did_to_it(settings: Settings) -> None:
    with work_directory(settings, "scan") as work:
        (work / "a" / "b").mkdir(parents=True)
        (work / "a" / "b" / "c").touch()
        (work / "a").chmod(0)
    assert list(settings.work_dir.iterdir()) == []


def test_what_lives_stays_and_what_a_killed_process_left_goes(settings: Settings) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(settings.home)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    try:
        assert owner.stdout is not None
        theirs = Path(owner.stdout.readline().decode().strip())
        with work_directory(settings, "sbom") as ours:
            assert sweep(settings) == 0
            assert ours.exists()
            assert theirs.exists()
            owner.send_signal(signal.SIGKILL)
            owner.wait(30)
            assert sweep(settings) == 1
            assert ours.exists()
            assert not theirs.exists()
    finally:
        owner.kill()
        owner.wait(30)
        owner.stdout.close() if owner.stdout else None


def test_what_an_older_version_left_goes_too(settings: Settings, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").touch()
    settings.work_dir.mkdir(parents=True)
    (settings.work_dir / "tmpabc.tar").touch()
    (settings.work_dir / "scan-old").mkdir()
    (settings.work_dir / "link").symlink_to(outside)
    os.mkfifo(settings.work_dir / "pipe")
    assert sweep(settings) == 4
    assert list(settings.work_dir.iterdir()) == []
    assert (outside / "keep").exists()


def test_making_and_sweeping_at_once(settings: Settings) -> None:
    over = threading.Event()

    def sweeper() -> None:
        while not over.is_set():
            sweep(settings)

    thread = threading.Thread(target=sweeper)
    thread.start()
    try:
        for _ in range(300):
            with work_directory(settings, "scan") as work:
                (work / "file").touch()
                assert (work / "file").exists()
    finally:
        over.set()
        thread.join(30)


def test_nothing_to_sweep(settings: Settings) -> None:
    assert sweep(settings) == 0


def _leave(home: Path) -> None:
    """What a scan of an engine leaves, by a user whom permissions bind."""
    if os.getuid() == 0:
        os.setuid(65534)
    with work_directory(Settings(home=home), "scan") as work:
        (work / "a" / "b").mkdir(parents=True)
        (work / "a" / "b" / "c").touch()
        (work / "elsewhere").symlink_to(home / "kept")
        (work / "a" / "b").chmod(0)
        (work / "a").chmod(0)


def test_directories_without_permissions_go_also_if_the_owner_is_not_root() -> None:
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        home.chmod(0o777)
        (home / "kept").mkdir(mode=0o755)
        if os.getuid() == 0:
            os.chown(home / "kept", 65534, 65534)
        child = multiprocessing.get_context("fork").Process(target=_leave, args=(home,))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert list(Settings(home=home).work_dir.iterdir()) == []
        assert (home / "kept").stat().st_mode & 0o777 == 0o755
