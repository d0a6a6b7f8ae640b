"""Blobs appear whole or not at all, and stay while somebody needs them."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.errors import ImageError, LimitExceeded, ScannerError
from scanner.model.reference import Digest
from scanner.registry import blobs
from scanner.registry.blobs import BlobStore

DATA = b"some layer" * 100
DIGEST = Digest.of(DATA)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs", 2500)


def files(store: BlobStore) -> list[str]:
    return sorted(
        str(p.relative_to(store.directory)) for p in store.directory.rglob("*") if p.is_file() and p.name != ".lock"
    )


def aged(store: BlobStore, data: bytes, seconds: float) -> Digest:
    digest = store.put(data)
    then = store.path(digest).stat().st_mtime - seconds
    os.utime(store.path(digest), (then, then))
    return digest


def test_put_and_read(store: BlobStore) -> None:
    assert not store.has(DIGEST)
    with pytest.raises(KeyError):
        store.open(DIGEST)
    assert store.put(DATA) == store.put(DATA) == DIGEST
    assert store.has(DIGEST)
    with store.open(DIGEST) as file:
        assert file.read() == DATA
    assert store.path(DIGEST).stat().st_mode & 0o777 == 0o600
    assert {d.stat().st_mode & 0o777 for d in (store.path(DIGEST).parent, store.directory)} == {0o700}
    assert files(store) == [f"sha256/{DIGEST.hex}"]


def test_sha512(store: BlobStore) -> None:
    digest = Digest("sha512:" + hashlib.sha512(DATA).hexdigest())
    with store.writer(digest, len(DATA)) as writer:
        writer.write(memoryview(DATA))
    assert store.has(digest)


def test_other_bytes_leave_nothing(store: BlobStore) -> None:
    with pytest.raises(ImageError) as caught, store.writer(DIGEST, 10_000) as writer:
        writer.write(DATA + b"!")
    assert caught.value.reason == "digest_mismatch"
    assert files(store) == []


def test_too_many_bytes_leave_nothing(store: BlobStore) -> None:
    with pytest.raises(LimitExceeded), store.writer(DIGEST, len(DATA) - 1) as writer:
        writer.write(DATA)
    assert files(store) == []


def test_an_error_of_the_writer_leaves_nothing(store: BlobStore) -> None:
    def broken() -> Iterator[bytes]:
        yield DATA
        raise RuntimeError

    with pytest.raises(RuntimeError), store.writer(DIGEST, 10_000, verified_by_caller=True) as writer:
        writer.write(b"".join(broken()))
    assert files(store) == []


def test_a_full_disk_is_nobodys_image(store: BlobStore) -> None:
    """A limit on the size of files fails as a full disk does: in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        with pytest.raises(ScannerError) as caught, store.writer(DIGEST, 10_000) as writer:
            writer.write(DATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    assert (caught.value.reason, caught.value.retryable) == ("storage_full", True)
    assert files(store) == []


def test_the_least_recently_used_go_first(store: BlobStore) -> None:
    old, newer, new = (aged(store, bytes([i]) * 1000, 300 - 100 * i) for i in range(3))
    assert store.has(old), "which counts as a use"
    assert store.evict() == 1000
    assert [store.path(d).exists() for d in (old, newer, new)] == [True, False, True]


def test_what_is_pinned_stays(store: BlobStore) -> None:
    old, newer, new = (aged(store, bytes([i]) * 1000, 300 - 100 * i) for i in range(3))
    with store.pin([old]):
        BlobStore(store.directory, 1000).evict()
        assert [store.path(d).exists() for d in (old, newer, new)] == [True, False, False]
    assert not list((store.directory / "pins").iterdir())


def test_the_end_of_a_pin_brings_the_store_to_its_size(store: BlobStore) -> None:
    with pytest.raises(LimitExceeded), store.pin([DIGEST]):
        _too_much(store)
    assert len(files(store)) == 2


def _too_much(store: BlobStore) -> None:
    for i in range(5):
        store.put(bytes([i]) * 1000)
    raise LimitExceeded("a scan that fails")


_CHILD = """
import sys, time
from pathlib import Path
from scanner.model.reference import Digest
from scanner.registry.blobs import BlobStore
store = BlobStore(Path(sys.argv[1]), 0)
with store.pin([Digest(sys.argv[2])]), store.writer(Digest.of(b"never"), 100) as writer:
    writer.write(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_holds_nothing(store: BlobStore) -> None:
    digest = store.put(DATA)
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(store.directory), digest], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        empty = BlobStore(store.directory, 0)
        assert empty.evict() == 0
        assert store.has(digest), "another process has pinned it"
        assert len(list((store.directory / "partial").iterdir())) == 1, "and writes something"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    assert empty.evict() == len(DATA)
    assert files(store) == []


def test_what_nobody_used_for_long_is_removed_and_what_is_pinned_stays(store: BlobStore) -> None:
    old, pinned, new = aged(store, b"old" * 10, 1000), aged(store, b"pinned" * 10, 1000), store.put(b"new" * 10)
    before = store.path(new).stat().st_mtime - 500
    with store.pin([pinned]):
        assert store.remove_unused(before, dry_run=True) == 30
        assert store.has(old) and store.path(old).exists()
        os.utime(store.path(old), (0, 0))
        assert store.remove_unused(before) == 30
    assert [store.has(digest) for digest in (old, pinned, new)] == [False, True, True]


def test_a_fault_that_is_no_full_disk_keeps_its_name(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.path(DIGEST).mkdir()  # a directory where the blob belongs: the rename fails
    with pytest.raises(IsADirectoryError), store.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA)
    assert list((store.directory / "partial").iterdir()) == []


@pytest.fixture
def passing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    """The store of a command that does not wait for the disk."""
    monkeypatch.setattr(blobs, "boot_of_machine", lambda: "first")
    return BlobStore(tmp_path / "blobs", 2500, lasting=False)


def test_a_command_does_not_wait_for_the_disk(passing: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    passing.put(DATA)
    assert not synced
    assert files(passing) == [f"unsynced/first/sha256/{DIGEST.hex}"]
    assert passing.path(DIGEST).read_bytes() == DATA
    assert {path.stat().st_mode & 0o777 for path in (passing.directory / "unsynced").rglob("*") if path.is_dir()} == {
        0o700
    }
    with passing.open(DIGEST) as file:
        assert file.read() == DATA


@pytest.mark.parametrize("lasting", [True, False], ids=["server", "command"])
def test_the_next_scan_asks_whether_a_blob_is_on_disk(
    passing: BlobStore, lasting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing.put(DATA)
    path = passing.path(DIGEST)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    later = BlobStore(passing.directory, 2500, lasting=lasting)
    assert later.has(DIGEST) and later.has(DIGEST)
    assert len(synced) == 1
    assert later.path(DIGEST) == later.directory / "sha256" / DIGEST.hex
    assert path.exists(), "the first scan may be about to link it"
    with later.pin([DIGEST]):
        assert later.evict() == 0
        assert path.exists()
    assert files(later) == [f"sha256/{DIGEST.hex}"]


def test_a_blob_that_did_not_reach_the_disk_is_not_there(passing: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    passing.put(DATA)
    monkeypatch.setattr(os, "fsync", fails)
    assert not passing.has(DIGEST)
    assert files(passing) == []


def test_what_was_not_synced_before_a_crash_of_the_machine_is_not_used(
    passing: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing.put(DATA)
    monkeypatch.setattr(blobs, "boot_of_machine", lambda: "second")
    for lasting in (True, False):
        after = BlobStore(passing.directory, 2500, lasting=lasting)
        assert not after.has(DIGEST)
        assert not after.path(DIGEST).exists()
    after.evict()
    assert files(after) == []
    assert not list((after.directory / "unsynced").iterdir())


def test_unsynced_blobs_are_evicted_and_aged_like_others(passing: BlobStore) -> None:
    old, newer, new = (aged(passing, bytes([i]) * 1000, 300 - 100 * i) for i in range(3))
    with passing.pin([old]):
        assert passing.evict() == 1000
    assert [passing.path(d).exists() for d in (old, newer, new)] == [True, False, True]
    assert passing.remove_unused(passing.path(new).stat().st_mtime) == 1000
    assert [passing.path(d).exists() for d in (old, newer, new)] == [False, False, True]


def test_a_machine_whose_boot_has_no_name_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "boot_of_machine", lambda: "")
    store = BlobStore(tmp_path / "blobs", 2500, lasting=False)
    store.put(DATA)
    assert files(store) == [f"sha256/{DIGEST.hex}"]
