"""Results of images that are remembered: an unchanged image under an unchanged database costs a look-up and the policy.

The key contains everything that a result depends on: what the layers and the config hold (their digests were verified
when they were read), our code, the engines with their binaries, the advisory database, the feeds, the limits and the
day. Only complete answers are remembered, sealed (``scanner.sealed``): what was planted or changed is not believed.
Signatures, the registry's posture and attached SBOMs are asked for again by every scan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import scanner
from scanner import __version__, catalog
from scanner.advisories import feeds
from scanner.config import Settings
from scanner.errors import ScannerError
from scanner.model.finding import Incomplete
from scanner.model.image import Image
from scanner.model.lineage import BaseImage
from scanner.model.reference import Descriptor, Digest, Reference
from scanner.model.scan import ImageReport, ScanReport, report_adapter
from scanner.model.untrusted import escaped
from scanner.sealed import SealedFiles

_MAX_BYTES = 256 << 20
_NO_TIME = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Results:
    """The remembered results of an installation, shared by all its processes."""

    kept: SealedFiles

    @classmethod
    def under(cls, home: Path) -> Results:
        return cls(SealedFiles(home / "results", _MAX_BYTES))

    def get(self, key: str) -> ImageReport | None:
        data = self.kept.get(key)
        if data is None:
            return None
        try:
            (found,) = report_adapter().validate_json(data).images
        except ValueError:  # of another version; its key should differ, but a wrong guess must not end the scan
            return None
        return found

    def put(self, key: str, found: ImageReport) -> None:
        """Remember a complete result. Gaps may have passed by the next scan, so an incomplete one is not kept."""
        if is_complete(found):
            subject = Descriptor("", found.image.digest, 0)
            whole = ScanReport("", "", "", subject, (found,), _NO_TIME, _NO_TIME, __version__)
            self.kept.put(key, report_adapter().dump_json(escaped(whole)))


def is_complete(found: ImageReport) -> bool:
    """Return whether engines and checks answered everything that they can answer about this image.

    A check that lacks knowledge of another image (its base) is incomplete by what is in the key, and stays so.
    """
    failed = any(isinstance(r.outcome, Incomplete) and r.outcome.reason == "check_failed" for r in found.checks)
    return bool(found.engines) and not found.incomplete and not any(a.incomplete for a in found.engines) and not failed


def key_of(
    image: Image, base: BaseImage | None, reference: Reference | None, engines: Sequence[str], settings: Settings
) -> str:
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
        reference,
        versions,
        about,
        settings.limits,
        settings.engine_secrets,
        datetime.now(UTC).date(),
    )
    return repr(parts)


def _engine(name: str, settings: Settings) -> tuple[str, str, Digest, str] | None:
    engine = catalog.engines()[name]
    binary = engine.binary(settings)
    return None if binary is None else (name, engine.version(settings), binary, repr(engine.advisories(settings)))


@lru_cache(maxsize=1)
def _code() -> str:
    """Return the state of our own files: a changed check must not answer with its former result."""
    root = Path(scanner.__file__).parent
    state = sorted(
        (str(path.relative_to(root)), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in root.rglob("*.py")
    )
    return hashlib.sha256(repr(state).encode()).hexdigest()
