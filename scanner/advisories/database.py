"""The live advisory database: generations beside one another, and a link to the one in use.

A new database is copied beside the live one, verified, and activated by renaming the link. A scan that started with the
former one finishes with it. If the process is killed at any moment, the former one stays in use. Two generations are
kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from scanner.config import Settings
from scanner.errors import AdvisoriesUnavailable, ConflictError, UsageError
from scanner.lazy_dataclasses import dataclass
from scanner.model.finding import AdvisoryStatus
from scanner.model.reference import Digest
from scanner.model.untrusted import load_untrusted_json
from scanner.patterns import lazy
from scanner.registry.manifest import parse_time
from scanner.sealed import derived_files

if TYPE_CHECKING:
    from scanner.advisories import bolt

_MAX_MEMBERS = 100
_MAX_DATABASE = 8 << 30  # bytes, uncompressed: several times the largest database so far
_KEEP = 2  # directories: the one in use, and the one before for scans that still read it
_SCHEMA = 2  # Of Trivy's metadata.json. Another is refused: its meaning is unknown.
_FILES = {"db": ("trivy.db", "metadata.json"), "java-db": ("trivy-java.db", "metadata.json")}
_NAMES = ("trivy.db", "trivy-java.db", "metadata.json")
# The major release is part of the names of Red Hat's repositories.
_CONTENT_SET = lazy(rb"rhel-([0-9]+)-")
_OTHER_BUCKETS = (b"vulnerability", b"data-source", b"vulnerability-detail", b"vulnerability-id", b"Red Hat CPE")


@dataclass(frozen=True)
class Generation:
    """One database: ``directory`` has ``db/`` and ``java-db/``, and never changes after its activation."""

    directory: Path
    home: Path | None = field(default=None, compare=False, repr=False)  # remembers the digest of the database

    def status(self) -> AdvisoryStatus:
        """Version and dates from its metadata. Raises AdvisoriesUnavailable if the metadata is unreadable."""
        file = self.directory / "db" / "metadata.json"
        try:
            document = load_untrusted_json(file.read_bytes(), limit=1 << 16, error=AdvisoriesUnavailable)
            database = self.directory / "db" / "trivy.db"
            digest = _digest(database, database.stat().st_mtime_ns, database.stat().st_size, self.home)
        except OSError as error:
            raise AdvisoriesUnavailable(
                "the advisory database is incomplete", hint="dockwarden advisories import FILE"
            ) from error
        if not isinstance(document, dict) or document.get("Version") != _SCHEMA:
            raise AdvisoriesUnavailable("the advisory database has an unknown schema version")
        return AdvisoryStatus(
            source="trivy-db",
            version=str(document["Version"]),
            updated_at=parse_time(document.get("UpdatedAt")),
            downloaded_at=parse_time(document.get("DownloadedAt")),
            next_update=parse_time(document.get("NextUpdate")),
            digest=digest,
        )

    def holdings(self) -> Holdings:
        """The sources with advisories. Raises AdvisoriesUnavailable if the file is unreadable."""
        file = self.directory / "db" / "trivy.db"
        try:
            stat = file.stat()
            return _holdings(file, stat.st_mtime_ns, stat.st_size)
        except (OSError, UsageError) as error:
            raise _unreadable(error) from error

    def advised(self, source: str, names: Iterable[str]) -> frozenset[str]:
        """The names for which a source has advisories. Raises as `holdings`."""
        from scanner.advisories import bolt

        try:
            with bolt.open_root_bucket(self.directory / "db" / "trivy.db") as root:
                packages = root.bucket(source.encode())
                return frozenset(name for name in names if packages and packages.bucket(name.encode()))
        except (OSError, UsageError) as error:
            raise _unreadable(error) from error


def _unreadable(error: Exception) -> AdvisoriesUnavailable:
    return AdvisoriesUnavailable(
        f"the advisory database cannot be read: {error}", hint="dockwarden advisories import FILE"
    )


@dataclass(frozen=True)
class Holdings:
    """The sources for which a database has advisories. For other sources, no findings prove nothing.

    ``sources``: sources with at least one advisory, in trivy-db's names: "debian 12", "pip::GitHub Security Advisory
    Pip". ``rhel``: major releases that occur in Red Hat's content sets, because the source "Red Hat" has no releases.
    """

    sources: frozenset[str] = frozenset()
    rhel: frozenset[str] = frozenset()

    def has(self, source: str) -> bool:
        """True if the source exists; with a name that ends in ``::``, any source of that ecosystem."""
        return (
            any(name.startswith(source) for name in self.sources) if source.endswith("::") else source in self.sources
        )


@lru_cache(maxsize=8)
def _holdings(file: Path, mtime: int, size: int) -> Holdings:
    from scanner.advisories import bolt

    with bolt.open_root_bucket(file) as root:
        found = {
            name.decode("utf-8", "replace")
            for name, packages in root.items()
            if name not in _OTHER_BUCKETS and isinstance(packages, bolt.Bucket) and _holds_any(packages)
        }
        cpe = root.bucket(b"Red Hat CPE")
        sets = cpe.bucket(b"repository") if cpe else None
        # Red Hat's advisories are one source for all releases. Which releases it covers shows only in the content
        # sets.
        majors = {
            match[1].decode() for name, _ in (sets.items() if sets else ()) if (match := _CONTENT_SET.match(name))
        }
    return Holdings(frozenset(found), frozenset(majors))


def _holds_any(packages: bolt.Bucket) -> bool:
    from scanner.advisories import bolt

    return any(isinstance(a, bolt.Bucket) and next(a.items(), None) is not None for _, a in packages.items())


@lru_cache(maxsize=8)
def _digest(file: Path, mtime: int, size: int, home: Path | None) -> Digest:
    def find() -> bytes:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest().encode()

    # Half a gigabyte: hashing it takes longer than a scan of an unchanged image.
    found = derived_files(home).about("database", file, find) if home else find()
    return Digest(f"sha256:{found.decode()}")


def current(settings: Settings) -> Generation:
    """Return the database in use. Raises AdvisoriesUnavailable, with a hint, if there is none."""
    directory = settings.advisories_dir
    live = directory / "current"
    found = live.resolve() if live.is_symlink() else directory if (directory / "db" / "trivy.db").is_file() else None
    if found is None or not (found / "db" / "trivy.db").is_file():
        raise AdvisoriesUnavailable(
            "there is no advisory database",
            hint="dockwarden advisories import FILE; see docs/advisories.md",
        )
    if not (found / "java-db" / "trivy-java.db").is_file() and os.access(found, os.W_OK):
        from scanner.advisories import trivydb

        trivydb.empty_java_database(found / "java-db")
    return Generation(found.absolute(), settings.home)


def status(settings: Settings) -> AdvisoryStatus:
    """Status of the database in use. Raises AdvisoriesUnavailable."""
    return current(settings).status()


def import_file(settings: Settings, source: Path, *, newer_only: bool = False) -> Generation:
    """Verify ``source`` and activate it.

    ``source``: a directory with ``trivy.db`` and ``metadata.json`` (or ``db/`` with these, and optionally
    ``java-db/``), or the ``db.tar.gz`` or ``javadb.tar.gz`` that trivy-db and trivy-java-db publish. Parts that
    ``source`` does not have are kept. ``newer_only`` refuses a database that is older than the one in use: a mirror
    that goes back in time would hide newly known vulnerabilities.

    Raises UsageError if it is not a database, ConflictError while another import runs. The former one then stays in
    use.
    """
    if not source.exists():
        raise UsageError(f"there is no file {source}")
    import shutil

    settings.advisories_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Two imports at once would each prune what the other has just written.
    with only_one(settings.advisories_dir):
        fresh = settings.advisories_dir / f".incoming-{os.urandom(8).hex()}"
        try:
            _copy_in(source, fresh, _live(settings.advisories_dir))
            identity = _verify(Generation(fresh), _live(settings.advisories_dir) if newer_only else None)
            final = settings.advisories_dir / f"generation-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{identity.short}"
            # Under another name until it is verified and complete: a killed import leaves a directory that nothing
            # reads.
            fresh.rename(final)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        _activate(settings.advisories_dir, final)
        _prune(settings.advisories_dir, final)
        return Generation(final)


def _live(directory: Path) -> Path | None:
    live = directory / "current"
    return live.resolve() if (live / "db" / "trivy.db").is_file() else None


def _copy_in(source: Path, fresh: Path, live: Path | None) -> None:
    import shutil

    from scanner.advisories import trivydb

    (fresh / "db").mkdir(parents=True)
    (fresh / "java-db").mkdir()
    if source.is_dir():
        base = source / "db" if (source / "db" / "trivy.db").is_file() else source
        for name in _FILES["db"]:
            if not (base / name).is_file():
                raise UsageError(
                    f"{source} has no {name}", hint="a Trivy database consists of trivy.db and metadata.json"
                )
            shutil.copyfile(base / name, fresh / "db" / name)
        for file in (source / "java-db").glob("*"):
            if file.name in _FILES["java-db"]:
                shutil.copyfile(file, fresh / "java-db" / file.name)
    else:
        _unpack(source, fresh)
    for part, names in _FILES.items():
        if not (fresh / part / names[0]).is_file() and live is not None and (live / part / names[0]).is_file():
            for name in names:
                # A hard link, not a copy: the Java index alone has a gigabyte, and generations never change.
                os.link(live / part / name, fresh / part / name)
    if not (fresh / "db" / "trivy.db").is_file():
        only_java = (fresh / "java-db" / "trivy-java.db").is_file()
        hint = "import trivy-db first" if only_java else "a Trivy database consists of trivy.db and metadata.json"
        raise UsageError(f"{source} has no trivy.db", hint=hint)
    if not (fresh / "java-db" / "trivy-java.db").is_file():
        trivydb.empty_java_database(fresh / "java-db")


def _unpack(source: Path, fresh: Path) -> None:
    """Extract the known files of an archive by their names. Paths in the archive are never used (path traversal).

    An archive may have both databases, in a directory each: then each has a metadata.json.
    """
    import shutil
    import tarfile
    import zlib
    from lzma import LZMAError

    directories: dict[str, int] = {}  # by their path in the archive
    total = 0
    try:
        with tarfile.open(source) as archive:
            for number, member in enumerate(archive):
                # A negative size makes tarfile read the same member for ever (CVE-2025-8194), and members that are
                # only skipped are decompressed all the same.
                total += member.size
                if member.size < 0 or number >= _MAX_MEMBERS or total > 2 * _MAX_DATABASE:
                    raise UsageError(f"{source} is not a Trivy database archive: it has too many or impossible members")
                name = Path(member.name).name
                # Links and devices are skipped, because reading one could read a file of the host.
                stream = archive.extractfile(member) if member.isreg() and name in _NAMES else None
                if stream is None:
                    continue
                if member.size > _MAX_DATABASE:
                    raise UsageError(f"{source}: {name} is larger than {_MAX_DATABASE >> 30} GiB")
                number_of_directory = directories.setdefault(str(Path(member.name).parent), len(directories))
                with (fresh / f"{number_of_directory}-{name}").open("wb") as file:
                    shutil.copyfileobj(stream, file, 1 << 20)
                    file.flush()
                    os.fsync(file.fileno())
    except (tarfile.TarError, EOFError, OSError, zlib.error, LZMAError, ValueError, RecursionError) as error:
        # tarfile lists the complaint of every compression that it tried, one a line.
        why = str(error).partition(":\n")[0]
        hint = "import db.tar.gz, javadb.tar.gz, a KEV catalogue or EPSS scores: docs/advisories.md"
        raise UsageError(f"{source} is not a Trivy database archive: {why}", hint=hint) from error
    for number in directories.values():
        for part, names in _FILES.items():
            # A metadata.json belongs to the database beside it.
            if not (fresh / f"{number}-{names[0]}").is_file() or (fresh / part / names[0]).exists():
                continue
            for name in names:
                if (extracted := fresh / f"{number}-{name}").is_file():
                    extracted.rename(fresh / part / name)
        for name in _NAMES:
            (fresh / f"{number}-{name}").unlink(missing_ok=True)


def _verify(generation: Generation, live: Path | None) -> Digest:
    """Verify a new generation: a readable bbolt file, a known schema, dates, and one lookup with a correct result.

    Returns its digest. ``live``: the generation that it must not be older than.
    """
    try:
        found = generation.status()
        known_answer(generation.directory / "db" / "trivy.db")
        former = Generation(live).status() if live else None
    except (OSError, AdvisoriesUnavailable) as error:
        raise UsageError(f"the database cannot be used: {error}") from error
    if found.updated_at is None or found.digest is None:
        raise UsageError("the database has no build date", hint="metadata.json must contain UpdatedAt")
    # Compared only for mirrors. A person who imports an older file has a reason, such as a broken new one.
    if former and former.updated_at and found.updated_at < former.updated_at:
        message = (
            f"the database was built on {found.updated_at:%Y-%m-%d %H:%M}, before the one in use "
            f"({former.updated_at:%Y-%m-%d %H:%M})"
        )
        raise UsageError(message, reason="database_older", hint="to go back on purpose, import it from a file")
    return found.digest


def known_answer(file: Path) -> None:
    """Look one advisory up as an engine does: a source, a package, its advisory, and the advisory's details.

    Raises UsageError if there is none: with a database that answers nothing, every image would look clean.
    """
    from scanner.advisories import bolt

    with bolt.open_root_bucket(file) as root:
        details = root.bucket(b"vulnerability")
        for source, packages in root.items():
            if details is None or source in _OTHER_BUCKETS or not isinstance(packages, bolt.Bucket):
                continue
            for package, advisories in packages.items():
                names = [n for n, _ in advisories.items()] if isinstance(advisories, bolt.Bucket) else []
                indexed = packages.bucket(package)
                if names and indexed is not None and indexed.get(names[0]) and _is_object(details.get(names[0])):
                    return
    raise UsageError("the database has no advisory that can be looked up", hint="download it again")


def _is_object(value: object) -> bool:
    return isinstance(value, bytes) and value.startswith(b"{") and value.endswith(b"}")


def _activate(directory: Path, generation: Path) -> None:
    link = directory / f".link-{os.urandom(8).hex()}"
    link.symlink_to(generation.name)
    # One rename: a scan sees the former generation or the new one, never a mixture or nothing.
    os.replace(link, directory / "current")


def _prune(directory: Path, live: Path) -> None:
    import shutil

    others = sorted(path for path in directory.glob("generation-*") if path != live)
    for path in others[: max(0, len(others) - (_KEEP - 1))]:
        shutil.rmtree(path, ignore_errors=True)
    for path in directory.glob(".incoming-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in directory.glob(".link-*"):
        path.unlink(missing_ok=True)


def remove_former(settings: Settings, before: float, *, dry_run: bool = False) -> int:
    """Remove generations that were last in use before ``before`` (seconds since 1970).

    Returns the bytes freed, or to be freed.

    The current one is never removed. Nothing is removed while an import runs, because that may link to files of a
    former generation.
    """
    directory = settings.advisories_dir
    live = directory / "current"
    # A generation has been a former one since the link was last replaced.
    if not live.is_symlink() or live.lstat().st_mtime >= before:
        return 0
    import shutil

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
    """Take an exclusive lock across the processes that share this directory. It ends with its process.

    Raises ConflictError if another process holds it.
    """
    with (directory / name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError("another update of the advisories is running", reason="update_running") from None
        yield
