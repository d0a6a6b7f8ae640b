"""A scan: its request, its states, and the evidence it leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from scanner.model.finding import CheckResult, Component, EngineReport, Incomplete, Verification
from scanner.model.image import Image
from scanner.model.lineage import BaseImage
from scanner.model.reference import Descriptor, Digest, Platform


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
    """gate: somebody waits. push: a registry told us. background: nobody waits. quarantine: it has killed a worker
    before.
    """

    GATE = "gate"
    PUSH = "push"
    BACKGROUND = "background"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """What was asked for. ``target`` is an image reference for a server, or any target the CLI takes."""

    target: str
    platform: Platform | None = None
    engine: str = "trivy"
    lane: Lane = Lane.PUSH
    force: bool = False
    project: str = "default"
    requested_by: str = ""
    source: str = ""  # api, webhook:<format>, page, schedule, cli


@dataclass(frozen=True, slots=True)
class AttachedSbom:
    """An SBOM that somebody attached to the image in its registry: their word, kept beside our own look and never in
    its place.

    ``digest`` is that of the artifact's manifest; ``format`` cyclonedx or spdx; ``problem`` says why it could not be
    read. ``answers``: what each engine says of the packages it lists. Whatever of them an engine did not look up
    makes that answer incomplete.
    """

    digest: Digest
    format: str
    components: tuple[Component, ...] = ()
    problem: str = ""
    answers: tuple[EngineReport, ...] = ()
    partial: bool = False  # it says itself that it does not list everything


@dataclass(frozen=True, slots=True)
class ImageReport:
    """Everything found out about one image (one platform). Immutable evidence: a decision rests on exactly this.

    ``incomplete`` holds what befell the image as a whole (unreadable layer, package database behind a link …); the
    engine's own gaps are in ``engines[i].incomplete``, a check's in its outcome.
    """

    image: Image
    engines: tuple[EngineReport, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    verifications: tuple[Verification, ...] = ()
    incomplete: tuple[Incomplete, ...] = ()
    base: BaseImage | None = None  # None: not known what it was built on
    attached: tuple[AttachedSbom, ...] = ()


@dataclass(frozen=True, slots=True)
class ScanReport:
    """The result of one scan.

    ``subject`` is what the reference resolved to: a manifest, or an index with several ``images``.

    ``reference`` is the text that was asked for; ``repository`` is ``host/repo`` or empty for an archive or
    directory. ``schema`` is the version of the JSON form, raised when a reader of the former form would misread it.
    """

    reference: str
    repository: str
    tag: str
    subject: Descriptor
    images: tuple[ImageReport, ...]
    started_at: datetime
    finished_at: datetime
    dockwarden: str  # our version
    posture: tuple[CheckResult, ...] = ()
    posture_at: datetime | None = None  # when the registry was examined; None: the image came from none
    skipped: tuple[str, ...] = ()  # children of an index that are not images, by digest
    schema: int = 1

    @property
    def digest(self) -> Digest:
        return self.subject.digest

    def answers(self, platform: Platform | None) -> bool:
        """Whether a scan that was narrowed to ``platform`` saw all of its subject: a manifest of that platform, not
        part of an index.
        """
        if platform is None:
            return True
        own = [item.image for item in self.images if item.image.digest == self.digest]
        return len(own) == len(self.images) == 1 and own[0].platform.fits(platform)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running scan is. ``done`` and ``total`` are bytes or items of the stage; total 0: not known."""

    stage: Stage
    message: str = ""
    done: int = 0
    total: int = 0
    detail: tuple[tuple[str, str], ...] = field(default=())
