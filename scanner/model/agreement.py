"""Merges the reports of several engines about one image: one finding for each package and advisory, with each engine's
opinion.

Pure. Engines name the same thing differently: an advisory by its own id or by its CVE, a package URL with or without
the point release. Findings are merged if package, version and advisory (or an alias of it) are equal. Everything else
stays separate: merging too much would hide a finding, merging too little only shows it twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum

from scanner.lazy_dataclasses import dataclass
from scanner.model import versions
from scanner.model.finding import Component, EngineReport, Vulnerability
from scanner.model.scan import AttachedSbom
from scanner.patterns import lazy

_CVE = lazy(r"CVE-[0-9]{4}-[0-9]+")
# PEP 503: names that differ only here are one package.
_SEPARATORS = lazy(r"[-_.]+")
# Engines write one version with and without these.
_NO_EPOCH = lazy(r"^(?:0:|v(?=[0-9])|go(?=[0-9]))")


class Stance(StrEnum):
    """An engine's stance on one finding. ``unknown``: not reported, but the engine's report is incomplete."""

    AFFECTED = "affected"
    SILENT = "silent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Opinion:
    """The opinion of one engine. ``vulnerability`` is None unless ``word`` (its stance) is ``affected``."""

    engine: str
    word: Stance
    vulnerability: Vulnerability | None = None

    def __str__(self) -> str:
        if self.vulnerability is None:
            return (
                f"{self.engine} does not report it" if self.word is Stance.SILENT else f"{self.engine} could not tell"
            )
        fix = f"fixed in {self.fix}" if self.fix else "no fix"
        return f"{self.engine} reports {self.vulnerability.severity}, {fix}"

    @property
    def fix(self) -> str:
        """The version that this engine reports as the fix. Empty: no fix, or it does not report the vulnerability."""
        found = self.vulnerability
        return versions.upgrade(found.installed_version, found.fixed_versions) if found else ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A vulnerability of a package in one place.

    ``vulnerability``: the first engine's, with the worst severity of all opinions.
    """

    vulnerability: Vulnerability
    opinions: tuple[Opinion, ...]

    @property
    def reported(self) -> tuple[Vulnerability, ...]:
        """What the engines that found it report."""
        return tuple(o.vulnerability for o in self.opinions if o.vulnerability is not None)

    @property
    def disputed(self) -> bool:
        """True if the engines differ in whether it exists, in severity, or in whether there is a fix."""
        if any(opinion.word is Stance.SILENT for opinion in self.opinions):
            return True
        return len({(v.severity, v.fixable) for v in self.reported}) > 1

    @property
    def dispute(self) -> str:
        """The opinions as text; empty if the engines agree."""
        return "; ".join(map(str, self.opinions)) if self.disputed else ""


def findings(engines: Sequence[EngineReport]) -> tuple[Finding, ...]:
    """Merge the findings of several reports about one image."""
    if len(engines) == 1:
        own = engines[0]
        return tuple(Finding(v, (Opinion(own.engine, Stance.AFFECTED, v),)) for v in own.vulnerabilities)
    by_package = [_by_package(report.vulnerabilities) for report in engines]
    # id() of findings that were merged into another engine's -> the CVEs of these.
    merged: list[dict[int, set[str]]] = [{} for _ in engines]
    found: list[Finding] = []
    for number, report in enumerate(engines):
        for item in report.vulnerabilities:
            # An advisory that fixes several CVEs is a finding of its own until each of them is one: otherwise an
            # exemption or a VEX statement about one CVE would cover the others too.
            if (into := merged[number].get(id(item))) is not None and (len(cves := _cves(item)) < 2 or cves <= into):
                continue
            opinions, counterparts = [], [item]
            for other, reader in enumerate(engines):
                same = (
                    [item]
                    if other == number
                    else _same_vulnerabilities(item, by_package[other].get(_package(item), ()))
                )
                for each in same:
                    merged[other].setdefault(id(each), set()).update(_cves(item))
                counterparts.extend(same)
                opinions.append(_opinion(reader, same))
            found.append(Finding(_worst(counterparts, opinions), tuple(opinions)))
    return tuple(found)


def is_cve(name: str) -> bool:
    """Return whether a vulnerability's name is a CVE's."""
    return _CVE.fullmatch(name) is not None


def _cves(item: Vulnerability) -> set[str]:
    """Return the CVEs that a finding stands for: its id, or the aliases of an advisory."""
    return {item.id} if is_cve(item.id) else {name for name in item.aliases if is_cve(name)}


class Upgrades:
    """For each package of these findings the one version that fixes all of them that can be fixed."""

    def __init__(self, found: Iterable[Finding]) -> None:
        fixes: dict[tuple[str, str, str], set[tuple[str, ...]]] = defaultdict(set)
        for one in found:
            fixes[_version(one.vulnerability)].add(one.vulnerability.fixed_versions)
        self._fixes, self._known = fixes, dict[tuple[str, str, str], str]()

    def of(self, item: Vulnerability) -> str:
        """The version to upgrade the package to. Empty: this very finding has no fix."""
        if not item.fixable:
            return ""
        name = _version(item)
        if name not in self._known:
            self._known[name] = versions.common_upgrade(
                item.installed_version, self._fixes.get(name) or [item.fixed_versions]
            )
        return self._known[name]


def _version(item: Vulnerability) -> tuple[str, str, str]:
    return item.purl.partition("/")[0], item.package, item.installed_version


def identity(item: Vulnerability) -> tuple[str, str, str, str]:
    """A key that is equal for a vulnerability of a package in all engines, if they use the same id for the
    vulnerability.
    """
    return item.id, *_package(item)


def components(engines: Sequence[EngineReport]) -> tuple[Component, ...]:
    """Merge the packages of several engines: the first one's, completed by the others, and packages that only others
    found.
    """
    found: list[Component] = []
    places: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for number, report in enumerate(engines):
        known = set(places)
        for item in report.components:
            key = _key(item.purl, item.name, item.version)
            if number and key in known:
                for place in places[key]:
                    found[place] = _merged_component(found[place], item)
            else:
                places[key].append(len(found))
                found.append(item)
    return tuple(found)


def unseen(sbom: AttachedSbom, engines: Sequence[EngineReport]) -> tuple[Component, ...]:
    """Components that an attached SBOM lists and no engine found. Some may exist where engines do not look."""
    seen = {_key(c.purl, c.name, c.version) for report in engines for c in report.components}
    names = {(c.name.lower(), _NO_EPOCH.sub("", c.version)) for report in engines for c in report.components}
    return tuple(
        item
        for item in sbom.components
        if _key(item.purl, item.name, item.version) not in seen
        and (item.name.lower(), _NO_EPOCH.sub("", item.version)) not in names
    )


def _merged_component(first: Component, other: Component) -> Component:
    return replace(
        first,
        licenses=first.licenses or other.licenses,
        layer=first.layer or other.layer,
        source_name=first.source_name or other.source_name,
        source_version=first.source_version or other.source_version,
    )


def _opinion(report: EngineReport, same: Sequence[Vulnerability]) -> Opinion:
    if same:
        return Opinion(report.engine, Stance.AFFECTED, max(same, key=lambda v: v.severity.rank))
    return Opinion(report.engine, Stance.UNKNOWN if report.incomplete else Stance.SILENT)


def _by_package(items: Iterable[Vulnerability]) -> dict[tuple[str, str, str], list[Vulnerability]]:
    grouped: dict[tuple[str, str, str], list[Vulnerability]] = defaultdict(list)
    for item in items:
        grouped[_package(item)].append(item)
    return grouped


def _package(item: Vulnerability) -> tuple[str, str, str]:
    return _key(item.purl, item.package, item.installed_version)


def _key(purl: str, name: str, version: str) -> tuple[str, str, str]:
    """A key that is equal for a package in all engines: ecosystem, normalised name, version without a zero epoch."""
    kind = purl.removeprefix("pkg:").partition("/")[0]
    if kind == "pypi":  # PEP 503
        name = _SEPARATORS.sub("-", name).lower()
    return kind, name, _NO_EPOCH.sub("", version)


def _same_vulnerabilities(item: Vulnerability, others: Sequence[Vulnerability]) -> list[Vulnerability]:
    return [other for other in others if _is_same(item, other)]


def _is_same(one: Vulnerability, other: Vulnerability) -> bool:
    """True if the ids are equal, one is an alias of the other, or neither is a CVE and both have the same CVE as alias.

    Two CVEs with a common advisory stay separate, because a distribution's advisory often fixes several.
    """
    if one.id == other.id or one.id in other.aliases or other.id in one.aliases:
        return True
    if _CVE.fullmatch(one.id) or _CVE.fullmatch(other.id):
        return False
    return any(_CVE.fullmatch(alias) for alias in set(one.aliases) & set(other.aliases))


def _worst(items: Sequence[Vulnerability], opinions: Sequence[Opinion]) -> Vulnerability:
    """The first engine's texts, completed by the others: worst severity, all scores and aliases, and a fix if any
    has one.
    """
    first, worst = items[0], max(items, key=lambda v: v.severity.rank)
    return replace(
        first,
        severity=worst.severity,
        severity_source=worst.severity_source,
        fixed_versions=next((v.fixed_versions for v in items if v.fixable), ()),
        aliases=tuple(dict.fromkeys(name for v in items for name in (v.id, *v.aliases) if name != first.id)),
        cvss=tuple(dict.fromkeys(score for v in items for score in v.cvss)),
        # Engines may have looked at catalogues of different days, or one of them does not know the CVE.
        known_exploited=max((v.known_exploited for v in items if v.known_exploited is not None), default=None),
        epss=max((v.epss for v in items if v.epss is not None), default=None),
        cwes=tuple(dict.fromkeys(cwe for v in items for cwe in v.cwes)),
        title=next((v.title for v in items if v.title), ""),
        description=next((v.description for v in items if v.description), ""),
        url=next((v.url for v in items if v.url), ""),
        layer=next((v.layer for v in items if v.layer), None),
        engines=tuple(o.engine for o in opinions if o.vulnerability is not None),
    )
