"""What an engine's answer about a package depends on, and how two answers are told apart.

The same package version is in hundreds of images. An engine that can answer for it without any image is asked once;
whoever holds evidence compares fingerprints, and touches only what an answer changed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import orjson

from scanner.model.finding import AdvisoryStatus, Component, EngineReport, Vulnerability
from scanner.model.reference import Digest

# EPSS moves a little every day: an answer has changed when a score passes one of these, or one that a policy in force
# names.
RUNGS = (0.01, 0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Package:
    """One package version of one release.

    ``os`` is the release where the operating system keeps the package, else empty.
    """

    engine: str
    os: str
    type: str
    purl: str
    name: str
    version: str
    source_name: str = ""
    source_version: str = ""
    module: str = ""

    @cached_property
    def key(self) -> str:
        """What it is stored under."""
        parts = (
            self.engine,
            self.os,
            self.type,
            self.purl,
            self.name,
            self.version,
            self.source_name,
            self.source_version,
            self.module,
        )
        return hashlib.sha256(orjson.dumps(parts)).hexdigest()


def package_of(report: EngineReport, item: Component) -> Package:
    """The package that a component of this report is an instance of."""
    family, release = report.coverage.os_family, report.coverage.os_version
    return Package(
        report.engine,
        f"{family} {release}".strip() if item.type == family else "",
        item.type,
        item.purl,
        item.name,
        item.version,
        item.source_name,
        item.source_version,
        item.module,
    )


def by_package(report: EngineReport) -> Mapping[Package, tuple[Vulnerability, ...]]:
    """Every package of a report with what was found in it."""
    found: dict[tuple[str, str, str], list[Vulnerability]] = defaultdict(list)
    for item in report.vulnerabilities:
        found[item.purl, item.package, item.installed_version].append(item)
    packages = {package_of(report, component): component for component in report.components}
    return {package: tuple(found[c.purl, c.name, c.version]) for package, c in packages.items()}


UNTOLD = -1
"""The fingerprint of what an engine had no advisories to compare with: any answer is another one."""


def without_advisories(report: EngineReport) -> frozenset[str]:
    """The keys of the packages of a report that nothing was compared with."""
    missing = report.coverage.without_advisories
    return frozenset(package_of(report, c).key for c in report.components if c.type in missing)


def fingerprint(items: Iterable[Vulnerability], rungs: Sequence[float] = RUNGS) -> int:
    """0 for nothing found; else 63 bits over everything that a policy can ask of a vulnerability, whatever the
    order.
    """
    facts = sorted({_facts(item, rungs) for item in items})
    if not facts:
        return 0
    return int.from_bytes(hashlib.sha256(b"\n".join(facts)).digest()[:8], "big") >> 1 or 1


def _facts(item: Vulnerability, rungs: Sequence[float]) -> bytes:
    scores = sorted((c.source, c.version, c.score) for c in item.cvss)
    epss = None if item.epss is None else max((rung for rung in rungs if rung <= item.epss), default=0.0)
    return orjson.dumps(
        (
            item.id,
            sorted(item.aliases),
            item.fixed_versions,
            item.severity,
            item.status,
            scores,
            item.known_exploited,
            epss,
        )
    )


def rebuilt(report: EngineReport, answers: Mapping[str, Sequence[Vulnerability]]) -> tuple[Vulnerability, ...]:
    """The vulnerabilities of a report as newer answers (by package key) have them, each where its component lies.

    Of packages that were not answered for, what the report says stays. Raises KeyError where one of two packages
    that a report cannot tell apart (same purl, name and version, other source) was answered for and the other was
    not.
    """
    packages = [(package_of(report, component).key, component) for component in report.components]
    answered = {(c.purl, c.name, c.version) for key, c in packages if key in answers}
    kept = [v for v in report.vulnerabilities if (v.purl, v.package, v.installed_version) not in answered]
    new = (
        replace(item, layer=component.layer, path=component.path)
        for key, component in packages
        if (component.purl, component.name, component.version) in answered
        for item in sorted(answers[key], key=lambda v: v.id)
    )
    return (*kept, *new)


@dataclass(frozen=True)
class Basis:
    """What answers rest on: an engine, its advisories, the feeds that were asked, and the rungs of EPSS."""

    engine: str
    version: str
    binary: Digest | None
    advisories: AdvisoryStatus
    feeds: tuple[AdvisoryStatus, ...] = ()
    rungs: tuple[float, ...] = RUNGS

    @cached_property
    def id(self) -> str:
        # A database that says the same as the day before is newer all the same: what it confirms is as fresh as it.
        built = self.advisories.updated_at.isoformat() if self.advisories.updated_at else ""
        parts = (
            self.engine,
            self.version,
            self.binary,
            self.advisories.id,
            built,
            *(feed.id for feed in self.feeds),
            *self.rungs,
        )
        return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:40]


def basis_of(report: EngineReport, rungs: Sequence[float] = RUNGS) -> Basis:
    """What a report's vulnerabilities rest on."""
    by = report.matched
    version, binary = (by.version, by.binary) if by else (report.version, report.binary)
    return Basis(report.engine, version, binary, report.advisories, report.feeds, tuple(rungs))


@dataclass(frozen=True)
class Confirmed:
    """A newer basis on which an engine's answer about an image (by digest) was found to be the same."""

    image: str
    engine: str
    on: Basis
