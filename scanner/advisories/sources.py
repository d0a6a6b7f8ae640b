"""Sources of advisories: origin, last check and its result. Stored beside the database in one small file.

The file is only a memory; the links decide what is in use. Losing it costs one download.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from scanner.advisories import database, feeds, mirror
from scanner.config import Settings
from scanner.errors import AdvisoriesUnavailable, ScannerError, UsageError
from scanner.files import open_regular
from scanner.model.finding import AdvisoryStatus
from scanner.model.untrusted import clean_text

TRIVY, JAVA = "trivy-db", "trivy-java-db"
SOURCES = (TRIVY, JAVA, *feeds.FEEDS)
_FEED_AGE = timedelta(days=14)  # as in policies: feeds are published irregularly
_AGAIN_SECONDS = 900.0  # after a failure, doubled up to the interval


@dataclass(frozen=True)
class Source:
    """One source. Times are seconds since 1970; 0: never. ``failure`` is empty if the last attempt succeeded."""

    name: str
    origin: str = ""  # where the data in use came from: a mirror, or an imported file
    identity: str = ""  # its identity on the mirror: see ``mirror.Download``
    checked: float = 0.0  # when the mirror was last asked
    failed: float = 0.0  # when an update last failed
    failures: int = 0  # in a row
    failure: str = ""
    next_check: float = 0.0  # when the mirror is asked next


def configured_mirrors(settings: Settings) -> Mapping[str, str]:
    """The sources with a configured mirror. Nothing is downloaded without configuration."""
    places = {
        TRIVY: settings.advisories_source,
        JAVA: settings.advisories_java_source,
        feeds.KEV: settings.kev_source,
        feeds.EPSS: settings.epss_source,
    }
    return {name: place for name, place in places.items() if place}


def recorded_sources(settings: Settings) -> Mapping[str, Source]:
    """Every source by name, as last recorded."""
    found = {name: Source(name) for name in SOURCES}
    try:
        document = json.loads((settings.advisories_dir / "sources.json").read_text())
        names = {field.name for field in fields(Source)}
        for item in document:
            source = Source(**{key: value for key, value in item.items() if key in names})
            found[source.name] = source
    except (OSError, ValueError, TypeError, AttributeError):
        pass
    return found


def note(settings: Settings, source: Source) -> None:
    """Record a source, atomically. A lock keeps two writers from dropping each other's change."""
    settings.advisories_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (settings.advisories_dir / ".sources.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        every = {**recorded_sources(settings), source.name: source}
        partial = settings.advisories_dir / f".sources-{secrets.token_hex(8)}"
        try:
            partial.write_text(json.dumps([asdict(item) for item in every.values()], indent=1))
            os.replace(partial, settings.advisories_dir / "sources.json")
        finally:
            partial.unlink(missing_ok=True)


def in_force(settings: Settings, name: str) -> AdvisoryStatus | None:
    """Status of a source's data in use, or None if there is none, or it is unreadable."""
    try:
        return (
            database.status(settings)
            if name == TRIVY
            else feeds.status(settings, name)
            if name in feeds.FEEDS
            else None
        )
    except AdvisoriesUnavailable:
        return None


@dataclass(frozen=True)
class Overview:
    """A source for display.

    ``status`` None: no data. ``mirror`` empty: files are imported. ``stale``: older than allowed.
    """

    source: Source
    status: AdvisoryStatus | None
    mirror: str
    age: timedelta | None
    stale: bool

    @property
    def document(self) -> Mapping[str, object]:
        """JSON values of this source."""
        status, source = self.status, self.source
        return {
            "source": source.name,
            "version": status.version if status else None,
            "updated_at": status.updated_at if status else None,
            "downloaded_at": status.downloaded_at if status else None,
            "next_update": status.next_update if status else None,
            "digest": status.digest if status else None,
            "age_hours": round(self.age.total_seconds() / 3600, 1) if self.age is not None else None,
            "stale": self.stale,
            "origin": source.origin or None,
            "mirror": self.mirror or None,
            "checked_at": moment(source.checked),
            "next_check_at": moment(source.next_check) if self.mirror else None,
            "failed_at": moment(source.failed),
            "failures": source.failures,
            "failure": source.failure or None,
        }


def overview(settings: Settings) -> tuple[Overview, ...]:
    """Every source, with the vulnerability database first."""
    noted, mirrors, now = recorded_sources(settings), configured_mirrors(settings), datetime.now(UTC)
    oldest = timedelta(hours=settings.advisories_max_age_hours)
    found = []
    for name in SOURCES:
        if name == JAVA and not mirrors.get(name):
            continue  # an empty generated database is used instead
        status = in_force(settings, name)
        age = now - status.updated_at if status and status.updated_at else None
        limit = max(oldest, _FEED_AGE) if name in feeds.FEEDS else oldest
        stale = status is not None and (age is None or age > limit)
        found.append(Overview(noted[name], status, mirrors.get(name, ""), age, stale))
    return tuple(found)


def moment(seconds: float) -> datetime | None:
    """Convert seconds since 1970 to a time; None for 0 (never)."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def due(settings: Settings, now: float | None = None) -> tuple[str, ...]:
    """Configured sources whose next check is due."""
    noted, at = recorded_sources(settings), time.time() if now is None else now
    return tuple(name for name in configured_mirrors(settings) if noted[name].next_check <= at)


def update(settings: Settings, name: str) -> bool:
    """Check a source and activate new data. Returns True if there was new data.

    The result is recorded in any case, and an error is raised. The former data stays in use until the new data is
    verified. Raises ConflictError while another process updates the source.
    """
    settings.advisories_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Every worker checks for updates. The first one downloads; the others must not do it a second time.
    with database.only_one(settings.advisories_dir, f".update-{name}"):
        place, former = configured_mirrors(settings)[name], recorded_sources(settings)[name]
        try:
            fetched = _download(settings, name, place, former)
        except ScannerError as error:
            note(settings, _failed_source(settings, former, error))
            raise
        except OSError as error:
            full = ScannerError(f"cannot keep the download: {error.strerror}", reason="disk_full", retryable=True)
            note(settings, _failed_source(settings, former, full))
            raise full from error
        now, next_check = time.time(), time.time() + _with_jitter(_interval(settings))
        note(settings, Source(name, place, fetched.identity, now, former.failed, 0, "", next_check))
        return fetched.file is not None


def _failed_source(settings: Settings, former: Source, error: ScannerError) -> Source:
    failures = former.failures + 1
    wait = min(_AGAIN_SECONDS * 2 ** min(failures - 1, 10), _interval(settings))
    message = clean_text(f"{error.reason}: {error}", 500)
    return replace(
        former, failed=time.time(), failures=failures, failure=message, next_check=time.time() + _with_jitter(wait)
    )


def _download(settings: Settings, name: str, place: str, former: Source) -> mirror.Download:
    incoming = settings.advisories_dir / f".download-{name}"
    have = former.identity if former.origin == place and (name == JAVA or in_force(settings, name)) else ""
    try:
        media_type = mirror.JAVA_DATABASE if name == JAVA else mirror.DATABASE
        fetched = mirror.fetch(settings, place, media_type, incoming, have)
        if fetched.file is not None:
            if name in feeds.FEEDS:
                feeds.import_file(settings, fetched.file, name)
            else:
                database.import_file(settings, fetched.file, newer_only=name == TRIVY)
        return fetched
    finally:
        incoming.unlink(missing_ok=True)


def import_file(settings: Settings, file: Path) -> AdvisoryStatus:
    """Activate a file: a feed if it is recognised as one, otherwise a database.

    Raises UsageError; then nothing changes.
    """
    if not file.exists():
        raise UsageError(f"there is no file {file}")
    if not file.is_dir():
        open_regular(file).close()  # refused here, because a pipe cannot be read twice
        if not file.stat().st_size:
            raise UsageError(f"{file} is empty", hint="download it again")
    kind = feeds.recognise(file)
    status = feeds.import_file(settings, file, kind) if kind else database.import_file(settings, file).status()
    name = kind or TRIVY
    former = recorded_sources(settings)[name]
    note(
        settings, replace(former, origin=f"file {file.name}", identity="", checked=time.time(), failures=0, failure="")
    )
    return status


def _interval(settings: Settings) -> float:
    return max(60.0, settings.advisories_interval_hours * 3600)


def _with_jitter(seconds: float) -> float:
    """Vary the time by 10 %, so that many installations do not contact the mirror in the same second."""
    return seconds * random.uniform(0.9, 1.1)
