"""The contract of an engine.

An engine is given an OCI layout whose every byte we have verified, and answers with an ``EngineReport`` that says
how far it can be believed. It never answers "clean" for what it did not understand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from scanner.config import Settings
from scanner.errors import AdvisoriesUnavailable, EngineError, ScannerError
from scanner.model.finding import AdvisoryStatus, Component, Coverage, EngineReport, Incomplete, Vulnerability
from scanner.model.image import Image
from scanner.model.matching import Package
from scanner.model.reference import Digest


@dataclass(frozen=True)
class EngineJob:
    """``layout`` is a private OCI layout directory holding exactly this image, layers decompressed (same diff_ids);
    ``work`` an empty directory for the engine's temporary files, removed by the caller; ``cache`` a directory
    that belongs to this worker slot alone; ``deadline`` seconds from now.
    """

    image: Image
    layout: Path
    work: Path
    cache: Path
    settings: Settings
    deadline: float
    secrets: bool = False  # also look for secrets by content
    cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class MatchJob:
    """Packages of one release (``os``; empty: of languages) to be looked up without an image.

    The rest is as in ``EngineJob``.
    """

    packages: Sequence[Package]
    os: str
    work: Path
    cache: Path
    settings: Settings
    deadline: float
    cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class MatchReport:
    """``found``: by package key. A package that is not among them was not looked up: that is no "nothing found".
    ``uncovered``: types of packages that the advisory database has nothing about."""

    version: str
    binary: Digest | None
    advisories: AdvisoryStatus
    found: Mapping[str, tuple[Vulnerability, ...]]
    os_supported: bool | None = None
    uncovered: tuple[str, ...] = ()


class Engine(ABC):
    """See the module.

    ``id`` is what ``--engine`` takes; ``looks_up`` says whether it can look packages up without an image.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    looks_up: ClassVar[bool] = False

    def binary(self, settings: Settings) -> Digest | None:
        """The digest of the program that would run, where there is one on this machine."""
        return None

    def look_up(self, job: MatchJob) -> MatchReport:
        """Look packages up: the same answers, but for layers and paths, as a scan of an image that has them.

        Raises EngineError.
        """
        raise EngineError(f"{self.id} cannot look packages up without an image", reason="cannot_match")

    def package_of(self, stated: Component) -> Package | None:
        """The package that somebody's SBOM states, as this engine looks it up. None: it cannot tell anything of it."""
        return None

    @abstractmethod
    def version(self, settings: Settings) -> str:
        """The engine's version. Raises EngineError when the engine is not there, with a hint how to get it."""

    @abstractmethod
    def advisories(self, settings: Settings) -> AdvisoryStatus:
        """The advisory database in force. Raises AdvisoriesUnavailable when there is none that can be used."""

    @abstractmethod
    def scan(self, job: EngineJob) -> EngineReport:
        """Scan. Raises EngineError (never a bare OSError or ValueError) with a reason of the vocabulary:
        scanner_failed, scanner_crashed, scanner_oom, scan_timeout, scanner_output_invalid, engine_db_unavailable."""


def silent_engine(engine: Engine, settings: Settings, error: ScannerError) -> EngineReport:
    """An engine that could not answer: recorded as such, with what is known of its version and advisories."""
    version, advisories = "", AdvisoryStatus(engine.id)
    try:
        version = engine.version(settings)
        advisories = engine.advisories(settings)
    except (EngineError, AdvisoriesUnavailable):
        pass  # the reason that is recorded is the one that ended the scan
    detail = f"{error}" + (f" ({error.hint})" if error.hint else "")
    return EngineReport(
        engine.id, version, None, advisories, Coverage(), incomplete=(Incomplete(error.reason, detail),)
    )
