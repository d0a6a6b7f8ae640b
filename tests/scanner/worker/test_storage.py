"""Files that may go: layers that no scan used for long, and advisories that are in force no more."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from scanner.advisories import database
from scanner.config import Retention, Settings
from scanner.registry.blobs import BlobStore
from scanner.worker.storage import prune_files

DAY = 86400.0


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.mark.real_clock  # the kernel dates files by its own clock
def test_layers_that_no_scan_used_go_and_what_one_uses_stays(own: Settings) -> None:
    blobs = BlobStore(own.blobs_dir, 1 << 20)
    old, pinned, fresh = (blobs.put(name) for name in (b"old!", b"pinned", b"fresh"))
    for digest in (old, pinned):
        os.utime(blobs.path(digest), (time.time() - 40 * DAY,) * 2)
    with blobs.pin([pinned]):
        assert prune_files(own, dry_run=True) == {"blobs": 4}
        assert blobs.path(old).exists()
        assert prune_files(own) == {"blobs": 4}
        assert [blobs.path(digest).exists() for digest in (old, pinned, fresh)] == [False, True, True]


def test_layers_are_kept_for_ever_where_it_was_set(own: Settings) -> None:
    blobs = BlobStore(own.blobs_dir, 1 << 20)
    digest = blobs.put(b"old")
    kept = Settings(home=own.home, retention_blobs=Retention())
    assert prune_files(kept, now=time.time() + 1000 * DAY) == {}
    assert blobs.path(digest).exists()


@pytest.mark.real_clock  # the kernel dates files by its own clock
def test_the_advisories_before_those_in_force_go(own: Settings, sample_layouts: Path) -> None:
    former = database.import_file(own, sample_layouts / "advisories")
    live = database.import_file(own, sample_layouts / "advisories")
    assert prune_files(own) == {}, "they were in force a moment ago"
    later = time.time() + 31 * DAY
    planned = prune_files(own, now=later, dry_run=True)
    assert planned["advisories"] > 0
    assert former.directory.is_dir()
    assert prune_files(own, now=later) == planned
    assert not former.directory.exists()
    assert database.current(own).directory == live.directory
    assert prune_files(own, now=later) == {}


def test_a_home_without_files_is_left_as_it_is(own: Settings) -> None:
    assert prune_files(own) == {}
    assert not own.home.exists()
