"""What several engines say of one image, put together: one finding for a package and an advisory, with each engine's
word beside it.

Pure. Two engines name the same thing differently: an advisory by its own id here and by its CVE there, a package URL
with the point release or without. Findings meet where package, version and advisory (or an alias of it) are the
same; everything else stays apart, because merging too much would hide something and merging too little only shows it
twice.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from scanner.model import versions
from scanner.model.finding import Component, EngineReport, Vulnerability
from scanner.model.scan import AttachedSbom

_CVE = re.compile(r"CVE-[0-9]{4}-[0-9]+")
_SEPARATORS = re.compile(r"[-_.]+")
_NO_EPOCH = re.compile(r"^(?:0:|v(?=[0-9])|go(?=[0-9]))")


class Word(StrEnum):
    """An engine's word on one finding. ``unknown``: it does not say so, but its silence proves nothing."""

    AFFECTED = "affected"
    SILENT = "silent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one engine says. ``vulnerability`` is None unless ``word`` is ``affected``."""

    engine: str
    word: Word
    vulnerability: Vulnerability | None = None

    def __str__(self) -> str:
        if self.vulnerability is None:
            return f"{self.engine} does not say so" if self.word is Word.SILENT else f"{self.engine} could not tell"
        return f"{self.engine} says {self.vulnerability.severity}, {f'fixed in {self.fix}' if self.fix else 'no fix'}"

    @property
    def fix(self) -> str:
        """The version that fixes it, says the engine. Empty: it knows none, or of no such vulnerability."""
        said = self.vulnerability
        return versions.upgrade(said.installed_version, said.fixed_versions) if said else ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A vulnerability of a package in one place.

    ``vulnerability`` is the first engine's, made as bad as the worst opinion of it.
    """

    vulnerability: Vulnerability
    opinions: tuple[Opinion, ...]

    @property
    def disputed(self) -> bool:
        """Whether the engines differ: in whether it is there, how bad it is, or whether there is a fix."""
        if any(opinion.word is Word.SILENT for opinion in self.opinions):
            return True
        said = [o.vulnerability for o in self.opinions if o.vulnerability is not None]
        return len({(v.severity, v.fixable) for v in said}) > 1

    @property
    def dispute(self) -> str:
        """Who says what, empty where they agree."""
        return "; ".join(map(str, self.opinions)) if self.disputed else ""


def findings(engines: Sequence[EngineReport]) -> tuple[Finding, ...]:
    """Every finding of these engines' reports about one image, once each."""
    if len(engines) == 1:
        own = engines[0]
        return tuple(Finding(v, (Opinion(own.engine, Word.AFFECTED, v),)) for v in own.vulnerabilities)
    by_package = [_by_package(report.vulnerabilities) for report in engines]
    told: list[set[int]] = [set() for _ in engines]  # identities of what was said as somebody else's counterpart
    found: list[Finding] = []
    for number, report in enumerate(engines):
        for item in report.vulnerabilities:
            if id(item) in told[number]:
                continue
            opinions, said = [], [item]
            for other, reader in enumerate(engines):
                same = [item] if other == number else _same(item, by_package[other].get(_package(item), ()))
                told[other].update(map(id, same))
                said.extend(same)
                opinions.append(_opinion(reader, same))
            found.append(Finding(_worst(said, opinions), tuple(opinions)))
    return tuple(found)


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
    """The same for a vulnerability of a package whoever names the package, as long as they name the vulnerability
    alike.
    """
    return item.id, *_package(item)


def components(engines: Sequence[EngineReport]) -> tuple[Component, ...]:
    """Every package that an engine found: the first one's, completed by what the others say of the same, and those
    only others found.
    """
    found: list[Component] = []
    places: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for number, report in enumerate(engines):
        known = set(places)
        for item in report.components:
            key = _key(item.purl, item.name, item.version)
            if number and key in known:
                for place in places[key]:
                    found[place] = _completed(found[place], item)
            else:
                places[key].append(len(found))
                found.append(item)
    return tuple(found)


def unseen(sbom: AttachedSbom, engines: Sequence[EngineReport]) -> tuple[Component, ...]:
    """What somebody's SBOM lists and no engine found.

    Some of it may be there all the same, where engines do not look.
    """
    seen = {_key(c.purl, c.name, c.version) for report in engines for c in report.components}
    names = {(c.name.lower(), _NO_EPOCH.sub("", c.version)) for report in engines for c in report.components}
    return tuple(
        item
        for item in sbom.components
        if _key(item.purl, item.name, item.version) not in seen
        and (item.name.lower(), _NO_EPOCH.sub("", item.version)) not in names
    )


def _completed(first: Component, other: Component) -> Component:
    return replace(
        first,
        licenses=first.licenses or other.licenses,
        layer=first.layer or other.layer,
        source_name=first.source_name or other.source_name,
        source_version=first.source_version or other.source_version,
    )


def _opinion(report: EngineReport, same: Sequence[Vulnerability]) -> Opinion:
    if same:
        return Opinion(report.engine, Word.AFFECTED, max(same, key=lambda v: v.severity.rank))
    return Opinion(report.engine, Word.UNKNOWN if report.incomplete else Word.SILENT)


def _by_package(items: Iterable[Vulnerability]) -> dict[tuple[str, str, str], list[Vulnerability]]:
    grouped: dict[tuple[str, str, str], list[Vulnerability]] = defaultdict(list)
    for item in items:
        grouped[_package(item)].append(item)
    return grouped


def _package(item: Vulnerability) -> tuple[str, str, str]:
    return _key(item.purl, item.package, item.installed_version)


def _key(purl: str, name: str, version: str) -> tuple[str, str, str]:
    """A package whoever names it: its ecosystem, its name as that ecosystem compares names, its version without an
    epoch of nought.
    """
    kind = purl.removeprefix("pkg:").partition("/")[0]
    if kind == "pypi":  # PEP 503
        name = _SEPARATORS.sub("-", name).lower()
    return kind, name, _NO_EPOCH.sub("", version)


def _same(item: Vulnerability, others: Sequence[Vulnerability]) -> list[Vulnerability]:
    return [other for other in others if _is_same(item, other)]


def _is_same(one: Vulnerability, other: Vulnerability) -> bool:
    """The same id; or one names the other as an alias; or both are no CVE and name the same one.

    Two CVEs that share an advisory stay two: an advisory of a distribution often closes several.
    """
    if one.id == other.id or one.id in other.aliases or other.id in one.aliases:
        return True
    if _CVE.fullmatch(one.id) or _CVE.fullmatch(other.id):
        return False
    return any(_CVE.fullmatch(alias) for alias in set(one.aliases) & set(other.aliases))


def _worst(said: Sequence[Vulnerability], opinions: Sequence[Opinion]) -> Vulnerability:
    """The first engine's words, with what the others add: the worst severity, every score and alias, a fix if
    anybody knows one.
    """
    first, worst = said[0], max(said, key=lambda v: v.severity.rank)
    return replace(
        first,
        severity=worst.severity,
        severity_source=worst.severity_source,
        fixed_versions=next((v.fixed_versions for v in said if v.fixable), ()),
        aliases=tuple(dict.fromkeys(name for v in said for name in (v.id, *v.aliases) if name != first.id)),
        cvss=tuple(dict.fromkeys(score for v in said for score in v.cvss)),
        cwes=tuple(dict.fromkeys(cwe for v in said for cwe in v.cwes)),
        title=next((v.title for v in said if v.title), ""),
        description=next((v.description for v in said if v.description), ""),
        url=next((v.url for v in said if v.url), ""),
        layer=next((v.layer for v in said if v.layer), None),
        engines=tuple(o.engine for o in opinions if o.vulnerability is not None),
    )
