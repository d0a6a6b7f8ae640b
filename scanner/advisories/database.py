"""The live advisory database: generations beside one another, one link that says which is in force.

A new database is copied in beside the live one, verified, and put in force by renaming the link; a scan that began with the
former one ends with it. Killing us at any moment leaves the former one in force. Two generations are kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from scanner.advisories import bolt, trivydb
from scanner.config import Settings
from scanner.errors import AdvisoriesUnavailable, ConflictError, UsageError
from scanner.model.finding import AdvisoryStatus
from scanner.model.reference import Digest
from scanner.model.untrusted import load_untrusted_json
from scanner.registry.manifest import parse_time

_MAX_DATABASE = 8 << 30
_KEEP = 2
_SCHEMA = 2


@dataclass(frozen=True)
class Generation:
    """One database: ``directory`` holds ``db/`` and ``java-db/``, and is never changed after it was put in force."""

    directory: Path

    def status(self) -> AdvisoryStatus:
        """Version and dates as its metadata says. Raises AdvisoriesUnavailable when that cannot be read."""
        file = self.directory / "db" / "metadata.json"
        try:
            document = load_untrusted_json(file.read_bytes(), limit=1 << 16, error=AdvisoriesUnavailable)
            database = self.directory / "db" / "trivy.db"
            digest = _digest(database, database.stat().st_mtime_ns, database.stat().st_size)
        except OSError as error:
            raise AdvisoriesUnavailable(
                "the advisory database is incomplete", hint="dockwarden advisories import FILE"
            ) from error
        if not isinstance(document, dict) or document.get("Version") != _SCHEMA:
            raise AdvisoriesUnavailable("the advisory database has a schema that we do not know")
        return AdvisoryStatus(
            source="trivy-db",
            version=str(document["Version"]),
            updated_at=parse_time(document.get("UpdatedAt")),
            downloaded_at=parse_time(document.get("DownloadedAt")),
            next_update=parse_time(document.get("NextUpdate")),
            digest=digest,
        )


@lru_cache(maxsize=8)
def _digest(file: Path, mtime: int, size: int) -> Digest:
    with file.open("rb") as stream:
        return Digest("sha256:" + hashlib.file_digest(stream, "sha256").hexdigest())


def current(settings: Settings) -> Generation:
    """The database in force. Raises AdvisoriesUnavailable where there is none, with what to do."""
    directory = settings.advisories_dir
    live = directory / "current"
    found = live.resolve() if live.is_symlink() else directory if (directory / "db" / "trivy.db").is_file() else None
    if found is None or not (found / "db" / "trivy.db").is_file():
        raise AdvisoriesUnavailable(
            "there is no advisory database",
            hint="dockwarden advisories import FILE (trivy-db as db.tar.gz, or a directory)",
        )
    if not (found / "java-db" / "trivy-java.db").is_file() and os.access(found, os.W_OK):
        trivydb.empty_java_database(found / "java-db")
    return Generation(found.absolute())


def status(settings: Settings) -> AdvisoryStatus:
    """What is in force. Raises AdvisoriesUnavailable."""
    return current(settings).status()


def import_file(settings: Settings, source: Path) -> Generation:
    """Verify ``source`` and put it in force.

    ``source``: a directory with ``trivy.db`` and ``metadata.json`` (or ``db/`` holding them, and perhaps ``java-db/``), or the
    ``db.tar.gz`` that trivy-db publishes. Raises UsageError for what is neither, ConflictError while another import runs.
    """
    if not source.exists():
        raise UsageError(f"there is no file {source}")
    settings.advisories_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_one(settings.advisories_dir):
        fresh = settings.advisories_dir / f".incoming-{secrets.token_hex(8)}"
        try:
            _copy_in(source, fresh)
            generation = Generation(fresh)
            identity = _verify(generation)
            final = settings.advisories_dir / f"generation-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{identity.short}"
            fresh.rename(final)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        _put_in_force(settings.advisories_dir, final)
        _prune(settings.advisories_dir, final)
        return Generation(final)


def _copy_in(source: Path, fresh: Path) -> None:
    (fresh / "db").mkdir(parents=True)
    if source.is_dir():
        base = source / "db" if (source / "db" / "trivy.db").is_file() else source
        for name in ("trivy.db", "metadata.json"):
            if not (base / name).is_file():
                raise UsageError(f"{source} holds no {name}", hint="a Trivy database is trivy.db and metadata.json")
            shutil.copyfile(base / name, fresh / "db" / name)
        java = source / "java-db"
        if (java / "trivy-java.db").is_file():
            shutil.copytree(java, fresh / "java-db")
    else:
        _unpack(source, fresh / "db")
    if not (fresh / "java-db").is_dir():
        trivydb.empty_java_database(fresh / "java-db")


def _unpack(source: Path, directory: Path) -> None:
    """The two files of ``db.tar.gz``, by name: an archive's own paths are never used. An administrator chose this file."""
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                name = Path(member.name).name
                stream = (
                    archive.extractfile(member) if member.isreg() and name in ("trivy.db", "metadata.json") else None
                )
                if stream is None:
                    continue
                if member.size > _MAX_DATABASE:
                    raise UsageError(f"{source}: {name} is larger than {_MAX_DATABASE >> 30} GiB")
                with (directory / name).open("wb") as file:
                    shutil.copyfileobj(stream, file)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UsageError(f"{source} is not a Trivy database archive: {error}") from error


def _verify(generation: Generation) -> Digest:
    """A whole bbolt file, a schema that we know, dates that can be read."""
    try:
        bolt.check(generation.directory / "db" / "trivy.db")
        found = generation.status()
    except (OSError, AdvisoriesUnavailable) as error:
        raise UsageError(f"the database cannot be used: {error}") from error
    if found.updated_at is None or found.digest is None:
        raise UsageError("the database does not say when it was built", hint="metadata.json must hold UpdatedAt")
    return found.digest


def _put_in_force(directory: Path, generation: Path) -> None:
    link = directory / f".link-{secrets.token_hex(8)}"
    link.symlink_to(generation.name)
    os.replace(link, directory / "current")


def _prune(directory: Path, live: Path) -> None:
    others = sorted(path for path in directory.glob("generation-*") if path != live)
    for path in others[: max(0, len(others) - (_KEEP - 1))]:
        shutil.rmtree(path, ignore_errors=True)
    for path in directory.glob(".incoming-*"):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """One updater at a time across processes; the lock ends with its process."""
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError("another update of the advisories is running") from None
        yield
