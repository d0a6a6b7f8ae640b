"""Clair v4 as an engine: it is offered our verified layers, indexes them, and its answer is read as strictly as any
other.

Clair remembers what it indexed under the image's digest, so an image is offered once for each state of its indexer
and afterwards only matched. It answers 202 without a body while it knows no vulnerability, and nothing at all for a
distribution it has no advisories for: both look like "clean", and neither is.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from packageurl import PackageURL

from scanner.config import Limits, Settings
from scanner.engines import _clair_updaters
from scanner.engines._answers import as_dict, as_exact_text, as_link, as_list, as_score, as_severity, as_text, at_most
from scanner.engines._clair_client import ClairClient, configured_url, read_document
from scanner.engines._layer_server import own_address, serve_layers
from scanner.engines.base import Engine, EngineJob
from scanner.errors import EngineError
from scanner.model.finding import (
    CVSS,
    NO_PACKAGE,
    NO_SYSTEM,
    AdvisoryStatus,
    Component,
    Coverage,
    EngineReport,
    Incomplete,
    Severity,
    Vulnerability,
)
from scanner.model.image import Image
from scanner.model.reference import Digest
from scanner.model.untrusted import clean_text
from scanner.registry.manifest import parse_time

_TEXT, _SHORT, _MANY = 4096, 512, 50
_LIMITS = Limits()
_dict, _list = partial(as_dict, engine="Clair"), partial(as_list, engine="Clair")
_ASK_SECONDS = 5.0
_KNOWN_IMAGES = 100_000
_FINISHED = "IndexFinished"
_SEVERITIES = {
    "Negligible": Severity.LOW,  # as Trivy does: somebody looked, and it is a vulnerability all the same
    "Low": Severity.LOW,
    "Medium": Severity.MEDIUM,
    "High": Severity.HIGH,
    "Critical": Severity.CRITICAL,
}
_CVE = re.compile(r"\bCVE-[0-9]{4}-[0-9]{4,}\b")
_CVSS_METRICS = {"cvssMetricV2": "2.0", "cvssMetricV30": "3.0", "cvssMetricV31": "3.1", "cvssMetricV40": "4.0"}
# purl type and our name of the ecosystem, by os-release ID; the names are Trivy's, so that both engines' findings meet.
_SYSTEMS = {
    "debian": ("deb", "debian"),
    "ubuntu": ("deb", "ubuntu"),
    "alpine": ("apk", "alpine"),
    "rhel": ("rpm", "redhat"),
    "centos": ("rpm", "centos"),
    "rocky": ("rpm", "rocky"),
    "almalinux": ("rpm", "alma"),
    "fedora": ("rpm", "fedora"),
    "ol": ("rpm", "oracle"),
    "amzn": ("rpm", "amazon"),
    "sles": ("rpm", "suse linux enterprise server"),
    "opensuse-leap": ("rpm", "opensuse.leap"),
    "photon": ("rpm", "photon"),
}
# claircore writes a language's packages as "<scanner>:<path>".
_LANGUAGES = {
    "python": ("pypi", "python-pkg"),
    "nodejs": ("npm", "node-pkg"),
    "ruby": ("gem", "gemspec"),
    "go": ("golang", "gobinary"),
    "maven": ("maven", "jar"),
    "jar": ("maven", "jar"),
    "file": ("maven", "jar"),
}


class ClairEngine(Engine):
    """See ``Engine``.

    Needs Clair 4.7 or newer with indexer and matcher under one address (``combo``, or a proxy before them).
    """

    id = "clair"
    title = "Clair"

    def version(self, settings: Settings) -> str:
        """Clair does not tell its version; what stands here changes when its indexer does."""
        with ClairClient(settings, _ASK_SECONDS) as client:
            return _version(client.index_state())

    def advisories(self, settings: Settings) -> AdvisoryStatus:
        with ClairClient(settings, _ASK_SECONDS) as client:
            return Updates.of(client).status()

    def scan(self, job: EngineJob) -> EngineReport:
        with ClairClient(job.settings, job.deadline, job.cancelled) as client:
            state = client.index_state()
            memory = _Memory(job.settings, state)
            if not memory.has(job.image.digest):
                _index(job, client)
                memory.add(job.image.digest)
            document = client.vulnerability_report(job.image.digest)
            if document is None:  # it has forgotten: another database, or somebody deleted it
                _index(job, client)
                document = client.vulnerability_report(job.image.digest)
            if document is None:
                raise EngineError("Clair does not find what it has just indexed", reason="scanner_output_invalid")
            return Reader(document, job.image, job.settings.limits).report(_version(state), Updates.of(client))

    def match(self, image: Image, settings: Settings, seconds: float) -> EngineReport | None:
        """What is known by now against an image that was indexed before, without its layers; None: it is not indexed
        any more.
        """
        with ClairClient(settings, seconds) as client:
            version = _version(client.index_state())
            document = client.vulnerability_report(image.digest)
            return (
                Reader(document, image, settings.limits).report(version, Updates.of(client))
                if document is not None
                else None
            )


def _version(state: str) -> str:
    return f"v4 (indexer {state[:12]})"


def _index(job: EngineJob, client: ClairClient) -> None:
    """Offer the layers and wait until they are indexed.

    Raises EngineError with Clair's reason when that did not succeed.
    """
    files = {
        str(layer.diff_id): job.layout / "blobs" / layer.diff_id.algorithm / layer.diff_id.hex
        for layer in job.image.layers
    }
    if not files:
        raise EngineError("the image has no layer", reason="nothing_to_scan")
    settings = job.settings
    listen = settings.clair_layers_address or f"{own_address(configured_url(settings))}:0"
    with serve_layers(files, listen, settings.clair_layers_url) as server:
        layers = []
        for digest in (str(layer.diff_id) for layer in job.image.layers):
            offer = server.offer(digest, job.deadline)
            headers = {"Authorization": [f"Bearer {offer.token.reveal()}"]}
            layers.append({"hash": digest, "uri": offer.uri, "headers": headers})
        report = client.index({"hash": str(job.image.digest), "layers": layers})
    if report.get("manifest_hash") != str(job.image.digest):
        raise EngineError("Clair answered for another image", reason="scanner_output_invalid")
    if report.get("success") is not True:
        said = as_text(report.get("err"), _SHORT) or "it gives no reason"
        raise EngineError(f"Clair could not index the image: {said}", hint="can it reach us? see docs/clair.md")
    if report.get("state") != _FINISHED:
        raise EngineError(
            f"Clair's index ended as {as_text(report.get('state'), 60) or 'nothing'}", reason="scanner_output_invalid"
        )


class _Memory:
    """Which images this Clair has indexed in this state of its indexer: an empty file for each.

    Losing it costs time, nothing else.
    """

    def __init__(self, settings: Settings, state: str) -> None:
        self._parent = settings.home / "cache" / "clair"
        key = hashlib.sha256(f"{configured_url(settings)}\n{state}".encode()).hexdigest()[:32]
        self._directory = self._parent / key

    def has(self, digest: Digest) -> bool:
        return (self._directory / digest.hex).exists()

    def add(self, digest: Digest) -> None:
        with contextlib.suppress(OSError):
            if not self._directory.exists():
                self._forget_others()
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self._directory / digest.hex).touch()

    def _forget_others(self) -> None:
        """What was indexed in a former state is indexed anew anyway."""
        for directory in self._parent.iterdir() if self._parent.exists() else ():
            for file in directory.iterdir():
                file.unlink(missing_ok=True)
            directory.rmdir()


class Updates:
    """Clair's advisories: the newest update of every updater, by its name."""

    def __init__(self, latest: str, dates: Mapping[str, datetime]) -> None:
        self._latest, self._dates = latest, dates

    @classmethod
    def of(cls, client: ClairClient) -> Updates:
        latest, document = client.update_operations()
        dates: dict[str, datetime] = {}
        for name, operations in list(document.items())[:10_000]:
            moments = [parse_time(_dict(operation).get("date")) for operation in _list(operations)[:_MANY]]
            known = [moment for moment in moments if moment is not None]
            if known:
                dates[clean_text(name, _SHORT)] = max(known)
        return cls(clean_text(latest, 100), dates)

    def status(self, system: str = "") -> AdvisoryStatus:
        """``system``: as far as it concerns this distribution.

        Clair writes an update down only when something had changed, so the newest of them is the moment at which it
        last learnt something.
        """
        concerned = [date for name, date in self._dates.items() if not system or _clair_updaters.concerns(name, system)]
        digest = Digest.of("\n".join(f"{n} {d.isoformat()}" for n, d in sorted(self._dates.items())).encode())
        newest = max(concerned, default=None)
        return AdvisoryStatus("clair", self._latest, newest, newest, None, digest if self._dates else None)

    @property
    def names(self) -> frozenset[str]:
        """The updaters that have brought anything yet."""
        return frozenset(self._dates)

    def cover(self, system: str) -> bool:
        """Whether there are advisories for this distribution at all."""
        return any(_clair_updaters.concerns(name, system) for name in self._dates)


class Reader:
    """Clair's vulnerability report as our values.

    Everything in it may have come from the image: bounded, cleaned, refused where it is not what the schema says
    (reason ``scanner_output_invalid``).
    """

    def __init__(self, document: Mapping[str, Any], image: Image, limits: Limits = _LIMITS) -> None:
        if document.get("manifest_hash") != str(image.digest):
            raise EngineError("Clair's report is about another image", reason="scanner_output_invalid")
        self._image, self._limits = image, limits
        self._packages = {key: _dict(value) for key, value in _dict(document.get("packages")).items()}
        self._environments = {
            key: [_dict(item) for item in _list(value)] for key, value in _dict(document.get("environments")).items()
        }
        self._distributions = {key: _dict(value) for key, value in _dict(document.get("distributions")).items()}
        self._vulnerabilities = {key: _dict(value) for key, value in _dict(document.get("vulnerabilities")).items()}
        self._by_package = _dict(document.get("package_vulnerabilities"))
        self._scores = _scores(_dict(document.get("enrichments")))

    def report(self, version: str, updates: Updates) -> EngineReport:
        system = self._system()
        family = as_text(system.get("did"), _SHORT).lower()
        # Of Alpine, claircore tells the release in another member.
        release = _told(system).partition(" ")[2]
        placed = ((key, c) for key, package in self._packages.items() for c in self._components(key, package))
        found: dict[str, list[Component]] = {key: [] for key in self._packages}
        for key, component in at_most(placed, self._limits.packages, "packages", "Clair"):
            found[key].append(component)
        components = tuple(component for items in found.values() for component in items)
        kind, codename = _SYSTEMS.get(family, ("", ""))[1], as_text(system.get("version_code_name"), _SHORT)
        missing = dict(_clair_updaters.gaps(family, release, codename, kind, components, updates.names))
        coverage = Coverage(family, release, None, len(components), without_advisories=tuple(missing))
        others = self._other_systems(system)
        said = at_most(self._findings(found), self._limits.report_findings, "vulnerabilities", "Clair")
        return EngineReport(
            engine="clair",
            version=version,
            binary=None,
            advisories=updates.status(family if updates.cover(family) else ""),
            coverage=coverage,
            components=components,
            vulnerabilities=tuple(said),
            incomplete=(*_gaps(coverage), *missing.values(), *others),
            isolation="remote",
        )

    def _system(self) -> Mapping[str, Any]:
        """The distribution that most packages belong to, or else the only one there is."""
        uses = Counter(
            key
            for items in self._environments.values()
            for item in items
            if (key := as_exact_text(item.get("distribution_id"), _SHORT, "Clair"))
        )
        best = next((key for key, _ in uses.most_common() if key in self._distributions), None)
        if best is None and len(self._distributions) == 1:
            best = next(iter(self._distributions))
        return self._distributions[best] if best is not None else {}

    def _other_systems(self, system: Mapping[str, Any]) -> Iterator[Incomplete]:
        """Clair compares each package with the release that its layer told: one layer that tells another takes its
        packages with it.
        """
        used = {
            as_text(place.get("distribution_id"), _SHORT) for places in self._environments.values() for place in places
        }
        found = {_told(self._distributions[key]) for key in used if key in self._distributions}
        for other in sorted(found - {_told(system)}):
            yield Incomplete(
                "release_disagrees", f"Clair took the packages for those of {_told(system)} and of {other}"
            )

    def _components(self, key: str, package: Mapping[str, Any]) -> Iterator[Component]:
        """The package in every place where it was found."""
        name, version = as_text(package.get("name"), _SHORT).strip(), as_text(package.get("version"), _SHORT)
        if not name:
            raise EngineError("Clair's report names a package without a name", reason="scanner_output_invalid")
        source = _dict(package.get("source"))
        for place in self._environments.get(key) or [{}]:
            database = as_text(place.get("package_db"), _TEXT)
            scanner, _, path = database.partition(":")
            language = _LANGUAGES.get(scanner)
            system = (
                self._distributions.get(as_exact_text(place.get("distribution_id"), _SHORT, "Clair"), {})
                or self._system()
            )
            layer = self._layer(place.get("introduced_in"))
            yield Component(
                purl=_purl(package, name, version, language, system),
                name=name,
                version=version,
                type=language[1] if language else _SYSTEMS.get(str(system.get("did")), ("", "unknown"))[1],
                source_name=as_text(source.get("name"), _SHORT),
                source_version=as_text(source.get("version"), _SHORT),
                layer=layer,
                path=path.lstrip("/") if language else "",
            )

    def _findings(self, found: Mapping[str, Sequence[Component]]) -> Iterator[Vulnerability]:
        for key, identifiers in self._by_package.items():
            if key not in found:
                raise EngineError(
                    "Clair's report names a package that it does not list", reason="scanner_output_invalid"
                )
            for identifier in map(str, _list(identifiers)):
                item = self._vulnerabilities.get(identifier)
                if item is None:
                    raise EngineError(
                        "Clair's report names a vulnerability that it does not list", reason="scanner_output_invalid"
                    )
                for component in found[key]:
                    yield self._finding(identifier, item, component)

    def _finding(self, identifier: str, item: Mapping[str, Any], component: Component) -> Vulnerability:
        said, links = as_text(item.get("name"), _SHORT).strip(), as_text(item.get("links"), _TEXT * 4).split()
        if not said:
            raise EngineError("Clair's report names a vulnerability without a name", reason="scanner_output_invalid")
        named = _CVE.search(said)
        name = named[0] if named else said.split()[0]
        addresses = tuple(filter(None, (as_link(link, _TEXT) for link in links[:_MANY])))
        fixed = _fixed(as_exact_text(item.get("fixed_in_version"), _SHORT, "Clair"))
        mentioned = [] if named else [cve for link in addresses for cve in _CVE.findall(link)]
        severity = as_severity(item.get("normalized_severity"), _SEVERITIES)
        return Vulnerability(
            id=name,
            purl=component.purl,
            package=component.name,
            installed_version=component.version,
            fixed_versions=fixed,
            severity=severity,
            severity_source=as_text(item.get("updater"), _SHORT),
            aliases=tuple(dict.fromkeys(mentioned))[:_MANY],
            cvss=self._scores.get(identifier, ()),
            status="fixed" if fixed else "affected",
            description=as_text(item.get("description"), _TEXT),
            url=addresses[0] if addresses else "",
            references=addresses,
            published=_issued(item.get("issued")),
            layer=component.layer,
            path=component.path,
            engines=("clair",),
        )

    def _layer(self, digest: object) -> Digest | None:
        """The layer, if it is one of this image's: as we offered it, or as a registry transports it."""
        layers = self._image.layers
        return next((layer.diff_id for layer in layers if digest in (str(layer.diff_id), str(layer.digest))), None)


def _told(system: Mapping[str, Any]) -> str:
    release = as_text(system.get("version_id"), _SHORT) or as_text(system.get("version"), _SHORT)
    return f"{as_text(system.get('did'), _SHORT)} {release}".strip()


def read_report(data: bytes, image: Image, limits: Limits = _LIMITS) -> EngineReport:
    """What a report's bytes say of an image, for whoever has nothing else.

    Raises EngineError for what is no report of it.
    """
    return Reader(read_document(data, limits), image, limits).report("", Updates("", {}))


def _gaps(coverage: Coverage) -> Iterator[Incomplete]:
    if coverage.packages == 0:
        yield NO_PACKAGE
    elif not coverage.os_family:
        yield NO_SYSTEM


def _purl(
    package: Mapping[str, Any], name: str, version: str, language: tuple[str, str] | None, system: Mapping[str, Any]
) -> str:
    """The package URL as Trivy would write it (https://github.com/package-url/purl-spec, purl-types)."""
    kind = language[0] if language else _SYSTEMS.get(str(system.get("did")), ("generic", ""))[0]
    namespace, qualifiers = "", {}
    if kind in ("deb", "apk", "rpm"):
        namespace = _SYSTEMS[str(system.get("did"))][1].partition(" ")[0].partition(".")[0]
        release = as_text(system.get("version_id"), 100)
        if architecture := as_text(package.get("arch"), 100):
            qualifiers["arch"] = architecture
        if release:
            qualifiers["distro"] = release if kind == "apk" else f"{namespace}-{release}"
        epoch, colon, rest = version.partition(":")
        if colon and epoch.isdecimal() and kind != "apk":
            qualifiers, version = {**qualifiers, "epoch": epoch}, rest
    elif kind in ("golang", "npm") and "/" in name:
        namespace, _, name = name.rpartition("/")
    elif kind == "maven" and ":" in name:
        namespace, _, name = name.partition(":")
    try:
        return PackageURL(kind, namespace or None, name, version or None, qualifiers or None).to_string()
    except ValueError:
        return f"pkg:generic/{hashlib.sha256(f'{name}@{version}'.encode()).hexdigest()[:32]}"


def _fixed(text: str) -> tuple[str, ...]:
    """``fixed_in_version``: a version, nothing, or (OSV) a query string of events."""
    if "=" in text:
        return tuple(parse_qs(text).get("fixed", ()))
    return (text,) if text and text != "0" else ()


def _issued(value: object) -> datetime | None:
    """Go's zero time means that nobody said."""
    moment = parse_time(value)
    return moment if moment is not None and moment.year > 1 else None


def _scores(enrichments: Mapping[str, Any]) -> dict[str, tuple[CVSS, ...]]:
    """CVSS by Clair's vulnerability id, from its ``clair.cvss`` enrichments: NVD's metrics (API 2.0), or the bare
    score of older feeds.
    """
    found: dict[str, list[CVSS]] = {}
    for kind, blobs in enrichments.items():
        if "enricher=clair.cvss" not in kind:
            continue
        for blob in map(_dict, _list(blobs)):
            for identifier, items in blob.items():
                for item in _list(items)[:_MANY]:
                    found.setdefault(identifier, []).extend(_metrics(_dict(item)))
    return {identifier: tuple(dict.fromkeys(scores))[:_MANY] for identifier, scores in found.items()}


def _metrics(item: Mapping[str, Any]) -> Iterator[CVSS]:
    nested = [
        (version, _dict(_dict(metric).get("cvssData")), as_text(_dict(metric).get("source"), _SHORT))
        for name, version in _CVSS_METRICS.items()
        for metric in _list(item.get(name))[:_MANY]
    ]
    for version, data, source in nested or [("3", item, "nvd")]:
        score = as_score(data.get("baseScore"), "Clair")
        if score is not None:
            exact = as_text(data.get("version"), 10) or version
            yield CVSS(exact, as_text(data.get("vectorString"), _SHORT), score, source)
