"""Facts come back as they were kept, or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanner.model.filesystem import ContentMatch, FileEntry, FileType, LayerFacts, Oddity, PackageRecord
from scanner.model.reference import Digest
from scanner.registry.facts import FactsCache
from tests.scanner.registry.archives import archive, file, header, read, symlink

DIGEST, DIFF_ID = Digest.of(b"transported"), Digest.of(b"plain")
_text = st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape"))
_entry = st.builds(
    FileEntry,
    _text,
    st.sampled_from(FileType),
    st.integers(0, 0o7777),
    st.integers(0, 1 << 62),
    st.integers(0, 1 << 62),
    st.integers(0, 1 << 62),
    _text,
    st.binary(max_size=30),
    st.integers(-(1 << 62), 1 << 62),
)
_facts = st.builds(
    LayerFacts,
    st.just(DIFF_ID),
    st.integers(0, 1 << 40),
    st.lists(_entry, max_size=4).map(tuple),
    st.lists(_text, max_size=2).map(tuple),
    st.lists(_text, max_size=2).map(tuple),
    st.dictionaries(_text, st.binary(), max_size=2),
    st.lists(st.builds(Oddity, _text, _text, _text), max_size=2).map(tuple),
    st.lists(st.builds(ContentMatch, _text, _text, st.integers(0, 1 << 30), _text), max_size=2).map(tuple),
    records=st.dictionaries(_text, st.builds(PackageRecord, _text, _text, st.booleans()), max_size=2),
    owned_records=st.frozensets(_text, max_size=2),
)


@given(_facts)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_what_is_kept_comes_back(tmp_path: Path, facts: LayerFacts) -> None:
    cache = FactsCache(tmp_path / "facts")
    cache.put(facts, "w", DIGEST)
    assert cache.get(DIFF_ID, "w", DIGEST) == facts


def test_facts_of_a_layer(tmp_path: Path) -> None:
    facts = read(
        archive(
            file(b"caf\xe9", mode=0o4755),
            symlink("a", "b"),
            header("d", "4", device=(8, 0)),
            file("etc/passwd", b"x"),
            file(".wh.q"),
        )
    )
    FactsCache(tmp_path).put(facts, "w", DIGEST)
    assert FactsCache(tmp_path).get(facts.diff_id, "w", DIGEST) == facts


def test_every_part_of_the_key_counts(tmp_path: Path) -> None:
    cache = FactsCache(tmp_path)
    facts = LayerFacts(DIFF_ID, 0, ())
    cache.put(facts, "w", DIGEST)
    assert cache.get(DIFF_ID, "v", DIGEST) is None
    assert cache.get(Digest.of(b"x"), "w", DIGEST) is None
    assert cache.get(DIFF_ID, "w", Digest.of(b"x")) is None, "a diff_id alone is only a claim"


def test_a_damaged_file_is_a_miss(tmp_path: Path) -> None:
    cache = FactsCache(tmp_path)
    cache.put(read(archive(*(file(f"f{i}", b"x") for i in range(20)))), "w", DIGEST)
    (path,) = tmp_path.glob("*.facts")
    whole = path.read_bytes()
    diff_id = read(archive(*(file(f"f{i}", b"x") for i in range(20)))).diff_id
    assert cache.get(diff_id, "w", DIGEST) is not None
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        assert cache.get(diff_id, "w", DIGEST) is None
        path.write_bytes(whole[:position])
        assert cache.get(diff_id, "w", DIGEST) is None
    path.write_bytes(bytes(len(whole)))
    assert cache.get(diff_id, "w", DIGEST) is None


def test_the_least_recently_used_go(tmp_path: Path) -> None:
    cache = FactsCache(tmp_path, max_bytes=3000)
    kept = [LayerFacts(Digest.of(bytes([i])), 0, (), contents={"x": bytes(1000)}) for i in range(3)]
    for age, facts in enumerate(kept):
        cache.put(facts, "w", DIGEST)
        for path in tmp_path.glob("*.facts"):
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 100 + age))
    there = [cache.get(facts.diff_id, "w", DIGEST) is not None for facts in kept]
    assert there == [False, True, True]


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    left, fresh = tmp_path / ".old", tmp_path / ".new"
    for path in (left, fresh):
        path.write_bytes(b"half")
    os.utime(left, (0, 0))
    os.utime(fresh, (time.time(), time.time()))  # by the clock of this process, which a test run may shift
    FactsCache(tmp_path).put(LayerFacts(DIFF_ID, 0, ()), "w", DIGEST)
    assert (left.exists(), fresh.exists()) == (False, True)
