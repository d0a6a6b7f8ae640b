"""The advisory database is replaced whole or not at all, and never by what is none."""

from __future__ import annotations

import os
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from scanner.advisories import bolt, database, trivydb
from scanner.config import Settings
from scanner.demo import samples
from scanner.errors import AdvisoriesUnavailable, ConflictError, UsageError
from scanner.model.finding import Severity
from tests.scanner.registry.archives import header


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def make(directory: Path, age_hours: int = 0) -> Path:
    return trivydb.build(samples.ADVISORIES, directory, updated_at=datetime.now(UTC) - timedelta(hours=age_hours))


def test_none_is_said_with_what_to_do(settings: Settings) -> None:
    with pytest.raises(AdvisoriesUnavailable) as caught:
        database.status(settings)
    assert "advisories import" in caught.value.hint


def test_an_import_takes_the_former_ones_place(settings: Settings, tmp_path: Path) -> None:
    first = database.import_file(settings, make(tmp_path / "a", 48)).status()
    second = database.import_file(settings, make(tmp_path / "b")).status()
    assert database.status(settings) == second
    assert first.updated_at is not None
    assert second.updated_at is not None
    assert second.updated_at > first.updated_at
    assert len(list(settings.advisories_dir.glob("generation-*"))) == 2


def test_the_digest_of_a_database_is_not_computed_by_every_scan(settings: Settings, tmp_path: Path) -> None:
    """A database has half a gigabyte. Another one has another digest, and a planted digest is not believed."""
    first = database.import_file(settings, make(tmp_path / "a", 48))
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=1)):
        digest = database.status(settings).digest
        (kept,) = (settings.home / "derived").glob("*.sealed")
        assert digest is not None
        assert digest.hex.encode() in kept.read_bytes()
        kept.write_bytes(kept.read_bytes().replace(digest.hex.encode(), b"0" * 64))
        database._digest.cache_clear()
        assert database.status(settings).digest == digest == first.status().digest
        other = trivydb.build(samples.ADVISORIES[1:], tmp_path / "b", updated_at=datetime.now(UTC))
        second = database.import_file(settings, other)
        assert database.status(settings).digest == second.status().digest != digest


def test_a_scan_that_began_keeps_its_generation(settings: Settings, tmp_path: Path) -> None:
    begun = database.import_file(settings, make(tmp_path / "a"))
    database.import_file(settings, make(tmp_path / "b"))
    assert (begun.directory / "db" / "trivy.db").is_file()


def test_the_archive_that_trivy_publishes(settings: Settings, tmp_path: Path) -> None:
    base = make(tmp_path / "a")
    archive = tmp_path / "db.tar.gz"
    with tarfile.open(archive, "w:gz") as out:
        out.add(base / "db" / "trivy.db", "trivy.db")
        out.add(base / "db" / "metadata.json", "metadata.json")
    assert database.import_file(settings, archive).status().version == "2"


def test_an_archive_with_both_databases(settings: Settings, tmp_path: Path) -> None:
    """As a person packs the cache directory of Trivy. Both have a metadata.json."""
    base = make(tmp_path / "a")
    for names in (("db", "java-db"), ("java-db", "db")):
        archive = tmp_path / f"{names[0]}.tar.gz"
        with tarfile.open(archive, "w:gz") as out:
            for name in names:
                out.add(base / name, f"trivy/{name}")
        found = database.import_file(settings, archive)
        for file in ("db/trivy.db", "db/metadata.json", "java-db/trivy-java.db", "java-db/metadata.json"):
            assert (found.directory / file).read_bytes() == (base / file).read_bytes()
        assert {path.name for path in found.directory.iterdir()} == {"db", "java-db"}, "nothing else is left"


def broken(kind: str, tmp_path: Path) -> Path:
    base = make(tmp_path / "broken")
    db, metadata = base / "db" / "trivy.db", base / "db" / "metadata.json"
    if kind == "truncated":
        db.write_bytes(db.read_bytes()[: db.stat().st_size // 2])
    elif kind == "garbage":
        db.write_bytes(os.urandom(20_000))
    elif kind == "no metadata":
        metadata.unlink()
    elif kind == "other schema":
        metadata.write_text(metadata.read_text().replace('"Version":2', '"Version":9'))
    elif kind == "no date":
        metadata.write_text('{"Version": 2}')
    elif kind == "not an archive":
        db.write_text("text")
        return db
    elif kind == "nothing":
        return tmp_path / "nothing"
    return base


@pytest.mark.parametrize(
    "kind", ["truncated", "garbage", "no metadata", "other schema", "no date", "not an archive", "nothing"]
)
def test_what_is_none_changes_nothing(settings: Settings, tmp_path: Path, kind: str) -> None:
    live = database.import_file(settings, make(tmp_path / "a")).status()
    with pytest.raises(UsageError):
        database.import_file(settings, broken(kind, tmp_path))
    assert database.status(settings) == live
    assert not list(settings.advisories_dir.glob(".incoming-*"))


@pytest.mark.parametrize("kind", ["0", "x", "L", "g"])
@pytest.mark.parametrize("back", [1, 512, 1024])
def test_an_archive_that_points_back_at_itself_is_refused(
    settings: Settings, tmp_path: Path, kind: str, back: int
) -> None:
    """A negative size makes tarfile read the same member for ever (CVE-2025-8194): 2 KiB would hold a worker."""
    negative = b"\xff" + ((1 << 88) - back).to_bytes(11, "big")
    archive = tmp_path / "db.tar"
    archive.write_bytes(header("trivy.db") + header("x", kind, fields={124: negative}) + bytes(1024))
    with pytest.raises(UsageError):
        database.import_file(settings, archive)


def test_an_archive_of_too_many_members_is_refused(settings: Settings, tmp_path: Path) -> None:
    archive = tmp_path / "db.tar"
    archive.write_bytes(header("x") * 101 + bytes(1024))
    with pytest.raises(UsageError, match="too many"):
        database.import_file(settings, archive)


def test_one_at_a_time(settings: Settings, tmp_path: Path) -> None:
    settings.advisories_dir.mkdir(parents=True)
    with database.only_one(settings.advisories_dir), pytest.raises(ConflictError):
        database.import_file(settings, make(tmp_path / "a"))


def test_a_java_index_is_always_there(settings: Settings, tmp_path: Path) -> None:
    base = make(tmp_path / "a")
    (base / "java-db" / "trivy-java.db").unlink()
    generation = database.import_file(settings, base)
    assert (generation.directory / "java-db" / "trivy-java.db").is_file()


def test_the_writer_writes_what_it_is_given(tmp_path: Path) -> None:
    many = [
        trivydb.Advisory(f"CVE-2026-{n:05}", "debian 12", f"package-{n % 500}", Severity.LOW, "t" * 200, fixed="1")
        for n in range(5000)
    ]
    trivydb.build(many, tmp_path)
    with bolt.open_root_bucket(tmp_path / "db" / "trivy.db"):
        pass
    assert (tmp_path / "db" / "trivy.db").stat().st_size % bolt.PAGE == 0
