"""Two exploit feeds: CISA's KEV catalogue (vulnerabilities known to be exploited) and FIRST's EPSS (probability).

Each is stored as a small SQLite file, in which hundreds of CVEs are found within a millisecond, and replaced as a whole
by renaming a link, like the advisory database. Without a feed the values stay ``None`` in the evidence: not looked up.
A policy must not treat that as "no".
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from scanner.config import Settings
from scanner.errors import AdvisoriesUnavailable, UsageError
from scanner.lazy_dataclasses import dataclass
from scanner.model.finding import AdvisoryStatus, EngineReport, Vulnerability
from scanner.model.reference import Digest
from scanner.model.untrusted import load_untrusted_json
from scanner.patterns import lazy
from scanner.registry.manifest import parse_time

if TYPE_CHECKING:
    import sqlite3

KEV, EPSS = "kev", "epss"
FEEDS = (KEV, EPSS)
# Bytes after decompression, and entries: several times what the feeds have.
_MAX_BYTES, _MAX_ENTRIES, _MAX_JSON = 512 << 20, 2_000_000, 64 << 20
# 19 digits: the CVE record format's own limit.
_CVE = lazy(r"CVE-[0-9]{4}-[0-9]{4,19}")
_SPACE = b"\xef\xbb\xbf \r\n\t"
_KEEP = 2
_LOOKUP_BATCH = 500  # variables of one statement


@dataclass(frozen=True)
class Feed:
    """The content of a file. ``scores``: by CVE; always 1 for KEV. ``dated``: when the publisher created it."""

    kind: str
    version: str
    dated: datetime
    scores: Mapping[str, float]


def recognise(file: Path) -> str | None:
    """Return ``kev`` or ``epss``, detected by the first bytes; None if it is neither."""
    if not file.is_file():
        return None
    try:
        with _open_feed(file) as stream:
            # By content, not by name: the download may have any name, and a wrong guess gives a clear error later.
            head = stream.read(4096).lstrip(_SPACE)
    except (OSError, EOFError, zlib.error):
        return None
    if head.startswith(b"#model_version") or head.startswith(b"cve,epss"):
        return EPSS
    if head.startswith(b"cveID,") or (head.startswith(b"{") and b"atalog" in head):
        return KEV
    return None


def parse(file: Path, kind: str) -> Feed:
    """Parse a feed, plain or gzip. Raises UsageError that names the wrong line or member."""
    import csv

    try:
        with _open_feed(file) as packed:
            stream = io.BufferedReader(_BoundedStream(packed, file.name), 1 << 20)
            if kind == KEV and stream.peek(64).lstrip(_SPACE)[:1] == b"{":
                return _kev_json(stream.read(_MAX_JSON + 1), file.name)
            text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
            return _kev_csv(text, file) if kind == KEV else _epss(text, file)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file.name} cannot be read: {error}", hint="download it again") from error


@contextmanager
def _open_feed(file: Path) -> Iterator[IO[bytes]]:
    import gzip

    with file.open("rb") as plain:
        packed = plain.peek(2)[:2] == b"\x1f\x8b"
        if packed:
            with gzip.open(plain) as stream:
                yield stream  # type: ignore[misc]
        else:
            yield plain


class _BoundedStream(io.RawIOBase):
    """A stream with a size limit: a feed of a few megabytes can be crafted to decompress to any size."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name, self._left = stream, name, _MAX_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise UsageError(f"{self._name} is larger than {_MAX_BYTES >> 20} MiB unpacked")
        buffer[: len(data)] = data
        return len(data)


def _kev_json(data: bytes, name: str) -> Feed:
    document = load_untrusted_json(data, limit=_MAX_JSON, error=UsageError, mend_text=True)
    entries = document.get("vulnerabilities") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise UsageError(
            f"{name}: /vulnerabilities is not a list", hint="expected CISA's known_exploited_vulnerabilities.json"
        )
    ids = [item.get("cveID") if isinstance(item, dict) else None for item in entries]
    dated = parse_time(document.get("dateReleased"))
    if dated is None:
        raise UsageError(f"{name} has no release date", hint="/dateReleased must be a time")
    return _feed(KEV, name, str(document.get("catalogVersion", "")), dated, ((str(i), 1.0) for i in ids))


def _kev_csv(text: Iterable[str], file: Path) -> Feed:
    """Parse the CSV. It has no date of its own, so the newest ``dateAdded`` is used."""
    import csv

    rows = csv.DictReader(text)
    if "cveID" not in (rows.fieldnames or ()) or "dateAdded" not in (rows.fieldnames or ()):
        raise UsageError(
            f"{file.name}: no columns cveID and dateAdded", hint="expected CISA's known_exploited_vulnerabilities.csv"
        )
    newest, scores = "", {}
    for row in rows:
        scores[_cve(row["cveID"], file.name, rows.line_num)] = 1.0
        newest = max(newest, row["dateAdded"] or "")
    dated = parse_time(newest + "T00:00:00+00:00") if newest else None
    if dated is None:
        raise UsageError(
            f"{file.name}: no dateAdded is a date", hint="expected CISA's known_exploited_vulnerabilities.csv"
        )
    return _feed(KEV, file.name, newest, dated, scores.items())


def _epss(text: io.TextIOWrapper, file: Path) -> Feed:
    """Parse EPSS: a comment ``#model_version:…,score_date:…``, then ``cve,epss,percentile``."""
    first = text.readline()
    header = (
        dict(part.partition(":")[::2] for part in first.lstrip("#").strip().split(",")) if first.startswith("#") else {}
    )
    dated = parse_time(re.sub(r"\+0000$", "+00:00", header.get("score_date", "")))
    if dated is None:
        raise UsageError(
            f"{file.name}, line 1: no score_date",
            hint="expected FIRST's epss_scores-current.csv.gz, including its first line",
        )
    import csv

    rows = csv.DictReader(text)
    if not {"cve", "epss"} <= set(rows.fieldnames or ()):
        raise UsageError(f"{file.name}, line 2: no columns cve and epss")

    def scores() -> Iterator[tuple[str, float]]:
        for row in rows:
            line = rows.line_num + 1
            try:
                score = float(row["epss"] or "")
            except ValueError:
                score = -1.0
            if not 0 <= score <= 1:
                raise UsageError(f"{file.name}, line {line}: not a score between 0 and 1")
            yield _cve(row["cve"], file.name, line), score

    return _feed(EPSS, file.name, header.get("model_version", ""), dated, scores())


def _cve(text: str | None, name: str, line: int) -> str:
    if text is None or not _CVE.fullmatch(text):
        raise UsageError(f"{name}, line {line}: not a CVE id")
    return text


def _feed(kind: str, name: str, version: str, dated: datetime, entries: Iterable[tuple[str, float]]) -> Feed:
    scores: dict[str, float] = {}
    for number, (cve, score) in enumerate(entries, 1):
        if number > _MAX_ENTRIES:
            raise UsageError(f"{name} has more than {_MAX_ENTRIES} entries")
        if not _CVE.fullmatch(cve):
            raise UsageError(f"{name}: entry {number} is not a CVE id")
        scores[cve] = score
    if not scores:
        raise UsageError(f"{name} has no entries", hint="an empty feed would make everything look harmless")
    return Feed(kind, version[:64], dated, scores)


def import_file(settings: Settings, source: Path, kind: str) -> AdvisoryStatus:
    """Read a feed and activate it. Raises UsageError if it is invalid; then nothing changes."""
    feed = parse(source, kind)
    directory = settings.advisories_dir / "feeds" / kind
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = directory / f".incoming-{os.urandom(8).hex()}"
    try:
        _write(feed, fresh)
        with fresh.open("rb") as file:
            digest = Digest("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())
            os.fsync(file.fileno())
        final = directory / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{digest.hex[:12]}.db"
        fresh.rename(final)
    finally:
        fresh.unlink(missing_ok=True)
    link = directory / f".link-{os.urandom(8).hex()}"
    link.symlink_to(final.name)
    os.replace(link, directory / "current")
    for old in sorted(directory.glob("*.db"))[:-_KEEP]:
        old.unlink(missing_ok=True)
    found = status(settings, kind)
    assert found is not None
    return found


def _write(feed: Feed, file: Path) -> None:
    """Write the feed, sorted: the same feed gives the same bytes, except for the time of the import."""
    content = hashlib.sha256(repr((feed.version, feed.dated, sorted(feed.scores.items()))).encode()).hexdigest()
    import sqlite3

    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE score (cve TEXT PRIMARY KEY, score REAL NOT NULL) WITHOUT ROWID")
        connection.execute("CREATE TABLE said (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        connection.executemany("INSERT INTO score VALUES (?, ?)", sorted(feed.scores.items()))
        properties = {
            "version": feed.version,
            "dated": feed.dated.isoformat(),
            "imported": datetime.now(UTC).isoformat(),
            "content": content,
        }
        connection.executemany("INSERT INTO said VALUES (?, ?)", properties.items())


def status(settings: Settings, kind: str) -> AdvisoryStatus | None:
    """Status of the feed in use, or None if there is none. Raises AdvisoriesUnavailable if it is unreadable."""
    live = settings.advisories_dir / "feeds" / kind / "current"
    if not live.exists():
        return None
    file = live.resolve()
    return _status(file, kind, file.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _status(file: Path, kind: str, mtime: int) -> AdvisoryStatus:
    import sqlite3

    try:
        with _open_feed_database(file) as connection:
            properties = dict(connection.execute("SELECT name, value FROM said").fetchall())
            return AdvisoryStatus(
                kind,
                properties["version"],
                parse_time(properties["dated"]),
                parse_time(properties["imported"]),
                None,
                Digest("sha256:" + properties["content"]),
            )
    except (sqlite3.Error, KeyError) as error:
        raise AdvisoriesUnavailable(
            f"the {kind} feed cannot be read", hint="dockwarden advisories import FILE"
        ) from error


@contextmanager
def _open_feed_database(file: Path) -> Iterator[sqlite3.Connection]:
    import sqlite3

    # `immutable`: the file never changes, and SQLite then needs no lock in a directory that may be read-only.
    with closing(sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)) as connection:
        yield connection


def all_status(settings: Settings) -> tuple[AdvisoryStatus, ...]:
    """Status of every feed in use."""
    found = (status(settings, kind) for kind in FEEDS)
    return tuple(item for item in found if item is not None)


def annotate(settings: Settings, report: EngineReport) -> EngineReport:
    """Return the report with the feeds' values and status. See ``with_feed_values``."""
    return replace(
        report, vulnerabilities=with_feed_values(settings, report.vulnerabilities), feeds=all_status(settings)
    )


def with_feed_values(settings: Settings, items: Iterable[Vulnerability]) -> tuple[Vulnerability, ...]:
    """Set ``known_exploited`` and ``epss`` of vulnerabilities, matched by CVE id or alias.

    Not in KEV is ``False``, because the catalogue is complete. A CVE without an EPSS score stays ``None``: it has not
    been scored yet. A vulnerability without a CVE id gets 0, because EPSS covers CVEs only.
    """
    found = tuple(items)
    wanted = sorted({cve for item in found for cve in _cves(item)})
    exploited, scores = (_lookup(settings, kind, wanted) for kind in FEEDS)
    if exploited is None and scores is None:
        return found
    return tuple(
        replace(
            item,
            known_exploited=None if exploited is None else any(cve in exploited for cve in _cves(item)),
            epss=None if scores is None else _score(_cves(item), scores),
        )
        for item in found
    )


def _cves(item: Vulnerability) -> list[str]:
    return [name for name in (item.id, *item.aliases) if _CVE.fullmatch(name)]


def _score(cves: Iterable[str], scores: Mapping[str, float]) -> float | None:
    ids = list(cves)
    return max((scores[cve] for cve in ids if cve in scores), default=None if ids else 0.0)


def _lookup(settings: Settings, kind: str, wanted: list[str]) -> dict[str, float] | None:
    """Scores of the CVEs that the feed in use lists, or None if there is no feed."""
    live = settings.advisories_dir / "feeds" / kind / "current"
    if not live.exists():
        return None
    import sqlite3

    found: dict[str, float] = {}
    try:
        with _open_feed_database(live.resolve()) as connection:
            # SQLite limits the variables of a statement: 999 in older builds.
            for start in range(0, len(wanted), _LOOKUP_BATCH):
                part = wanted[start : start + _LOOKUP_BATCH]
                marks = ",".join("?" * len(part))
                found.update(connection.execute(f"SELECT cve, score FROM score WHERE cve IN ({marks})", part))  # noqa: S608
    except sqlite3.Error as error:
        raise AdvisoriesUnavailable(
            f"the {kind} feed cannot be read", hint="dockwarden advisories import FILE"
        ) from error
    return found
