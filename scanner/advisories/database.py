"""The live advisory database: generations beside one another, one link that says which is in force.

A new database is copied in beside the live one, verified, and put in force by renaming the link; a scan that began
with the former one ends with it. Killing us at any moment leaves the former one in force. Two generations are kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import tarfile
import zlib
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
_FILES = {"db": ("trivy.db", "metadata.json"), "java-db": ("trivy-java.db", "metadata.json")}
_NAMES = ("trivy.db", "trivy-java.db", "metadata.json")
_CONTENT_SET = re.compile(rb"rhel-([0-9]+)-")
_OTHER_BUCKETS = (b"vulnerability", b"data-source", b"vulnerability-detail", b"vulnerability-id", b"Red Hat CPE")


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

    def holdings(self) -> Holdings:
        """What it has advisories for. Raises AdvisoriesUnavailable for a file that cannot be read."""
        file = self.directory / "db" / "trivy.db"
        try:
            stat = file.stat()
            return _holdings(file, stat.st_mtime_ns, stat.st_size)
        except (OSError, UsageError) as error:
            raise AdvisoriesUnavailable(
                f"the advisory database cannot be read: {error}", hint="dockwarden advisories import FILE"
            ) from error


@dataclass(frozen=True)
class Holdings:
    """What a database has advisories for: where an engine looks up anything else, finding nothing says nothing.

    ``sources``: names of the sources with at least one advisory, as trivy-db names them: "debian 12", "pip::GitHub
    Security Advisory Pip". ``rhel``: major releases that Red Hat's content sets are known of; the source "Red Hat"
    itself has no releases.
    """

    sources: frozenset[str] = frozenset()
    rhel: frozenset[str] = frozenset()

    def has(self, source: str) -> bool:
        """Whether the source is there; ``pip::`` with nothing behind it: any source of that ecosystem."""
        return (
            any(name.startswith(source) for name in self.sources) if source.endswith("::") else source in self.sources
        )


@lru_cache(maxsize=8)
def _holdings(file: Path, mtime: int, size: int) -> Holdings:
    with bolt.opened(file) as root:
        found = {
            name.decode("utf-8", "replace")
            for name, packages in root.items()
            if name not in _OTHER_BUCKETS and isinstance(packages, bolt.Bucket) and _holds_any(packages)
        }
        cpe = root.bucket(b"Red Hat CPE")
        sets = cpe.bucket(b"repository") if cpe else None
        majors = {
            match[1].decode() for name, _ in (sets.items() if sets else ()) if (match := _CONTENT_SET.match(name))
        }
    return Holdings(frozenset(found), frozenset(majors))


def _holds_any(packages: bolt.Bucket) -> bool:
    return any(isinstance(a, bolt.Bucket) and next(a.items(), None) is not None for _, a in packages.items())


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


def import_file(settings: Settings, source: Path, *, newer_only: bool = False) -> Generation:
    """Verify ``source`` and put it in force.

    ``source``: a directory with ``trivy.db`` and ``metadata.json`` (or ``db/`` holding them, and perhaps
    ``java-db/``), or the ``db.tar.gz`` or ``javadb.tar.gz`` that trivy-db and trivy-java-db publish. What a source
    does not hold is kept from the one in force. ``newer_only`` refuses a database built before the one in force: a
    mirror that went back in time would hide what became known since.

    Raises UsageError for what is no database, ConflictError while another import runs. Then the former one stays in
    force.
    """
    if not source.exists():
        raise UsageError(f"there is no file {source}")
    settings.advisories_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with only_one(settings.advisories_dir):
        fresh = settings.advisories_dir / f".incoming-{secrets.token_hex(8)}"
        try:
            _copy_in(source, fresh, _live(settings.advisories_dir))
            identity = _verify(Generation(fresh), _live(settings.advisories_dir) if newer_only else None)
            final = settings.advisories_dir / f"generation-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{identity.short}"
            fresh.rename(final)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        _put_in_force(settings.advisories_dir, final)
        _prune(settings.advisories_dir, final)
        return Generation(final)


def _live(directory: Path) -> Path | None:
    live = directory / "current"
    return live.resolve() if (live / "db" / "trivy.db").is_file() else None


def _copy_in(source: Path, fresh: Path, live: Path | None) -> None:
    (fresh / "db").mkdir(parents=True)
    (fresh / "java-db").mkdir()
    if source.is_dir():
        base = source / "db" if (source / "db" / "trivy.db").is_file() else source
        for name in _FILES["db"]:
            if not (base / name).is_file():
                raise UsageError(f"{source} holds no {name}", hint="a Trivy database is trivy.db and metadata.json")
            shutil.copyfile(base / name, fresh / "db" / name)
        for file in (source / "java-db").glob("*"):
            if file.name in _FILES["java-db"]:
                shutil.copyfile(file, fresh / "java-db" / file.name)
    else:
        _unpack(source, fresh)
    for part, names in _FILES.items():
        if not (fresh / part / names[0]).is_file() and live is not None and (live / part / names[0]).is_file():
            for name in names:
                os.link(live / part / name, fresh / part / name)
    if not (fresh / "db" / "trivy.db").is_file():
        raise UsageError(f"{source} holds no trivy.db", hint="import the vulnerability database first")
    if not (fresh / "java-db" / "trivy-java.db").is_file():
        trivydb.empty_java_database(fresh / "java-db")


def _unpack(source: Path, fresh: Path) -> None:
    """The files of an archive, by name: its own paths are never used."""
    part = "db"
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                name = Path(member.name).name
                part = next((p for p, names in _FILES.items() if name == names[0]), part)
                stream = archive.extractfile(member) if member.isreg() and name in _NAMES else None
                if stream is None:
                    continue
                if member.size > _MAX_DATABASE:
                    raise UsageError(f"{source}: {name} is larger than {_MAX_DATABASE >> 30} GiB")
                with (fresh / name).open("wb") as file:
                    shutil.copyfileobj(stream, file, 1 << 20)
                    file.flush()
                    os.fsync(file.fileno())
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UsageError(f"{source} is not a Trivy database archive: {error}") from error
    for name in _NAMES:
        if (fresh / name).is_file():
            (fresh / name).rename(fresh / part / name)


def _verify(generation: Generation, live: Path | None) -> Digest:
    """A whole bbolt file that can be read, a schema that we know, dates, and an answer that the file itself proves
    right.
    """
    try:
        found = generation.status()
        known_answer(generation.directory / "db" / "trivy.db")
        former = Generation(live).status() if live else None
    except (OSError, AdvisoriesUnavailable) as error:
        raise UsageError(f"the database cannot be used: {error}") from error
    if found.updated_at is None or found.digest is None:
        raise UsageError("the database does not say when it was built", hint="metadata.json must hold UpdatedAt")
    if former and former.updated_at and found.updated_at < former.updated_at:
        message = (
            f"it was built on {found.updated_at:%Y-%m-%d %H:%M}, before the one in force "
            f"({former.updated_at:%Y-%m-%d %H:%M})"
        )
        raise UsageError(message, reason="database_older", hint="to go back on purpose, import it as a file")
    return found.digest


def known_answer(file: Path) -> None:
    """Look one advisory up on the way that an engine takes: a source, a package of it, its advisory, the advisory's
    details.

    Raises UsageError where there is none to be found: a database that answers nothing would make every image look
    clean.
    """
    with bolt.opened(file) as root:
        details = root.bucket(b"vulnerability")
        for source, packages in root.items():
            if details is None or source in _OTHER_BUCKETS or not isinstance(packages, bolt.Bucket):
                continue
            for package, advisories in packages.items():
                names = [n for n, _ in advisories.items()] if isinstance(advisories, bolt.Bucket) else []
                again = packages.bucket(package)
                if names and again is not None and again.get(names[0]) and _is_object(details.get(names[0])):
                    return
    raise UsageError("the database holds no advisory that could be looked up", hint="download it again")


def _is_object(value: object) -> bool:
    return isinstance(value, bytes) and value.startswith(b"{") and value.endswith(b"}")


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
    for path in directory.glob(".link-*"):
        path.unlink(missing_ok=True)


def remove_former(settings: Settings, before: float, *, dry_run: bool = False) -> int:
    """Remove generations that have not been in force since that moment (seconds since 1970). Returns the bytes freed,
    or that would be.

    What is in force never goes, and nothing does while an import runs: it may link to files of the former generation.
    """
    directory = settings.advisories_dir
    live = directory / "current"
    # A generation is a former one since the link was put in force that names another.
    if not live.is_symlink() or live.lstat().st_mtime >= before:
        return 0
    freed = 0
    try:
        with only_one(directory):
            kept = {file.stat().st_ino for file in live.resolve().rglob("*") if file.is_file()}
            for path in directory.glob("generation-*"):
                if path == live.resolve():
                    continue
                files = [file.stat() for file in path.rglob("*") if file.is_file()]
                freed += sum(file.st_size for file in files if file.st_ino not in kept)
                if not dry_run:
                    shutil.rmtree(path, ignore_errors=True)
    except ConflictError:
        return 0
    return freed


@contextmanager
def only_one(directory: Path, name: str = ".lock") -> Iterator[None]:
    """One at a time across the processes that share this directory; the lock ends with its process."""
    with (directory / name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError("another update of the advisories is running", reason="update_running") from None
        yield
