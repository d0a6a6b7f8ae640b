"""Where advisories come from, when each source was last asked, and how that went.

Kept beside the database, in one small file.

The file is this directory's memory, not its truth: what is in force is what the links say. Losing it costs one
download.
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
_FEED_AGE = timedelta(days=14)  # as policies have it: a feed is published when there is something to say
_AGAIN_SECONDS = 900.0  # after a failure, doubled up to the interval


@dataclass(frozen=True)
class Source:
    """One source. Times are seconds since 1970, 0: never. ``failure`` is empty when the last attempt went well."""

    name: str
    origin: str = ""  # where what is in force came from: a mirror, or a file that was imported
    identity: str = ""  # what the mirror called it: see ``mirror.Fetched``
    checked: float = 0.0
    failed: float = 0.0
    failures: int = 0  # in a row
    failure: str = ""
    next_check: float = 0.0


def configured(settings: Settings) -> Mapping[str, str]:
    """Sources that are to be asked, with where: nothing is ever downloaded that nobody configured."""
    places = {
        TRIVY: settings.advisories_source,
        JAVA: settings.advisories_java_source,
        feeds.KEV: settings.kev_source,
        feeds.EPSS: settings.epss_source,
    }
    return {name: place for name, place in places.items() if place}


def known(settings: Settings) -> Mapping[str, Source]:
    """Every source, by name, as it was last noted."""
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
    """Remember, atomically. One writer at a time: two that update different sources would each drop the other's."""
    settings.advisories_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (settings.advisories_dir / ".sources.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        every = {**known(settings), source.name: source}
        partial = settings.advisories_dir / f".sources-{secrets.token_hex(8)}"
        try:
            partial.write_text(json.dumps([asdict(item) for item in every.values()], indent=1))
            os.replace(partial, settings.advisories_dir / "sources.json")
        finally:
            partial.unlink(missing_ok=True)


def in_force(settings: Settings, name: str) -> AdvisoryStatus | None:
    """What is in force of a source; None: nothing, or nothing that can be read."""
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
    """One source as people are shown it.

    ``status`` None: there is nothing of it; ``mirror`` empty: files are imported.
    """

    source: Source
    status: AdvisoryStatus | None
    mirror: str
    age: timedelta | None
    stale: bool

    @property
    def document(self) -> Mapping[str, object]:
        """As JSON values, for programs."""
        found, said = self.status, self.source
        return {
            "source": said.name,
            "version": found.version if found else None,
            "updated_at": found.updated_at if found else None,
            "downloaded_at": found.downloaded_at if found else None,
            "next_update": found.next_update if found else None,
            "digest": found.digest if found else None,
            "age_hours": round(self.age.total_seconds() / 3600, 1) if self.age is not None else None,
            "stale": self.stale,
            "origin": said.origin or None,
            "mirror": self.mirror or None,
            "checked_at": moment(said.checked),
            "next_check_at": moment(said.next_check) if self.mirror else None,
            "failed_at": moment(said.failed),
            "failures": said.failures,
            "failure": said.failure or None,
        }


def overview(settings: Settings) -> tuple[Overview, ...]:
    """Every source, the vulnerability database first."""
    noted, mirrors, now = known(settings), configured(settings), datetime.now(UTC)
    oldest = timedelta(hours=settings.advisories_max_age_hours)
    found = []
    for name in SOURCES:
        if name == JAVA and not mirrors.get(name):
            continue  # an empty one of our own stands in for it
        status = in_force(settings, name)
        age = now - status.updated_at if status and status.updated_at else None
        limit = max(oldest, _FEED_AGE) if name in feeds.FEEDS else oldest
        stale = status is not None and (age is None or age > limit)
        found.append(Overview(noted[name], status, mirrors.get(name, ""), age, stale))
    return tuple(found)


def moment(seconds: float) -> datetime | None:
    """Seconds since 1970 as a moment; None for never."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def due(settings: Settings, now: float | None = None) -> tuple[str, ...]:
    """Configured sources whose time has come."""
    noted, at = known(settings), time.time() if now is None else now
    return tuple(name for name in configured(settings) if noted[name].next_check <= at)


def update(settings: Settings, name: str) -> bool:
    """Ask a source and put what is new in force.

    True: something is. Whatever happens is noted; what is raised is why it failed.

    The former one stays in force until the new one was verified, and when it was not. Raises ConflictError while
    another process does it.
    """
    settings.advisories_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with database.only_one(settings.advisories_dir, f".update-{name}"):
        place, former = configured(settings)[name], known(settings)[name]
        try:
            fetched = _take(settings, name, place, former)
        except ScannerError as error:
            note(settings, _failed(settings, former, error))
            raise
        except OSError as error:
            full = ScannerError(f"cannot keep the download: {error.strerror}", reason="disk_full", retryable=True)
            note(settings, _failed(settings, former, full))
            raise full from error
        now, next_check = time.time(), time.time() + _about(_interval(settings))
        note(settings, Source(name, place, fetched.identity, now, former.failed, 0, "", next_check))
        return fetched.file is not None


def _failed(settings: Settings, former: Source, error: ScannerError) -> Source:
    failures = former.failures + 1
    wait = min(_AGAIN_SECONDS * 2 ** min(failures - 1, 10), _interval(settings))
    said = clean_text(f"{error.reason}: {error}", 500)
    return replace(former, failed=time.time(), failures=failures, failure=said, next_check=time.time() + _about(wait))


def _take(settings: Settings, name: str, place: str, former: Source) -> mirror.Fetched:
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
    """Put a file in force: a feed where it is recognised as one, else a database.

    Raises UsageError, and then nothing changes.
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
    former = known(settings)[name]
    note(
        settings, replace(former, origin=f"file {file.name}", identity="", checked=time.time(), failures=0, failure="")
    )
    return status


def _interval(settings: Settings) -> float:
    return max(60.0, settings.advisories_interval_hours * 3600)


def _about(seconds: float) -> float:
    """Give or take a tenth, so that a thousand installations do not ask the mirror in the same second."""
    return seconds * random.uniform(0.9, 1.1)
