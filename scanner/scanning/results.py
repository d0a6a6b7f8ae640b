"""Results of images that are remembered: an unchanged image under an unchanged database costs a look-up and the policy.

The key contains everything that a result depends on: what the layers and the config hold (their digests were verified
when they were read), the base image, our code, the engines with their binaries, the advisory database, the feeds, the
limits and the day. It has no reference, so projects and tags share a result: the few checks of a reference are repeated
for each. Only complete answers are remembered, sealed (``scanner.sealed``): nothing planted or changed is believed.
Signatures, the registry's posture and attached SBOMs are asked for again by every scan.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import scanner
from scanner import __version__, catalog
from scanner.advisories import feeds
from scanner.config import Settings
from scanner.errors import ScannerError
from scanner.lazy_dataclasses import dataclass
from scanner.model.finding import AdvisoryStatus, Incomplete
from scanner.model.image import Image
from scanner.model.lineage import BaseImage
from scanner.model.records import reader, to_json
from scanner.model.reference import Digest
from scanner.model.scan import ImageReport
from scanner.model.untrusted import escaped
from scanner.sealed import SealedFiles, derived_files

# Of all remembered results; the oldest go.
_MAX_BYTES = 256 << 20
T = TypeVar("T")
# Gaps that follow from what is in the key: the database lists no advisories for a type of package. Others may have
# passed by the next scan. The remembered result still contains the gap.
_LASTING = frozenset({"no_advisories"})


@dataclass(frozen=True)
class StoredResult:
    """The result of an image, the reference of that scan (empty: none), and the ids of the checks that looked at it."""

    report: ImageReport
    reference: str = ""
    checks_of_reference: tuple[str, ...] = ()


@dataclass(frozen=True)
class Results:
    """The remembered results of an installation, shared by all its processes and the slots of its workers."""

    kept: SealedFiles
    derived_files: SealedFiles

    @classmethod
    def under(cls, home: Path) -> Results:
        _code()  # now: a worker may run for weeks, and an upgrade on the disk must not name what its former code found
        return cls(SealedFiles(home / "results", _MAX_BYTES), derived_files(home))

    def get(self, key: str) -> StoredResult | None:
        return _read_result(self.kept, key, StoredResult)

    def put(self, key: str, found: StoredResult) -> None:
        """Remember a complete result that was ``escaped``. Gaps may have passed by the next scan, so an incomplete one
        is not kept.
        """
        if is_complete(found.report):
            _write(self.kept, key, found)

    def derived(self, name: str, kind: type[T], make: Callable[[], T]) -> T:
        """Return what follows from our own files alone, such as the built-in policy: made once an installation."""
        key = f"derived {name} {__version__} {_code()}"
        found = _read_result(self.derived_files, key, kind)
        if found is None:
            found = escaped(make())
            _write(self.derived_files, key, found)
        return found


def _read_result(files: SealedFiles, key: str, kind: type[T]) -> T | None:
    data = files.get(key)
    if data is None:
        return None
    try:
        return reader(kind)(data)
    except (ValueError, KeyError, TypeError):  # of another version; its key should differ, but must not end a scan
        return None


def _write(files: SealedFiles, key: str, value: object) -> None:
    with contextlib.suppress(TypeError):  # an integer of more than 64 bits: not kept
        files.put(key, to_json(value))


def is_complete(found: ImageReport) -> bool:
    """Return whether engines and checks answered everything that they can answer about this image.

    A check that lacks knowledge of another image (its base) is incomplete by what is in the key, and stays so.
    """
    failed = any(isinstance(r.outcome, Incomplete) and r.outcome.reason == "check_failed" for r in found.checks)
    gaps = (*found.incomplete, *(gap for answer in found.engines for gap in answer.incomplete))
    return bool(found.engines) and all(gap.reason in _LASTING for gap in gaps) and not failed


def key_of(image: Image, base: BaseImage | None, engines: Sequence[str], settings: Settings) -> str:
    """Return what a result depends on; empty if it cannot be known, as for an engine on another machine."""
    if settings.attached_sboms:
        return ""
    try:
        versions = [_engine(name, settings) for name in engines]
        about = [feeds.status(settings, kind) for kind in feeds.FEEDS]
    except (ScannerError, OSError):
        return ""
    if not versions or None in versions:
        return ""
    parts = (
        __version__,
        _code(),
        image,
        base,
        versions,
        about,
        settings.limits,
        settings.engine_secrets,
        datetime.now(UTC).date(),
    )
    try:
        return to_json(parts).decode()
    except TypeError:  # an integer of more than 64 bits: its result could not be kept either
        return ""


def _engine(name: str, settings: Settings) -> tuple[str, str, Digest, AdvisoryStatus] | None:
    engine = catalog.engines()[name]
    binary = engine.binary(settings)
    return None if binary is None else (name, engine.version(settings), binary, engine.advisories(settings))


@lru_cache(maxsize=1)
def _code() -> str:
    """Return the state of our own files: a changed check must not answer with its former result."""
    found = sorted(_stamps(str(Path(scanner.__file__).parent)))
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _stamps(directory: str) -> Iterator[tuple[str, int, int]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith((".py", ".yaml")):
                stat = entry.stat()
                yield entry.path, stat.st_size, stat.st_mtime_ns
            elif entry.is_dir(follow_symlinks=False) and entry.name != "__pycache__":
                yield from _stamps(entry.path)
