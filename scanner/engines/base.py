"""The contract of an engine.

An engine gets an OCI layout with verified content, and returns an ``EngineReport`` that states its own coverage. It
never reports "clean" for anything that it did not understand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from scanner.config import Settings
from scanner.errors import AdvisoriesUnavailable, EngineError, ScannerError
from scanner.lazy_dataclasses import dataclass
from scanner.model.finding import AdvisoryStatus, Component, Coverage, EngineReport, Incomplete, Vulnerability
from scanner.model.image import Image
from scanner.model.matching import Package
from scanner.model.reference import Digest

if TYPE_CHECKING:
    from scanner.registry.excerpts import EngineFiles


@dataclass(frozen=True)
class EngineJob:
    """The input of a scan.

    ``layout``: a private OCI layout with exactly this image and uncompressed layers (same diff_ids). ``work``: an empty
    directory for temporary files, removed by the caller. ``cache``: a directory of this worker slot alone, because
    Trivy's cache is trusted for unverified diff_ids. ``deadline``: seconds from now. ``files``: the layers are excerpts
    with these files only, as the engine asked (``Engine.files``).
    """

    image: Image
    layout: Path
    work: Path
    cache: Path
    settings: Settings
    deadline: float
    secrets: bool = False  # also look for secrets by content
    cancelled: Callable[[], bool] = lambda: False  # asked while the engine runs; it is killed if true
    running: Callable[[], object] = lambda: None  # called once the engine works, and we only wait for it
    files: EngineFiles | None = None


@dataclass(frozen=True)
class MatchJob:
    """Packages to look up without an image. ``os``: the release (such as ``debian 12.8``); empty for language packages.

    The other fields are those of ``EngineJob``.
    """

    packages: Sequence[Package]
    os: str
    work: Path
    cache: Path
    settings: Settings
    deadline: float  # seconds from now
    cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class MatchReport:
    """``found``: vulnerabilities by package key.

    A package that is missing there was not looked up, which is not "none".

    ``os_supported``: whether the release still gets advisories; None if unknown. ``uncovered``: package types for which
    the database has no advisories.
    """

    version: str
    binary: Digest | None  # digest of the program that ran; None: it runs elsewhere
    advisories: AdvisoryStatus
    found: Mapping[str, tuple[Vulnerability, ...]]
    os_supported: bool | None = None
    uncovered: tuple[str, ...] = ()


class Engine(ABC):
    """See the module. ``id`` is the value of ``--engine``. ``looks_up``: it can look packages up without an image."""

    id: ClassVar[str]
    title: ClassVar[str]
    looks_up: ClassVar[bool] = False

    def binary(self, settings: Settings) -> Digest | None:
        """Digest of the engine's program, if it runs on this machine."""
        return None

    def files(self, settings: Settings) -> EngineFiles | None:
        """The files of an image that this engine reads, if others can be left out of its layers.

        None: all of them. A file that is left out must not be able to change the engine's answer. Raises EngineError.
        """
        return None

    def look_up(self, job: MatchJob) -> MatchReport:
        """Look packages up. The results equal those of a scan, except for layers and paths. Raises EngineError."""
        raise EngineError(f"{self.id} cannot look packages up without an image", reason="cannot_match")

    def package_of(self, stated: Component) -> Package | None:
        """Convert a component of an SBOM to a package as this engine looks it up. None if it cannot be looked up."""
        return None

    @abstractmethod
    def version(self, settings: Settings) -> str:
        """The engine's version. Raises EngineError with a hint if the engine is missing."""

    @abstractmethod
    def advisories(self, settings: Settings) -> AdvisoryStatus:
        """The advisory database in use. Raises AdvisoriesUnavailable if there is none."""

    @abstractmethod
    def scan(self, job: EngineJob) -> EngineReport:
        """Scan the image. Raises EngineError (never OSError or ValueError) with one of these reasons: scanner_failed,
        scanner_crashed, scanner_oom, scan_timeout, scanner_output_invalid, engine_db_unavailable.
        """


def silent_engine(engine: Engine, settings: Settings, error: ScannerError) -> EngineReport:
    """The report of an engine that failed: the error as a gap, with the version and advisories if they are known."""
    version, advisories = "", AdvisoryStatus(engine.id)
    try:
        version = engine.version(settings)
        advisories = engine.advisories(settings)
    except (EngineError, AdvisoriesUnavailable):
        pass  # the recorded reason is the error that ended the scan
    detail = f"{error}" + (f" ({error.hint})" if error.hint else "")
    return EngineReport(
        engine.id, version, None, advisories, Coverage(), incomplete=(Incomplete(error.reason, detail),)
    )
