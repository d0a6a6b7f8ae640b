"""What an engine's answer about a package depends on, and how answers are compared.

The same package version is in hundreds of images. An engine that can answer without an image is asked once. Its answers
are compared by fingerprint, and only changed evidence is written.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import orjson

from scanner.lazy_dataclasses import dataclass
from scanner.model.finding import AdvisoryStatus, Component, EngineReport, Vulnerability
from scanner.model.reference import Digest

# EPSS scores change daily. An answer has changed only if a score crosses one of these, or one in an active policy.
RUNGS = (0.01, 0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Package:
    """One package version of one release.

    ``os``: the release (such as ``debian 12.8``) for packages of the operating system, otherwise empty.
    """

    engine: str
    os: str
    type: str
    purl: str
    name: str
    version: str
    source_name: str = ""  # advisories of distributions name the source package
    source_version: str = ""
    module: str = ""  # of an RPM; empty: none

    @cached_property
    def key(self) -> str:
        """The key under which answers are stored."""
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
    """The package of a component in this report."""
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
    """All packages of a report, with their vulnerabilities."""
    found: dict[tuple[str, str, str], list[Vulnerability]] = defaultdict(list)
    for item in report.vulnerabilities:
        found[item.purl, item.package, item.installed_version].append(item)
    packages = {package_of(report, component): component for component in report.components}
    return {package: tuple(found[c.purl, c.name, c.version]) for package, c in packages.items()}


NOT_COMPARED = -1
"""Fingerprint of a package without advisories to compare with: every later answer differs from it."""


def without_advisories(report: EngineReport) -> frozenset[str]:
    """Keys of the packages in a report for which there were no advisories."""
    missing = report.coverage.without_advisories
    return frozenset(package_of(report, c).key for c in report.components if c.type in missing)


def fingerprint(items: Iterable[Vulnerability], rungs: Sequence[float] = RUNGS) -> int:
    """Fingerprint of the findings: 0 for none, otherwise 63 bits over everything that a policy can use, in any
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
    """Replace the vulnerabilities of a report by newer answers (by package key), at the places of the components.

    Packages without an answer keep theirs. Raises KeyError if two packages that a report cannot tell apart (same purl,
    name and version, other source) have an answer for only one of them.
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
    """What answers depend on: an engine, its advisories, the feeds, and the EPSS thresholds (``rungs``)."""

    engine: str
    version: str
    binary: Digest | None  # digest of the engine's program; None: it runs elsewhere
    advisories: AdvisoryStatus
    feeds: tuple[AdvisoryStatus, ...] = ()
    rungs: tuple[float, ...] = RUNGS

    @cached_property
    def id(self) -> str:
        # A new database with the same content is still newer: answers that it confirms are as fresh as it is.
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
    """The basis of a report's vulnerabilities."""
    by = report.matched
    version, binary = (by.version, by.binary) if by else (report.version, report.binary)
    return Basis(report.engine, version, binary, report.advisories, report.feeds, tuple(rungs))


@dataclass(frozen=True)
class Confirmed:
    """An engine's answer about an image (by digest) that was confirmed unchanged on a newer basis."""

    image: str
    engine: str
    on: Basis
