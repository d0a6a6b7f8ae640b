"""The stages of one scan, read from top to bottom. The server and the command line run exactly this.

Resolve the reference once, read every byte through our own verifying reader, lay only verified layers out for the
engine, examine, and hand back a ``ScanReport``: immutable evidence that says of everything it could not see why it
could not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import lru_cache

from scanner import __version__, catalog
from scanner.advisories import feeds
from scanner.checks._secrets import SecretScanner, image_without_secrets, without_secrets
from scanner.checks.base import ImageCheck, ImageSubject
from scanner.config import Limits, Settings
from scanner.engines.base import EngineJob, silent_engine
from scanner.errors import EngineError, ImageError, LimitExceeded, RemoteError, ScannerError
from scanner.model.decision import Decision
from scanner.model.filesystem import LayerFacts, Rootfs
from scanner.model.finding import (
    CheckResult,
    EngineReport,
    Evidence,
    Failed,
    Incomplete,
    Outcome,
    Passed,
    SecretMatch,
    Verification,
)
from scanner.model.image import Image, Layer
from scanner.model.lifecycle import end_of_life
from scanner.model.lineage import BaseImage, declared
from scanner.model.reference import Descriptor
from scanner.model.release import Release
from scanner.model.scan import AttachedSbom, ImageReport, Progress, ScanReport, ScanRequest, Stage
from scanner.model.untrusted import escaped
from scanner.model.workload import Workload
from scanner.policy.context import Context
from scanner.policy.evaluate import evaluate
from scanner.policy.rules import Policy
from scanner.registry.attached import read_attached_sboms
from scanner.registry.blobs import BlobStore
from scanner.registry.facts import FactsCache
from scanner.registry.layers import ContentWants, read_layer
from scanner.registry.layout import lay_out
from scanner.registry.manifest import layer_compression
from scanner.registry.packages import release_of
from scanner.registry.rootfs import concerns, merge
from scanner.registry.sources import AccessTo, RegistrySource, Source, open_target
from scanner.registry.work_directories import sweep, work_directory
from scanner.scanning import attached_sboms, posture, verification
from scanner.scanning.posture import PostureOf
from scanner.scanning.system import compared, listed_packages, without_system
from scanner.scanning.verification import Trust

log = logging.getLogger(__name__)

Report = Callable[[Progress], None]
BaseOf = Callable[[Image], BaseImage | None]
_TRIES = 3


@dataclass(frozen=True)
class Deadline:
    """Time is bounded as everything else is: one clock for the whole scan, a share for each stage."""

    ends: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    def share(self, seconds: float) -> float:
        """At most ``seconds``, at most what is left.

        Raises LimitExceeded(reason="scan_timeout") when nothing is left.
        """
        left = self.ends - time.monotonic()
        if left <= 0:
            raise LimitExceeded(
                "the scan took longer than it may", reason="scan_timeout", hint="see limit_scan_seconds"
            )
        return min(seconds, left)


@dataclass(frozen=True)
class LayerStore:
    """What reading layers takes: where verified layers and their facts are kept, and how much may be read."""

    blobs: BlobStore
    facts: FactsCache
    limits: Limits


@dataclass(frozen=True)
class EngineHost:
    """What running engines takes."""

    settings: Settings
    blobs: BlobStore
    slot: str  # of the worker: an engine's cache belongs to one slot alone
    cancelled: Callable[[], bool]


@dataclass(frozen=True)
class Services:
    """What one scan is made with, put together by whoever starts it.

    ``run`` and ``examine`` hand each stage what it uses.
    """

    settings: Settings
    blobs: BlobStore
    facts: FactsCache
    slot: str = "0"  # of the worker: an engine's cache belongs to one slot alone
    access: AccessTo | None = (
        None  # how a registry is reached; None: by the settings and the person's own docker config
    )
    base: BaseOf = declared  # what an image was built on; without a store only what the image itself declares
    trust: Trust = field(default_factory=Trust)
    cancelled: Callable[[], bool] = lambda: False
    posture: PostureOf | None = None  # how a registry protects itself; None: remembered, or a new probe

    @property
    def layers(self) -> LayerStore:
        return LayerStore(self.blobs, self.facts, self.settings.limits)

    @property
    def engines(self) -> EngineHost:
        return EngineHost(self.settings, self.blobs, self.slot, self.cancelled)

    @property
    def ask_posture(self) -> PostureOf:
        """How to learn how a registry protects itself."""
        return self.posture or posture.remembered(self.settings)


@contextmanager
def local_services(settings: Settings) -> Iterator[Services]:
    """Services for one scan in this process; its engine cache is the first that no other process uses."""
    from scanner.scanning.slots import claim_slot

    sweep(settings)  # whoever never runs a server has nobody else who would
    with claim_slot(settings.home / "slots") as slot:
        yield replace(make_services(settings, slot), trust=_stored_trust(settings))


def _stored_trust(settings: Settings) -> Trust:
    """Whom the installation trusts, if its database can be read: a scan needs none, and without trust nothing counts
    as signed.
    """
    try:
        return verification.stored(settings)
    except ScannerError as error:
        log.warning("no trust roots: %s", error)
        return Trust()


def make_services(settings: Settings, slot: str, access: AccessTo | None = None) -> Services:
    """Services whose state lives under ``settings.home``."""
    blobs = BlobStore(settings.blobs_dir, settings.blob_store_bytes)
    return Services(settings, blobs, FactsCache(settings.home / "facts"), slot, access)


def run(request: ScanRequest, services: Services, report: Report, *, every_platform: bool = False) -> ScanReport:
    """Scan ``request.target``.

    Raises ScannerError where not even an image's manifest and config could be had; whatever goes wrong after that is
    told in the report. ``every_platform`` examines all images of an index (a server judges what anyone may pull),
    otherwise one.
    """
    deadline = Deadline.after(services.settings.limits.scan_seconds)
    with open_target(request.target, services.settings, services.access) as source:
        source.read_until(deadline.ends)
        return examine(
            source, source.resolve(), request, services, report, every_platform=every_platform, deadline=deadline
        )


def examine(
    source: Source,
    subject: Descriptor,
    request: ScanRequest,
    services: Services,
    report: Report,
    *,
    every_platform: bool,
    deadline: Deadline,
) -> ScanReport:
    """Everything after resolving: what ``run`` does with an opened source."""
    started = datetime.now(UTC)
    report(Progress(Stage.RESOLVE, f"{source.describe()} is {subject.digest.short}"))
    manifests, skipped = source.children(subject, request.platform, every_platform)
    verifications = verify_signatures(source, subject, services.trust, services.settings, report)
    images = tuple(
        replace(examine_image(source, manifest, request, services, report, deadline), verifications=verifications)
        for manifest in manifests
    )
    results, posture_at = examine_registry(source, services.ask_posture, report)
    reference = source.reference
    found = ScanReport(
        reference=request.target,
        repository=reference.name if reference else "",
        tag=(reference.tag or "") if reference else "",
        subject=subject,
        images=images,
        started_at=started,
        finished_at=datetime.now(UTC),
        dockwarden=__version__,
        posture=results,
        posture_at=posture_at,
        skipped=skipped,
    )
    return escaped(found)


def examine_registry(source: Source, ask: PostureOf, report: Report) -> tuple[tuple[CheckResult, ...], datetime | None]:
    """What the checks say of the registry that the image came from, and since when."""
    if not isinstance(source, RegistrySource):
        return posture.none(), None
    client = source.client
    report(Progress(Stage.POSTURE, client.host))
    found = ask(client.host, source.reference.repository, client.access, client.credentials)
    return found.results, found.checked_at


def verify_signatures(
    source: Source, subject: Descriptor, trust: Trust, settings: Settings, report: Report
) -> tuple[Verification, ...]:
    """Who signed what the reference resolved to: the answers hold for every image below it."""
    if not isinstance(source, RegistrySource):
        return verification.unasked("no_registry", "the image comes from no registry", subject)
    report(Progress(Stage.VERIFY, "signatures"))
    client = source.client
    return verification.verify(
        source.reference, subject, client, trust, settings, datetime.now(UTC), client.credentials
    )


def examine_image(
    source: Source, manifest: Descriptor, request: ScanRequest, services: Services, report: Report, deadline: Deadline
) -> ImageReport:
    """One image, from its manifest to its evidence."""
    image, config = source.image(manifest)
    base = services.base(image)
    with services.blobs.pin((image.config.digest, *(layer.diff_id for layer in image.layers))):
        services.blobs.put(config)
        try:
            image, rootfs = read_layers(source, image, services.layers, report, deadline)
        except ImageError as error:
            # The bytes are not what an honest builder makes: nothing that an engine says of them could be believed.
            checks = run_checks(image, None, str(error), source, (), base)
            incomplete = (Incomplete(error.reason, str(error)),)
            return ImageReport(image_without_secrets(image), checks=checks, incomplete=incomplete, base=base)
        who = " and ".join(catalog.chosen_engines(request.engine))
        report(Progress(Stage.SCAN, f"{len(image.layers)} layers with {who}"))
        answers = ask_engines(image, request.engine, services.engines, deadline, listed_packages(rootfs))
        report(Progress(Stage.EXAMINE, f"{len(catalog.image_checks())} checks"))
        results = run_checks(
            image, rootfs, "", source, [secret for answer in answers for secret in answer.secrets], base
        )
        answers, about_image = doubts(answers, rootfs)
        attached = read_attached_sboms(source, image.digest) if services.settings.attached_sboms else ()
        attached = look_up_sboms(attached, request.engine, services.engines, deadline, release_of(rootfs))
        return ImageReport(
            image_without_secrets(image), answers, results, incomplete=about_image, base=base, attached=attached
        )


def read_layers(
    source: Source, image: Image, store: LayerStore, report: Report, deadline: Deadline
) -> tuple[Image, Rootfs]:
    """Every layer's facts, each layer read, decompressed and verified at most once for all images that share it.

    Raises ImageError for a layer that is not what it claims or breaks a limit, RemoteError when it cannot be had.
    """
    limits = store.limits
    total = sum(layer.size for layer in image.layers)
    if total > limits.image_compressed:
        raise LimitExceeded(f"the image is larger than {limits.image_compressed} bytes compressed")
    progress = _Bytes(report, total)
    facts = [read_one(source, layer, store, progress, deadline) for layer in image.layers]
    if sum(f.uncompressed_size for f in facts) > limits.image_uncompressed:
        raise LimitExceeded(f"the image is larger than {limits.image_uncompressed} bytes uncompressed")
    if sum(len(f.entries) for f in facts) > limits.image_entries:
        raise LimitExceeded(f"the image has more than {limits.image_entries} files")
    layers = tuple(
        replace(layer, uncompressed_size=f.uncompressed_size) for layer, f in zip(image.layers, facts, strict=True)
    )
    return replace(image, layers=layers), merge(facts)


def read_one(source: Source, layer: Layer, store: LayerStore, progress: _Bytes, deadline: Deadline) -> LayerFacts:
    """A layer's facts: remembered, or read from its source straight through the decompressor into the blob store."""
    wanted = wants()
    known = store.facts.get(layer.diff_id, wanted.digest, layer.digest)
    if known is not None and store.blobs.has(layer.diff_id):
        progress.add(layer.size)
        return known
    limits = store.limits
    ends = time.monotonic() + deadline.share(limits.fetch_seconds)
    for attempt in range(1, _TRIES + 1):
        try:
            # An uncompressed layer's digest is its diff_id; either way what is kept is what was verified.
            layer_compression(layer.media_type)
            with (
                source.open(Descriptor(layer.media_type, layer.digest, layer.size)) as stream,
                store.blobs.writer(layer.diff_id, limits.layer_uncompressed, verified_by_caller=True) as sink,
            ):
                facts = read_layer(
                    stream,
                    layer.media_type,
                    digest=layer.digest,
                    size=layer.size,
                    diff_id=layer.diff_id,
                    limits=limits,
                    wants=wanted,
                    sink=sink.write,
                    deadline=ends,
                    advance=progress.add,
                )
        except RemoteError as error:
            # A registry that stalls or drips is left at once: the scan is tried again later, and holds no slot
            # meanwhile.
            stalled = error.reason == "registry_timeout"
            if attempt == _TRIES or not error.retryable or stalled or time.monotonic() > ends:
                raise
        else:
            store.facts.put(facts, wanted.digest, layer.digest)
            return facts
    raise AssertionError("unreachable")


class _Bytes:
    """Progress of the fetch, told at most a few times a second."""

    def __init__(self, report: Report, total: int) -> None:
        self._report, self._total, self._done, self._told = report, total, 0, 0.0

    def add(self, size: int) -> None:
        self._done += size
        now = time.monotonic()
        if now - self._told > 0.3:
            self._told = now
            self._report(Progress(Stage.FETCH, "reading layers", self._done, self._total))


@lru_cache(maxsize=1)
def wants() -> ContentWants:
    """What the checks want of the layers, all together."""
    patterns = {pattern for check in catalog.image_checks().values() for pattern in check.wants}
    return ContentWants(tuple(patterns), SecretScanner())


def ask_engines(
    image: Image, choice: str, host: EngineHost, deadline: Deadline, packages: int
) -> tuple[EngineReport, ...]:
    """The answer of every engine that was chosen. ``packages``: how many there are at least, by our own count.

    An image with more packages than engines may be given is given to none: each would run until its time or memory
    ends. Raises EngineError where trying again could help and no engine answered: one engine's evidence is kept
    although the other is away.
    """
    most = host.settings.limits.packages
    if packages > most:
        refused = EngineError(
            f"the image lists {packages} packages, more than the {most} that an engine is given",
            reason="limit_exceeded",
            hint="see limit_packages in docs/settings.md",
        )
        engines = catalog.engines()
        return tuple(silent_engine(engines[n], host.settings, refused) for n in catalog.chosen_engines(choice))
    answers: list[EngineReport] = []
    failed: EngineError | None = None
    for engine_id in catalog.chosen_engines(choice):
        try:
            answers.append(ask_engine(image, engine_id, host, deadline))
        except EngineError as error:
            if error.reason == "cancelled":
                raise
            failed = error
            answers.append(silent_engine(catalog.engines()[engine_id], host.settings, error))
    if failed is not None and all(answer.incomplete and not answer.coverage.packages for answer in answers):
        raise failed
    return tuple(answers)


def look_up_sboms(
    attached: Sequence[AttachedSbom], choice: str, host: EngineHost, deadline: Deadline, release: Release
) -> tuple[AttachedSbom, ...]:
    """The SBOMs with what the chosen engines say of the packages they list."""
    settings = host.settings
    means = attached_sboms.Means(
        settings, host.slot, lambda: deadline.share(settings.limits.engine_seconds), host.cancelled, release
    )
    return attached_sboms.looked_up(
        attached, [catalog.engines()[name] for name in catalog.chosen_engines(choice)], means
    )


def doubts(answers: Sequence[EngineReport], rootfs: Rootfs) -> tuple[tuple[EngineReport, ...], tuple[Incomplete, ...]]:
    """Why engines may have seen another image than a container would: of the image as such, and of one engine's
    answer.
    """
    answers = [without_system(compared(answer, rootfs), rootfs) for answer in answers]
    told = [concerns(rootfs, a.coverage if not a.incomplete or a.coverage.packages else None) for a in answers]
    common = tuple(item for item in told[0] if all(item in other for other in told))
    own = ([item for item in items if item not in common] for items in told)
    return tuple(replace(a, incomplete=(*a.incomplete, *items)) for a, items in zip(answers, own, strict=True)), common


def ask_engine(image: Image, engine_id: str, host: EngineHost, deadline: Deadline) -> EngineReport:
    """The engine's answer, or an ``EngineReport`` that says why there is none. Its work directory is gone afterwards.

    Raises EngineError only where trying again could help.
    """
    settings = host.settings
    engine = catalog.engines()[engine_id]
    cache = settings.home.absolute() / "cache" / f"{engine_id}-{host.slot}"
    try:
        with work_directory(settings, "scan") as work:
            layout = lay_out(image, host.blobs, work / "layout")
            scratch = work / "scratch"
            scratch.mkdir()
            seconds = deadline.share(settings.limits.engine_seconds)
            job = EngineJob(
                image, layout, scratch, cache, settings, seconds, settings.engine_secrets, cancelled=host.cancelled
            )
            answer = engine.scan(job)
        return supported(feeds.annotate(settings, answer), datetime.now(UTC).date())
    except EngineError as error:
        if error.retryable:
            raise
        return silent_engine(engine, settings, error)


def supported(answer: EngineReport, today: date) -> EngineReport:
    """The answer with how long the system is looked after.

    Past that day nobody lists its new vulnerabilities: silence proves nothing.
    """
    coverage = answer.coverage
    ends = end_of_life(coverage.os_family, coverage.os_version)
    if ends is None:
        return answer
    living = today <= ends if coverage.os_supported is None else coverage.os_supported
    answer = replace(answer, coverage=replace(coverage, os_supported=living, os_end_of_life=ends))
    if living or any(gap.reason == "unsupported_os" for gap in answer.incomplete):
        return answer
    release = f"{coverage.os_family} {coverage.os_version}"
    gap = Incomplete(
        "unsupported_os", f"{release} is past its end of life ({ends}): new vulnerabilities are no longer listed for it"
    )
    return replace(answer, incomplete=(*answer.incomplete, gap))


def run_checks(
    image: Image,
    rootfs: Rootfs | None,
    reason: str,
    source: Source,
    secrets: Sequence[SecretMatch],
    base: BaseImage | None,
) -> tuple[CheckResult, ...]:
    """Every image check's outcome, in the catalogue's order."""
    subject = ImageSubject(image, rootfs, reason, source.reference, secrets if rootfs else None, base=base)
    return tuple(CheckResult(c.id, outcome_of(c, subject), c.severity) for c in catalog.image_checks().values())


def outcome_of(check: ImageCheck, subject: ImageSubject) -> Outcome:
    """The check's word; a check that breaks on an image has not examined it."""
    try:
        return _quiet(check.examine(replace(subject, parameters=check.parameters)))
    except Exception as error:
        log.exception("check %s failed", check.id)
        return Incomplete("check_failed", f"{check.id} broke on this image ({type(error).__name__})")


def _quiet(outcome: Outcome) -> Outcome:
    """The outcome without the secrets that a line of history may hold: every report shows the instruction that made
    a layer.
    """
    if isinstance(outcome, Failed):
        evidence, tolerated = (tuple(map(_unsaid, items)) for items in (outcome.evidence, outcome.tolerated))
        return replace(outcome, evidence=evidence, tolerated=tolerated, remedy=without_secrets(outcome.remedy))
    return (
        replace(outcome, tolerated=tuple(map(_unsaid, outcome.tolerated))) if isinstance(outcome, Passed) else outcome
    )


def _unsaid(evidence: Evidence) -> Evidence:
    return replace(
        evidence, message=without_secrets(evidence.message), instruction=without_secrets(evidence.instruction)
    )


def decide(
    report: ScanReport, policy: Policy, workloads: Sequence[Workload] = (), results: Sequence[CheckResult] = ()
) -> Decision:
    """The command line's decision: one policy, now, without a store's memory.

    ``results`` are those of every workload check on ``workloads``, which run the image.
    """
    context = Context(
        datetime.now(UTC), workloads=tuple(workloads), workload_results=tuple(results), remedies=catalog.remedies()
    )
    return evaluate(report, policy, context)
