"""What engines say of the packages that somebody's SBOMs list, looked up without the image.

Kept beside the SBOM, apart from what engines found in the image. A policy may ask for it; how far it can be believed
is said with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from scanner.advisories import feeds
from scanner.config import Settings
from scanner.engines.base import Engine, MatchJob, MatchReport, silent_engine
from scanner.errors import EngineError, LimitExceeded
from scanner.model.finding import Component, Coverage, EngineReport, Incomplete, Vulnerability
from scanner.model.matching import Package
from scanner.model.release import Release, disagreement
from scanner.model.scan import AttachedSbom
from scanner.model.untrusted import clean_text
from scanner.registry.work_directories import work_directory


@dataclass(frozen=True)
class Means:
    """What a look-up works with: whose cache, and how long it may take, asked when it begins (raises LimitExceeded:
    no time is left). ``release``: what the image's own os-release says; None: the image has none.
    """

    settings: Settings
    slot: str
    seconds: Callable[[], float]
    cancelled: Callable[[], bool]
    release: Release | None = None


def looked_up(sboms: Sequence[AttachedSbom], engines: Iterable[Engine], means: Means) -> tuple[AttachedSbom, ...]:
    """The SBOMs with each engine's answer about what they list, each package asked for once.

    An engine that cannot answer says why.

    Raises EngineError only for what was cancelled.
    """
    if not any(sbom.components for sbom in sboms):
        return tuple(sboms)
    by_engine = [_answers(engine, sboms, means) for engine in engines]
    return tuple(
        replace(sbom, answers=answers) if sbom.components else sbom
        for sbom, answers in zip(sboms, zip(*by_engine, strict=True), strict=True)
    )


def _answers(engine: Engine, sboms: Sequence[AttachedSbom], means: Means) -> Sequence[EngineReport]:
    """One answer an SBOM."""
    listed = [[(item, engine.package_of(item)) for item in sbom.components if not _is_none(item)] for sbom in sboms]
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
    """Whether an SBOM is of another system than the image that it is attached to; empty: it is not, or names none."""
    systems = [item for item in sbom.components if item.type == "operating-system"]
    why = (disagreement(item.name, item.version, release or Release()) for item in systems)
    return next(filter(None, why), "").replace("the engine took the image for", "the SBOM says that the image is")


def _is_none(item: Component) -> bool:
    """Whether this names no package: the system itself, or the file that others were listed in."""
    return not item.purl and (item.type == "operating-system" or (item.type == "application" and not item.version))


def _ask(engine: Engine, packages: Sequence[Package], means: Means) -> MatchReport:
    settings = means.settings
    most = settings.limits.packages
    if len(packages) > most:
        raise LimitExceeded(
            f"the SBOMs list {len(packages)} packages, more than the {most} that an engine is given",
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
            *(
                Incomplete("no_advisories", f"the advisories of {engine.id} say nothing of {kind}")
                for kind in uncovered
            ),
            *_gaps(untold, known, len(found) - most),
        ),
    )
    return feeds.annotate(settings, report)


def _gaps(
    untold: Sequence[Component], known: Mapping[str, tuple[Vulnerability, ...]], too_many: int
) -> Iterable[Incomplete]:
    if untold:
        first = untold[0].purl or f"{untold[0].name} {untold[0].version}".strip() or "one without a name"
        more = f" and {len(untold) - 1} more" if len(untold) > 1 else ""
        yield Incomplete("not_looked_up", f"nothing could be looked up for {first}{more}")
    if not known:
        yield Incomplete("nothing_to_scan", "the SBOM lists no package that could be looked up")
    if too_many > 0:
        yield Incomplete("limit_exceeded", f"{too_many} vulnerabilities of the SBOM's packages were left out")
