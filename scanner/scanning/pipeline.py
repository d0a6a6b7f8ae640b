"""The stages of one scan, from top to bottom. Server and command line run the same code.

Resolve the reference once, read and verify all layers, write an OCI layout of verified layers for the engines, run
engines and checks, and return a ``ScanReport``. The report is immutable evidence and contains the reason for
everything that could not be examined.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from datetime import UTC, date, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from scanner import __version__, catalog, telemetry
from scanner.advisories import feeds
from scanner.config import Limits, Settings
from scanner.errors import EngineError, ImageError, LimitExceeded, RemoteError, ScannerError
from scanner.lazy_dataclasses import dataclass
from scanner.model.decision import Decision
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
from scanner.model.lineage import BaseImage, declared_base
from scanner.model.plurals import number_of
from scanner.model.reference import Descriptor, Reference
from scanner.model.scan import AttachedSbom, ImageReport, Progress, ScanReport, ScanRequest, Stage
from scanner.model.untrusted import escaped
from scanner.policy.context import Context
from scanner.policy.evaluate import evaluate
from scanner.policy.rules import Policy
from scanner.registry.sources import AccessTo, RegistrySource, Source, open_target
from scanner.registry.work_directories import sweep, work_directory
from scanner.scanning import posture, verification
from scanner.scanning.posture import PostureOf
from scanner.scanning.results import Results, StoredResult, key_of
from scanner.scanning.verification import Trust

if TYPE_CHECKING:
    # Loaded by what uses them: an image whose result is remembered needs none.
    from scanner.checks.base import ImageCheck, ImageSubject
    from scanner.model.filesystem import LayerFacts, Rootfs
    from scanner.model.release import Release
    from scanner.model.workload import Workload
    from scanner.registry.blobs import BlobStore
    from scanner.registry.excerpts import EngineFiles
    from scanner.registry.facts import FactsCache
    from scanner.registry.layers import ContentWants

log = logging.getLogger(__name__)

Report = Callable[[Progress], None]
BaseOf = Callable[[Image], BaseImage | None]
_TRIES = 3  # of reading a layer


@dataclass(frozen=True)
class Deadline:
    """The time limit of a scan, of which each stage gets a share. ``ends`` is in seconds of the monotonic clock."""

    ends: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    def share(self, seconds: float) -> float:
        """Return ``seconds`` or the remaining time, whichever is less.

        Raises LimitExceeded(reason="scan_timeout") if no time is left.
        """
        left = self.ends - time.monotonic()
        if left <= 0:
            raise LimitExceeded(
                "the scan exceeded its time limit",
                reason="scan_timeout",
                hint="see limit_scan_seconds in docs/settings.md",
            )
        return min(seconds, left)


@dataclass(frozen=True)
class LayerStore:
    """The stores of verified layers and of their facts, and the limits for reading layers."""

    blobs: BlobStore
    facts: FactsCache
    limits: Limits
    kept: Path  # compiled patterns
    files: EngineFiles | None = None  # what is stored of a layer; None: all of it


@dataclass(frozen=True)
class EngineHost:
    """The resources for running engines."""

    settings: Settings
    blobs: BlobStore
    slot: str  # of the worker; engines cannot share a cache directory
    cancelled: Callable[[], bool]  # asked while the engine runs; it is killed if true
    running: Callable[[], object] = lambda: None  # called once an engine works, and we only wait for it
    files: EngineFiles | None = None  # what is stored of a layer


@dataclass(frozen=True)
class Services:
    """The dependencies of a scan. ``run`` and ``examine`` pass each stage only what it needs."""

    settings: Settings
    blobs: BlobStore
    facts: FactsCache
    slot: str = "0"  # of the worker; engines cannot share a cache directory
    access: AccessTo | None = None  # access to registries; None: settings and the user's docker config
    base: BaseOf = declared_base  # finds the base image; without a database only the declared one
    trust: Trust = field(default_factory=Trust)
    cancelled: Callable[[], bool] = lambda: False
    results: Results | None = None  # remembered results; None: every scan examines the image anew
    posture: PostureOf | None = None  # posture of a registry; None: from a file or a new probe

    @property
    def layers(self) -> LayerStore:
        return LayerStore(self.blobs, self.facts, self.settings.limits, self.settings.home / "patterns")

    @property
    def engines(self) -> EngineHost:
        return EngineHost(self.settings, self.blobs, self.slot, self.cancelled)

    @property
    def ask_posture(self) -> PostureOf:
        """Return the function that provides the posture of a registry."""
        return self.posture or posture.cached_posture(self.settings)


@contextmanager
def local_services(settings: Settings, *, remember: bool = False) -> Iterator[Services]:
    """Yield services for one scan in this process, with the first engine cache that no other process uses.

    ``remember``: use and keep results of unchanged images.
    """
    from scanner.scanning.slots import claim_slot

    sweep(settings)  # without a server, nothing else removes work directories of killed scans
    with claim_slot(settings.home / "slots") as slot, _few_collections():
        results = Results.under(settings.home) if remember else None
        yield replace(make_services(settings, slot, lasting=False), trust=_stored_trust(settings), results=results)


@contextmanager
def _few_collections() -> Iterator[None]:
    """Search for cycles less often. The files of an image are many objects, and none of them is part of a cycle."""
    usual = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _stored_trust(settings: Settings) -> Trust:
    """Return the trust roots of the installation, or none if its database is unreadable.

    A scan needs no database. Without trust roots no image counts as signed, so the error is safe to ignore.
    """
    try:
        return verification.stored_trust(settings)
    except ScannerError as error:
        log.warning("cannot read the trust roots, so no signature counts: %s", error)
        return Trust()


def make_services(settings: Settings, slot: str, access: AccessTo | None = None, *, lasting: bool = True) -> Services:
    """Return services with their state under ``settings.home``. ``lasting``: see ``BlobStore``."""
    from scanner.registry.blobs import BlobStore
    from scanner.registry.facts import FactsCache

    blobs = BlobStore(settings.blobs_dir, settings.blob_store_bytes, lasting=lasting)
    return Services(settings, blobs, FactsCache(settings.home / "facts"), slot, access)


def run(request: ScanRequest, services: Services, report: Report, *, every_platform: bool = False) -> ScanReport:
    """Scan ``request.target``.

    Raises ScannerError if manifest or config cannot be read; later failures are part of the report. ``every_platform``
    examines all images of an index, as a server must because clients of any platform may pull it. Otherwise one.
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
    """Scan an opened source whose reference was resolved to ``subject``."""
    started = datetime.now(UTC)
    report(Progress(Stage.RESOLVE, f"{source.describe()} is {subject.digest.short}"))
    manifests, skipped = source.children(subject, request.platform, every_platform)
    verifications = verify_signatures(source, subject, services.trust, services.settings, report)
    images = tuple(
        replace(
            examine_image(source, manifest, request, services, report, deadline), verifications=escaped(verifications)
        )
        for manifest in manifests
    )
    results, posture_at = examine_registry(source, services.ask_posture, report, services.results)
    reference = source.reference
    found = ScanReport(
        reference=request.target,
        repository=reference.name if reference else "",
        tag=(reference.tag or "") if reference else "",
        subject=subject,
        images=(),
        started_at=started,
        finished_at=datetime.now(UTC),
        dockwarden=__version__,
        posture=results,
        posture_at=posture_at,
        skipped=skipped,
    )
    return replace(escaped(found), images=images)


def examine_registry(
    source: Source, ask: PostureOf, report: Report, results: Results | None = None
) -> tuple[tuple[CheckResult, ...], datetime | None]:
    """Return the results of the registry checks and their time (None: the image is not from a registry)."""
    if not isinstance(source, RegistrySource):
        if results is None:
            return posture.none(), None
        return results.derived("no registry", tuple[CheckResult, ...], posture.none), None
    client = source.client
    report(Progress(Stage.POSTURE, client.host))
    found = ask(client.host, source.reference.repository, client.access, client.credentials)
    return found.results, found.checked_at


def verify_signatures(
    source: Source, subject: Descriptor, trust: Trust, settings: Settings, report: Report
) -> tuple[Verification, ...]:
    """Verify the signatures of the resolved digest. The results apply to every image of an index."""
    if not isinstance(source, RegistrySource):
        return verification.not_verified("no_registry", "the image is not from a registry", subject)
    report(Progress(Stage.VERIFY, "signatures"))
    client = source.client
    return verification.verify(
        source.reference, subject, client, trust, settings, datetime.now(UTC), client.credentials
    )


def examine_image(
    source: Source, manifest: Descriptor, request: ScanRequest, services: Services, report: Report, deadline: Deadline
) -> ImageReport:
    """Examine one image, from its manifest to its evidence, or return its remembered result. Both are ``escaped``."""
    image, config = source.image(manifest)
    base = services.base(image)
    if services.results is None:
        return escaped(examine_content(source, image, config, base, request, services, report, deadline))
    engines = catalog.chosen_engines(request.engine)
    key = key_of(image, base, engines, services.settings)
    known = services.results.get(key) if key and not request.force else None
    if known is not None:
        return for_reference(known, source.reference)
    found = escaped(examine_content(source, image, config, base, request, services, report, deadline))
    # The database may have been replaced while the engine ran: then the answer belongs to neither key.
    if key and key == key_of(image, base, engines, services.settings):
        named = tuple(check.id for check in catalog.image_checks().values() if check.looks_at_reference)
        services.results.put(key, StoredResult(found, str(source.reference or ""), named))
    return found


def for_reference(known: StoredResult, reference: Reference | None) -> ImageReport:
    """Return a remembered result for this reference: the checks that look at it are repeated for another one."""
    if str(reference or "") == known.reference:
        return known.report
    return under_reference(known.report, reference, known.checks_of_reference)


def under_reference(found: ImageReport, reference: Reference | None, names: Sequence[str] | None = None) -> ImageReport:
    """Return evidence that was made by another reference for this one.

    ``names``: the checks that look at the reference; None: as the checks say of themselves.
    """
    from scanner.checks.base import ImageSubject

    subject = ImageSubject(found.image, None, "the layers are not read again", reference, base=found.base)
    every = catalog.image_checks()
    if names is None:
        names = [check.id for check in every.values() if check.looks_at_reference]
    checks = [every[name] for name in names]
    again = {check.id: CheckResult(check.id, outcome_of(check, subject), check.severity) for check in checks}
    return replace(found, checks=escaped(tuple(again.get(result.check, result) for result in found.checks)))


def examine_content(
    source: Source,
    image: Image,
    config: bytes,
    base: BaseImage | None,
    request: ScanRequest,
    services: Services,
    report: Report,
    deadline: Deadline,
) -> ImageReport:
    """Read all layers of an image, run engines and checks, and return the evidence."""
    from concurrent.futures import Future, ThreadPoolExecutor

    from scanner.checks._secrets import image_without_secrets
    from scanner.registry.attached import read_attached_sboms
    from scanner.registry.excerpts import blob_name
    from scanner.registry.packages import release_of
    from scanner.registry.read_ahead import start
    from scanner.scanning.system import listed_packages

    files = files_for(request.engine, services.settings)
    host = replace(services.engines, files=files)
    with services.blobs.pin((image.config.digest, *(blob_name(layer.diff_id, files) for layer in image.layers))):
        services.blobs.put(config)
        try:
            image, rootfs = read_layers(source, image, replace(services.layers, files=files), report, deadline)
        except ImageError as error:
            # A layer that differs from its digest or breaks a limit may be crafted to hide files from engines. Engines
            # are not run: their answer could not be trusted.
            checks = run_checks(image, None, str(error), source, (), base)
            incomplete = (Incomplete(error.reason, str(error)),)
            return ImageReport(image_without_secrets(image), checks=checks, incomplete=incomplete, base=base)
        who = " and ".join(catalog.chosen_engines(request.engine))
        report(Progress(Stage.SCAN, f"{number_of(len(image.layers), 'layer')} with {who}"))
        check = partial(run_checks, image, rootfs, "", source, base=base)
        with ThreadPoolExecutor(1, "checks") as threads:
            checking: list[Future[tuple[CheckResult, ...]]] = []

            def check_meanwhile() -> None:
                # Not before the engine runs: threads that compute take turns of 5 ms with the one that starts it.
                if not checking:
                    checking.append(start(threads, partial(check, ())))

            if not services.settings.engine_secrets:  # checks that need its answer come afterwards
                host = replace(host, running=check_meanwhile)
            answers = ask_engines(image, request.engine, host, deadline, listed_packages(rootfs))
            report(Progress(Stage.EXAMINE, f"{len(catalog.image_checks())} checks"))
            found = [secret for answer in answers for secret in answer.secrets]
            results = checking[0].result() if checking and not found else check(found)
        answers, about_image = compare_with_files(answers, rootfs)
        attached = read_attached_sboms(source, image.digest) if services.settings.attached_sboms else ()
        attached = look_up_sboms(attached, request.engine, services.engines, deadline, release_of(rootfs))
        return ImageReport(
            image_without_secrets(image), answers, results, incomplete=about_image, base=base, attached=attached
        )


def files_for(choice: str, settings: Settings) -> EngineFiles | None:
    """Return the files of which alone the chosen engines read something; None if they get whole layers."""
    if settings.engine_secrets:
        return None
    engines = catalog.engines()
    try:
        found = {engines[name].files(settings) for name in catalog.chosen_engines(choice)}
    except EngineError:  # one that is missing says so when it is asked to scan
        return None
    return found.pop() if len(found) == 1 else None


def read_layers(
    source: Source, image: Image, store: LayerStore, report: Report, deadline: Deadline
) -> tuple[Image, Rootfs]:
    """Read, decompress and verify all layers. A layer that images share is read once.

    Returns the image with uncompressed sizes, and its merged file system. Raises ImageError for a layer with a wrong
    digest or beyond a limit, RemoteError if it cannot be fetched.
    """
    from scanner.registry import contents
    from scanner.registry.rootfs import merge

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
    rootfs = merge(facts)
    wasted = contents.hidden_bytes(rootfs)
    layers = tuple(
        replace(
            layer,
            uncompressed_size=f.uncompressed_size,
            files=contents.count(f.entries),
            largest=contents.largest(f.entries),
            hidden=wasted.get(layer.index, 0),
        )
        for layer, f in zip(image.layers, facts, strict=True)
    )
    return replace(image, layers=layers), rootfs


def read_one(source: Source, layer: Layer, store: LayerStore, progress: _Bytes, deadline: Deadline) -> LayerFacts:
    """Return a layer's facts from the cache, or read the layer and stream it into the blob store."""
    from scanner.registry.excerpts import blob_name
    from scanner.registry.layers import read_layer
    from scanner.registry.manifest import layer_compression

    wanted = wants(store.kept)
    # With the announced size and type: a layer for which they are wrong is refused, also if another image has it.
    key = f"{wanted.digest} {layer.size} {layer.media_type}"
    known = store.facts.get(layer.diff_id, key, layer.digest)
    blob = blob_name(layer.diff_id, store.files)
    if known is not None and store.blobs.has(blob):
        progress.add(layer.size)
        return known
    limits = store.limits
    ends = time.monotonic() + deadline.share(limits.fetch_seconds)
    for attempt in range(1, _TRIES + 1):
        try:
            # Verified while it is streamed: compressed bytes against the digest, uncompressed bytes against the
            # diff_id.
            layer_compression(layer.media_type)
            with (
                source.open(Descriptor(layer.media_type, layer.digest, layer.size)) as stream,
                store.blobs.writer(blob, limits.layer_uncompressed, verified_by_caller=True) as sink,
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
                    files=store.files,
                    deadline=ends,
                    advance=progress.add,
                )
        except RemoteError as error:
            # A registry that stalls or sends slowly must not hold a worker: the scan is retried later.
            stalled = error.reason == "registry_timeout"
            if attempt == _TRIES or not error.retryable or stalled or time.monotonic() > ends:
                raise
        else:
            store.facts.put(facts, key, layer.digest)
            return facts
    raise AssertionError("unreachable")


class _Bytes:
    """Reports the progress of the fetch, at most every 0.3 seconds."""

    def __init__(self, report: Report, total: int) -> None:
        self._report, self._total, self._done, self._told = report, total, 0, 0.0

    def add(self, size: int) -> None:
        self._done += size
        now = time.monotonic()
        if now - self._told > 0.3:
            self._told = now
            self._report(Progress(Stage.FETCH, "reading layers", self._done, self._total))


@lru_cache(maxsize=1)
def wants(kept: Path | None = None) -> ContentWants:
    """Return the file patterns of all checks, and the secret scanner. ``kept``: a directory for compiled patterns."""
    from scanner.checks._secrets import SecretScanner
    from scanner.registry.layers import ContentWants

    patterns = {pattern for check in catalog.image_checks().values() for pattern in check.wants}
    return ContentWants(tuple(patterns), SecretScanner(kept=kept))


def ask_engines(
    image: Image, choice: str, host: EngineHost, deadline: Deadline, packages: int
) -> tuple[EngineReport, ...]:
    """Return the answers of the chosen engines. ``packages``: the minimum number of packages by our own count.

    An image with too many packages is given to no engine: it would exhaust time or memory, and the packages may be fake
    to achieve just that. Raises EngineError if no engine answered and a retry may help. If one of two answered, its
    evidence is kept.
    """
    from scanner.engines.base import silent_engine

    most = host.settings.limits.packages
    if packages > most:
        refused = EngineError(
            f"the image lists {packages} packages, more than the limit of {most}",
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
    """Return the attached SBOMs with the answers of the chosen engines."""
    from scanner.scanning import attached_sboms

    settings = host.settings
    means = attached_sboms.LookupContext(
        settings, host.slot, lambda: deadline.share(settings.limits.engine_seconds), host.cancelled, release
    )
    return attached_sboms.look_up(attached, [catalog.engines()[name] for name in catalog.chosen_engines(choice)], means)


def compare_with_files(
    answers: Sequence[EngineReport], rootfs: Rootfs
) -> tuple[tuple[EngineReport, ...], tuple[Incomplete, ...]]:
    """Compare the answers with our own reading of the file system.

    Returns the answers with the gaps of single engines, and the gaps that all have in common.
    """
    from scanner.registry.rootfs import concerns
    from scanner.scanning.system import compare_system, without_system

    answers = [without_system(compare_system(answer, rootfs), rootfs) for answer in answers]
    told = [concerns(rootfs, a.coverage if not a.incomplete or a.coverage.packages else None) for a in answers]
    common = tuple(item for item in told[0] if all(item in other for other in told))
    own = ([item for item in items if item not in common] for items in told)
    return tuple(replace(a, incomplete=(*a.incomplete, *items)) for a, items in zip(answers, own, strict=True)), common


def ask_engine(image: Image, engine_id: str, host: EngineHost, deadline: Deadline) -> EngineReport:
    """Run an engine in a temporary work directory. If it fails, the report contains the reason.

    Raises EngineError only if a retry may help.
    """
    from scanner.engines.base import EngineJob, silent_engine
    from scanner.registry.layout import lay_out

    settings = host.settings
    engine = catalog.engines()[engine_id]
    cache = settings.home.absolute() / "cache" / f"{engine_id}-{host.slot}"
    try:
        with telemetry.span(f"engine {engine_id}") as traced, work_directory(settings, "scan") as work:
            layout = lay_out(image, host.blobs, work / "layout", host.files)
            scratch = work / "scratch"
            scratch.mkdir()
            seconds = deadline.share(settings.limits.engine_seconds)
            job = EngineJob(
                image,
                layout,
                scratch,
                cache,
                settings,
                seconds,
                settings.engine_secrets,
                cancelled=host.cancelled,
                running=host.running,
                files=host.files,
            )
            answer = engine.scan(job)
            traced.note(version=answer.version, packages=answer.coverage.packages, complete=not answer.incomplete)
        return with_end_of_life(feeds.annotate(settings, answer), datetime.now(UTC).date())
    except EngineError as error:
        if error.retryable:
            raise
        return silent_engine(engine, settings, error)


def with_end_of_life(answer: EngineReport, today: date) -> EngineReport:
    """Return the answer with the end of life of its operating system.

    After that day the distribution publishes no advisories, so an empty list proves nothing: the answer is incomplete.
    """
    from scanner.model.lifecycle import end_of_life

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
        "unsupported_os", f"{release} is past its end of life ({ends}): its distribution publishes no new advisories"
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
    """Return the outcome of every image check, in the catalogue's order."""
    from scanner.checks.base import ImageSubject

    subject = ImageSubject(image, rootfs, reason, source.reference, secrets if rootfs else None, base=base)
    return tuple(CheckResult(c.id, outcome_of(c, subject), c.severity) for c in catalog.image_checks().values())


def outcome_of(check: ImageCheck, subject: ImageSubject) -> Outcome:
    """Run a check. An exception makes the outcome ``Incomplete``, never passed."""
    try:
        reference = subject.reference if check.looks_at_reference else None
        return _without_secrets(check.examine(replace(subject, parameters=check.parameters, reference=reference)))
    except Exception as error:  # the stage boundary: a bug in one check must not hide what the others found
        log.exception("check %s failed", check.id)
        return Incomplete("check_failed", f"{check.id} failed on this image ({type(error).__name__})")


def _without_secrets(outcome: Outcome) -> Outcome:
    """Return the outcome without secrets. Its evidence quotes instructions, which may contain build arguments."""
    from scanner.checks._secrets import without_secrets

    if isinstance(outcome, Failed):
        evidence, tolerated = (tuple(map(_redacted_evidence, items)) for items in (outcome.evidence, outcome.tolerated))
        return replace(outcome, evidence=evidence, tolerated=tolerated, remedy=without_secrets(outcome.remedy))
    return (
        replace(outcome, tolerated=tuple(map(_redacted_evidence, outcome.tolerated)))
        if isinstance(outcome, Passed)
        else outcome
    )


def _redacted_evidence(evidence: Evidence) -> Evidence:
    from scanner.checks._secrets import without_secrets

    return replace(
        evidence, message=without_secrets(evidence.message), instruction=without_secrets(evidence.instruction)
    )


def decide(
    report: ScanReport,
    policy: Policy,
    workloads: Sequence[Workload] = (),
    results: Sequence[CheckResult] = (),
    remedies: Mapping[str, str] | None = None,
) -> Decision:
    """Decide by one policy, without exemptions and history of a database. Used by the command line.

    ``results``: the results of all workload checks on ``workloads``, which run the image. ``remedies``: those of the
    catalogue, where they are known already.
    """
    context = Context(
        datetime.now(UTC),
        workloads=tuple(workloads),
        workload_results=tuple(results),
        remedies=catalog.remedies() if remedies is None else remedies,
    )
    return evaluate(report, policy, context)
