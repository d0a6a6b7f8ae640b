"""The rows of an image's evidence tabs: narrowed, sorted and cut into pages by the parameters in the address.

Pure: evidence and parameters in, rows out. A page of evidence is cut here and not in SQL, because the evidence of an
image is one stored document.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from scanner.model import agreement, versions
from scanner.model.finding import CheckResult, Component, Failed, Severity, Vulnerability
from scanner.model.image import instruction
from scanner.model.lineage import BaseImage, Origin, vulnerability_origin
from scanner.model.scan import ImageReport

T = TypeVar("T")
# Of one page.
ROWS = 20
STATUSES = {
    "will_not_fix": "will not be fixed",
    "fix_deferred": "fix deferred",
    "under_investigation": "under investigation",
    "end_of_life": "release is end of life",
}
OUTCOMES = ("failed", "incomplete", "passed", "not-applicable")
SEVERITIES = ("critical", "high", "medium", "low", "unknown")


@dataclass(frozen=True)
class Rows(Generic[T]):
    """One page of rows. ``matching``: rows that pass the filters. ``total``: rows without filters."""

    items: Sequence[T]
    matching: int
    total: int
    number: int  # of this page, from 1
    pages: int

    @property
    def first(self) -> int:
        """The number of the first shown row, counted from 1."""
        return (self.number - 1) * ROWS + 1

    @property
    def numbers(self) -> Sequence[int]:
        """The pages to link: the first, the last, and those around this one. 0 marks a gap."""
        near = {1, self.pages, *range(self.number - 1, self.number + 2)}
        shown = sorted(n for n in near if 1 <= n <= self.pages)
        gaps = [[0] if after - before > 1 else [] for before, after in zip([0, *shown], shown, strict=False)]
        return [n for gap, number in zip(gaps, shown, strict=True) for n in (*gap, number)]


@dataclass(frozen=True)
class FindingQuery:
    """The parameters of the address. ``sort``: a column, with a leading minus for descending."""

    search: str = ""
    severities: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    fixable: bool = False
    exploited: bool = False
    origin: str = ""  # base, own, or empty: both
    sort: str = ""
    number: int = 1  # of the page, from 1

    @classmethod
    def of(cls, given: Any) -> FindingQuery:
        """Parse a query string (a werkzeug MultiDict). Unknown values are ignored."""
        # The length is limited below, because int() raises for a number of thousands of digits.
        number = given.get("page", "1")
        return cls(
            search=given.get("q", "").strip().lower()[:200],
            severities=tuple(s for s in SEVERITIES if s in given.getlist("severity")),
            outcomes=tuple(o for o in OUTCOMES if o in given.getlist("outcome")),
            fixable=given.get("fixable") == "1",
            exploited=given.get("exploited") == "1",
            origin=given.get("origin", "") if given.get("origin") in ("base", "own") else "",
            sort=given.get("sort", "")[:20],
            number=int(number) if number.isdecimal() and len(number) < 7 else 1,
        )


@dataclass(frozen=True)
class PackageRow:
    """The vulnerabilities of one package version, highest severity first."""

    name: str
    version: str
    items: tuple[Vulnerability, ...]
    layer: int | None  # index, from 0; None: unknown
    instruction: str
    origin: Origin

    @property
    def worst(self) -> Severity:
        return max((v.severity for v in self.items), key=lambda s: s.rank)

    @property
    def newest(self) -> int:
        """The day on which the newest advisory of the highest severity was published, as an ordinal."""
        return max(_day(v) for v in self.items if v.severity is self.worst)

    @property
    def fixes(self) -> tuple[str, ...]:
        """The lowest version that fixes every fixable vulnerability. Empty if none is fixable."""
        to = versions.common_upgrade(self.version, [v.fixed_versions for v in self.items])
        return (to,) if to else ()

    @property
    def without_fix(self) -> tuple[str, ...]:
        """The distribution's status of vulnerabilities without a fix."""
        return tuple(dict.fromkeys(STATUSES.get(v.status, "no fix yet") for v in self.items if not v.fixable))


_PACKAGE_SORTS: Mapping[str, Callable[[PackageRow], Any]] = {
    "package": lambda row: (row.name.lower(), row.version),
    "severity": lambda row: (row.worst.rank, row.newest, len(row.items)),
    "count": lambda row: len(row.items),
    "epss": lambda row: max((v.epss or 0.0 for v in row.items), default=0.0),
    "layer": lambda row: -1 if row.layer is None else row.layer,
}
_COMPONENT_SORTS: Mapping[str, Callable[[Component], Any]] = {
    "name": lambda c: (c.name.lower(), c.version),
    "type": lambda c: (c.type, c.name.lower()),
    "licence": lambda c: (not c.licenses, ", ".join(c.licenses).lower(), c.name.lower()),
    "path": lambda c: (c.path, c.name.lower()),
}


def packages(item: ImageReport | None, base: BaseImage | None, asked: FindingQuery) -> Rows[PackageRow]:
    """Group the vulnerabilities that match by package, worst first, then the newest advisory first."""
    found = [one.vulnerability for one in agreement.findings(item.engines if item else ())]
    total = len({(v.package, v.installed_version) for v in found})
    grouped: dict[tuple[str, str], list[Vulnerability]] = defaultdict(list)
    for v in found:
        if _matches(v, asked):
            grouped[v.package, v.installed_version].append(v)
    rows = [_row(name, version, kept, item, base) for (name, version), kept in grouped.items()]
    if asked.origin:
        rows = [row for row in rows if row.origin == asked.origin]
    # First by name: the sort by a column is stable, and equal rows stay in a known order.
    rows.sort(key=lambda row: (row.name.lower(), row.version))
    return _page_of(_sort_rows(rows, _PACKAGE_SORTS, asked.sort or "-severity"), total, asked.number)


def severities(item: ImageReport | None) -> Mapping[str, int]:
    """Count the vulnerabilities by severity, without filters. ``fixable``, ``exploited``: of all severities."""
    found = [one.vulnerability for one in agreement.findings(item.engines if item else ())]
    return {
        **Counter(str(v.severity) for v in found),
        "all": len(found),
        "fixable": sum(v.fixable for v in found),
        "exploited": sum(bool(v.known_exploited) for v in found),
    }


def checks(results: Iterable[CheckResult], titles: Mapping[str, str], asked: FindingQuery) -> Rows[CheckResult]:
    """Failed checks first, highest severity first; then unknown, passed and those that do not apply."""
    every = list(results)
    kept = [
        result
        for result in every
        if (not asked.outcomes or result.outcome.kind in asked.outcomes)
        and (not asked.severities or str(_severity(result)) in asked.severities)
        and asked.search in f"{result.check} {titles.get(result.check, '')}".lower()
    ]
    kept.sort(key=lambda r: (OUTCOMES.index(r.outcome.kind), -_severity(r).rank, titles.get(r.check, r.check)))
    return _page_of(kept, len(every), asked.number)


def components(item: ImageReport | None, asked: FindingQuery) -> Rows[Component]:
    """The packages of an image, by name."""
    every = agreement.components(item.engines if item else ())
    kept = [c for c in every if asked.search in f"{c.name} {c.version} {c.purl} {' '.join(c.licenses)}".lower()]
    kept.sort(key=lambda c: (c.name.lower(), c.version, c.type))
    return _page_of(_sort_rows(kept, _COMPONENT_SORTS, asked.sort or "name"), len(every), asked.number)


def _matches(v: Vulnerability, asked: FindingQuery) -> bool:
    return (
        (not asked.severities or str(v.severity) in asked.severities)
        and (v.fixable or not asked.fixable)
        and (bool(v.known_exploited) or not asked.exploited)
        and asked.search in f"{v.id} {' '.join(v.aliases)} {v.package} {v.title}".lower()
    )


def _row(
    name: str, version: str, found: Sequence[Vulnerability], item: ImageReport | None, base: BaseImage | None
) -> PackageRow:
    layer = item.image.layer_of(found[0].layer) if item else None
    ranked = tuple(sorted(found, key=lambda v: (-v.severity.rank, -_day(v), v.id)))
    return PackageRow(
        name,
        version,
        ranked,
        layer.index if layer else None,
        instruction(layer.created_by) if layer else "",
        vulnerability_origin(found[0], item.image, base) if item else Origin.UNKNOWN,
    )


def _day(v: Vulnerability) -> int:
    return v.published.toordinal() if v.published else 0


def _severity(result: CheckResult) -> Severity:
    return (result.outcome.severity if isinstance(result.outcome, Failed) else None) or result.severity


def _sort_rows(rows: list[T], sorts: Mapping[str, Callable[[T], Any]], sort: str) -> list[T]:
    """Sort by a column; an unknown one keeps the order. Equal rows keep their order in both directions."""
    key = sorts.get(sort.removeprefix("-"))
    return sorted(rows, key=key, reverse=sort.startswith("-")) if key else rows


def _page_of(rows: Sequence[T], total: int, number: int) -> Rows[T]:
    pages = max(1, -(-len(rows) // ROWS))
    # A filter leaves fewer pages than the bookmarked one: the last is shown instead of none.
    number = min(max(1, number), pages)
    return Rows(rows[(number - 1) * ROWS : number * ROWS], len(rows), total, number, pages)
