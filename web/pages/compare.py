"""Compare two images: fixed and new findings, changed packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flask import Blueprint, request

from scanner import catalog
from scanner.model.finding import Component, Failed, Passed, Vulnerability
from scanner.model.scan import ImageReport, ScanReport
from scanner.store import listings
from web.auth import permission, principal
from web.pages.base import here, page
from web.resources import resources

bp = Blueprint("compare_page", __name__)

_OFFERED = 20


@dataclass(frozen=True)
class PackageChange:
    """A package with another version. ``before`` or ``after`` is empty if it was added or removed."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Comparison:
    """The differences between two images.

    A check is better only if it passed afterwards; one that became unknown is worse.
    """

    fixed: tuple[Vulnerability, ...]
    introduced: tuple[Vulnerability, ...]
    kept: int  # vulnerabilities of both images
    packages: tuple[PackageChange, ...]
    better: tuple[str, ...]  # ids of checks
    worse: tuple[str, ...]  # ids of checks
    unknown: tuple[str, ...]  # gaps of either image, because of which the lists may be incomplete

    @property
    def same(self) -> bool:
        return not (self.fixed or self.introduced or self.packages or self.better or self.worse)


@bp.get("/images/<digest>/compare")
@permission("read")
def compare_images(digest: str) -> str:
    """Compare the image in the URL with another image that the caller may see.

    htmx requests get only the images to choose from: those that match ``q``, without it those of the same repository.
    """
    projects = principal().projects
    other = request.args.get("with", "").strip()[:140]
    search = request.args.get("q", "").strip()[:200]
    with resources().database.read() as session:
        _, after = listings.newest_report(session, digest, projects)
        names = listings.names(session, digest, projects)
        repository = names[0].repository if names else ""
        narrowed = listings.Filter(search=search) if search else listings.Filter(repository=repository)
        others = listings.list_images(session, projects, narrowed, limit=_OFFERED + 1).items
        # The other digest comes from the address. It is looked up among the caller's projects as well.
        before = listings.newest_report(session, other, projects)[1] if other else None
        before_names = listings.names(session, other, projects) if other else ()
    offered = [item for item in others if item.digest != digest][:_OFFERED]
    found = compare(_first(before), _first(after)) if before else None
    sizes = (_size(before), _size(after)) if before else (0, 0)
    return page(
        "compare_list.html" if request.headers.get("HX-Request") else "compare.html",
        digest=digest,
        names=names,
        asked=other,
        search=search,
        repository=repository,
        before_names=before_names,
        offered=offered,
        found=found,
        sizes=sizes,
        checks=catalog.checks(),
        here=here,
    )


def compare(before: ImageReport | None, after: ImageReport | None) -> Comparison:
    """Compute the differences between two images. Pure function."""
    was, now = _vulnerabilities(before), _vulnerabilities(after)
    old, new = _packages(before), _packages(after)
    changes = [
        PackageChange(name, ", ".join(old.get(name, ())), ", ".join(new.get(name, ())))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    passed, passes = _checks(before), _checks(after)
    # A check that ran on one image only (an older version did not have it) says nothing about a change.
    judged = sorted(passed.keys() & passes.keys())
    return Comparison(
        fixed=_worst(v for key, v in was.items() if key not in now),
        introduced=_worst(v for key, v in now.items() if key not in was),
        kept=len(was.keys() & now.keys()),
        packages=tuple(changes),
        better=tuple(name for name in judged if passes[name] is True and passed[name] is not True),
        worse=tuple(name for name in judged if passes[name] is not True and passed[name] is True),
        unknown=tuple(dict.fromkeys(gap for item in (before, after) for gap in _gaps(item))),
    )


def _first(report: ScanReport) -> ImageReport | None:
    return report.images[0] if report.images else None


def _size(report: ScanReport) -> int:
    return sum(item.image.size for item in report.images)


def _vulnerabilities(item: ImageReport | None) -> Mapping[tuple[str, str], Vulnerability]:
    """Key by id and package without the version: a newer version can have the same vulnerability."""
    return {(v.id, v.package): v for engine in (item.engines if item else ()) for v in engine.vulnerabilities}


def _packages(item: ImageReport | None) -> Mapping[str, Sequence[str]]:
    versions: dict[str, set[str]] = {}
    for component in _components(item):
        versions.setdefault(f"{component.name} ({component.type})", set()).add(component.version)
    return {name: sorted(found) for name, found in versions.items()}


def _components(item: ImageReport | None) -> Sequence[Component]:
    return [c for engine in (item.engines if item else ()) for c in engine.components]


def _checks(item: ImageReport | None) -> Mapping[str, bool | None]:
    """Map check to passed. None means unknown. Checks that do not apply are left out."""
    outcomes = {result.check: result.outcome for result in (item.checks if item else ())}
    judged = {name: o for name, o in outcomes.items() if o.kind != "not-applicable"}
    return {
        name: True if isinstance(o, Passed) else False if isinstance(o, Failed) else None for name, o in judged.items()
    }


def _gaps(item: ImageReport | None) -> Sequence[str]:
    if item is None:
        return ("no image to compare",)
    gaps = (*item.incomplete, *(gap for engine in item.engines for gap in engine.incomplete))
    return [gap.detail or gap.reason for gap in gaps]


def _worst(found: Iterable[Vulnerability]) -> tuple[Vulnerability, ...]:
    return tuple(sorted(found, key=lambda v: (-v.severity.rank, v.id, v.package)))
