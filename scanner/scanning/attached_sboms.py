"""Look-up of the packages that attached SBOMs list.

Anyone who can push to the repository can attach an SBOM, so its findings are kept apart from those of the image. A
policy decides whether they count (``attached_sboms.accept``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from scanner.advisories import feeds
from scanner.config import Settings
from scanner.engines.base import Engine, MatchJob, MatchReport, silent_engine
from scanner.errors import EngineError, LimitExceeded
from scanner.lazy_dataclasses import dataclass
from scanner.model.finding import Component, Coverage, EngineReport, Incomplete, Vulnerability
from scanner.model.matching import Package
from scanner.model.release import Release, disagreement
from scanner.model.scan import AttachedSbom
from scanner.model.untrusted import clean_text
from scanner.registry.work_directories import work_directory


@dataclass(frozen=True)
class LookupContext:
    """The resources and limits of a look-up.

    ``slot``: the worker's, which selects the engine's cache. ``seconds``: returns the remaining time, or raises
    LimitExceeded. ``release``: from the image's os-release; None: the image has none.
    """

    settings: Settings
    slot: str
    seconds: Callable[[], float]
    cancelled: Callable[[], bool]
    release: Release | None = None


def look_up(sboms: Sequence[AttachedSbom], engines: Iterable[Engine], means: LookupContext) -> tuple[AttachedSbom, ...]:
    """Return the SBOMs with the answer of each engine. Each package is looked up once.

    The answer of a failed engine contains the reason. Raises EngineError only if the scan was cancelled.
    """
    if not any(sbom.components for sbom in sboms):
        return tuple(sboms)
    by_engine = [_answers(engine, sboms, means) for engine in engines]
    return tuple(
        replace(sbom, answers=answers) if sbom.components else sbom
        for sbom, answers in zip(sboms, zip(*by_engine, strict=True), strict=True)
    )


def _answers(engine: Engine, sboms: Sequence[AttachedSbom], means: LookupContext) -> Sequence[EngineReport]:
    """Return one answer per SBOM."""
    listed = [
        [(item, engine.package_of(item)) for item in sbom.components if not _is_no_package(item)] for sbom in sboms
    ]
    packages = {package.key: package for items in listed for _, package in items if package is not None}
    try:
        answer = _ask(engine, tuple(packages.values()), means)
    except (EngineError, LimitExceeded) as error:
        if error.reason == "cancelled":
            raise
        return [silent_engine(engine, means.settings, error)] * len(sboms)
    return [
        _answer(engine, items, answer, means.settings, _other_release(sbom, means.release))
        for sbom, items in zip(sboms, listed, strict=True)
    ]


def _other_release(sbom: AttachedSbom, release: Release | None) -> str:
    """Return how the SBOM's operating system differs from the image's. Empty: it does not, or the SBOM has none.

    An SBOM of another release would be matched with the wrong advisories and look clean.
    """
    systems = [item for item in sbom.components if item.type == "operating-system"]
    why = (disagreement(item.name, item.version, release or Release()) for item in systems)
    return next(filter(None, why), "").replace("the engine treated the image as", "the SBOM says that the image is")


def _is_no_package(item: Component) -> bool:
    """Return whether a component is not a package: the operating system, or a file that contains packages."""
    return not item.purl and (item.type == "operating-system" or (item.type == "application" and not item.version))


def _ask(engine: Engine, packages: Sequence[Package], means: LookupContext) -> MatchReport:
    settings = means.settings
    most = settings.limits.packages
    if len(packages) > most:
        raise LimitExceeded(
            f"the SBOMs list {len(packages)} packages, more than the limit of {most}",
            hint="see limit_packages in docs/settings.md",
        )
    with work_directory(settings, "sbom") as work:
        cache = settings.home.absolute() / "cache" / f"{engine.id}-{means.slot}"
        return engine.look_up(MatchJob(packages, "", work, cache, settings, means.seconds(), means.cancelled))


def _answer(
    engine: Engine,
    listed: Sequence[tuple[Component, Package | None]],
    answer: MatchReport,
    settings: Settings,
    other_release: str,
) -> EngineReport:
    known = {p.key: answer.found[p.key] for _, p in listed if p is not None and p.key in answer.found}
    uncovered = sorted({p.type for _, p in listed if p is not None and p.type in answer.uncovered})
    untold = [i for i, p in listed if p is None or (p.key not in known and p.type not in uncovered)]
    most = settings.limits.report_findings
    found = [vulnerability for items in known.values() for vulnerability in items]
    report = EngineReport(
        engine.id,
        answer.version,
        answer.binary,
        answer.advisories,
        Coverage(packages=len(known), without_advisories=tuple(uncovered)),
        vulnerabilities=tuple(found[:most]),
        incomplete=(
            *(Incomplete("release_disagrees", clean_text(text, 500)) for text in (other_release,) if text),
            *(Incomplete("no_advisories", f"{engine.id} has no advisories for {kind} packages") for kind in uncovered),
            *_gaps(untold, known, len(found) - most),
        ),
    )
    return feeds.annotate(settings, report)


def _gaps(
    untold: Sequence[Component], known: Mapping[str, tuple[Vulnerability, ...]], too_many: int
) -> Iterable[Incomplete]:
    if untold:
        first = untold[0].purl or f"{untold[0].name} {untold[0].version}".strip() or "a package without a name"
        more = f" and {len(untold) - 1} more" if len(untold) > 1 else ""
        yield Incomplete("not_looked_up", f"the engine could not look up {first}{more}")
    if not known:
        yield Incomplete("nothing_to_scan", "the SBOM lists no package that the engine can look up")
    if too_many > 0:
        yield Incomplete(
            "limit_exceeded", f"{too_many} vulnerabilities of the SBOM's packages were dropped (limit_report_findings)"
        )
