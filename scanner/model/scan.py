"""A scan: request, states and evidence."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from scanner.lazy_dataclasses import dataclass
from scanner.model.finding import CheckResult, Component, EngineReport, Incomplete, Verification
from scanner.model.image import Image
from scanner.model.lineage import BaseImage
from scanner.model.records import to_json
from scanner.model.reference import Descriptor, Digest, Platform

if TYPE_CHECKING:
    from pydantic import TypeAdapter


class ScanState(StrEnum):
    """See the state machine in ``docs/architecture.md``. Terminal: done, failed, dead, cancelled."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRY_WAIT = "retry_wait"
    DONE = "done"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in (ScanState.DONE, ScanState.FAILED, ScanState.DEAD, ScanState.CANCELLED)


class Stage(StrEnum):
    """The stages of a running scan, in order."""

    RESOLVE = "resolve"
    FETCH = "fetch"
    VERIFY = "verify"
    SCAN = "scan"
    EXAMINE = "examine"
    POSTURE = "posture"
    EVALUATE = "evaluate"
    RECORD = "record"


class Lane(StrEnum):
    """Queues. gate: a client waits. push: a registry's webhook. background: nobody waits. quarantine: it has killed a
    worker before.
    """

    GATE = "gate"
    PUSH = "push"
    BACKGROUND = "background"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """A request for a scan. ``target``: an image reference on a server, or any target of the command line."""

    target: str
    platform: Platform | None = None  # None: every platform of an index
    engine: str = "trivy"  # empty: the project's, or the configured one
    lane: Lane = Lane.PUSH  # how urgent it is
    force: bool = False  # scan even if a current result exists
    project: str = "default"
    requested_by: str = ""  # for lists and the audit log
    source: str = ""  # api, webhook:<format>, page, schedule, cli


@dataclass(frozen=True, slots=True)
class AttachedSbom:
    """An SBOM that is attached to the image in its registry: an unverified claim, stored beside our own results.

    ``digest``: of the artifact's manifest. ``format``: cyclonedx or spdx. ``problem``: why it could not be read.
    ``answers``: each engine's findings for the listed packages; packages that an engine did not look up make its answer
    incomplete.
    """

    digest: Digest
    format: str
    components: tuple[Component, ...] = ()
    problem: str = ""
    answers: tuple[EngineReport, ...] = ()
    partial: bool = False  # it declares that its list is incomplete


@dataclass(frozen=True, slots=True)
class ImageReport:
    """All evidence about one image (one platform). Immutable: a decision depends on exactly this.

    ``incomplete``: gaps of the image as a whole (unreadable layer, package database behind a link …). An engine's own
    gaps are in ``engines[i].incomplete``, a check's in its outcome.
    """

    image: Image
    engines: tuple[EngineReport, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    verifications: tuple[Verification, ...] = ()
    incomplete: tuple[Incomplete, ...] = ()
    base: BaseImage | None = None  # None: the base is unknown
    attached: tuple[AttachedSbom, ...] = ()  # SBOMs that are attached to the image; only trusted ones count


@dataclass(frozen=True, slots=True)
class ScanReport:
    """The result of one scan.

    ``subject``: what the reference resolved to: a manifest, or an index with several ``images``. ``reference``: the
    requested text. ``repository``: ``host/repo``; empty for an archive or directory. ``schema``: version of the JSON
    form, increased if a reader of the former one would misread it.
    """

    reference: str
    repository: str
    tag: str
    subject: Descriptor
    images: tuple[ImageReport, ...]
    started_at: datetime
    finished_at: datetime
    dockwarden: str  # our version
    posture: tuple[CheckResult, ...] = ()  # of the registry; cached, so maybe older than the scan
    posture_at: datetime | None = None  # when the registry was checked; None: the image did not come from a registry
    skipped: tuple[str, ...] = ()  # children of an index that are not images, by digest
    schema: int = 1

    @property
    def digest(self) -> Digest:
        return self.subject.digest

    def answers(self, platform: Platform | None) -> bool:
        """True if a scan that was narrowed to ``platform`` covers its whole subject: a manifest of that platform,
        not a part of an index.
        """
        if platform is None:
            return True
        own = [item.image for item in self.images if item.image.digest == self.digest]
        return len(own) == len(self.images) == 1 and own[0].platform.fits(platform)


@lru_cache(maxsize=1)
def report_adapter() -> TypeAdapter[ScanReport]:
    """Return what reads and writes the JSON form of the evidence. Building it takes as long as a decision."""
    from pydantic import TypeAdapter

    return TypeAdapter(ScanReport)


def report_json(report: ScanReport) -> bytes:
    """Return the JSON form of the evidence, as ``report_adapter`` writes it."""
    try:
        return to_json(report)
    except TypeError:  # an integer of more than 64 bits, which Pydantic can write
        return report_adapter().dump_json(report)


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a running scan. ``done`` and ``total``: bytes or items of the stage; total 0: unknown."""

    stage: Stage
    message: str = ""  # a sentence for users
    done: int = 0
    total: int = 0
    detail: tuple[tuple[str, str], ...] = field(default=())
