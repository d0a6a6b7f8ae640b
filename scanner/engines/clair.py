"""Clair v4 as an engine. It fetches our verified layers and indexes them; its report is parsed strictly.

Clair stores the index by image digest, so an image is indexed once for each state of the indexer, and only matched
afterwards. Clair answers 202 without a body while its database is empty, and reports nothing for distributions without
advisories. Both look like "clean", and neither is.
"""

from __future__ import annotations

import contextlib
import hashlib
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
from scanner.patterns import lazy
from scanner.registry.manifest import parse_time

# Characters of descriptions and names, and items of a list: a report is untrusted.
_TEXT, _SHORT, _MANY = 4096, 512, 50
_LIMITS = Limits()
_dict, _list = partial(as_dict, engine="Clair"), partial(as_list, engine="Clair")
_ASK_SECONDS = 5.0
_FINISHED = "IndexFinished"
_SEVERITIES = {
    "Negligible": Severity.LOW,  # as in Trivy: it was assessed, and it is still a vulnerability
    "Low": Severity.LOW,
    "Medium": Severity.MEDIUM,
    "High": Severity.HIGH,
    "Critical": Severity.CRITICAL,
}
_CVE = lazy(r"\bCVE-[0-9]{4}-[0-9]{4,}\b")
_CVSS_METRICS = {"cvssMetricV2": "2.0", "cvssMetricV30": "3.0", "cvssMetricV31": "3.1", "cvssMetricV40": "4.0"}
# purl type and our ecosystem name, by os-release ID. The names are Trivy's, so that findings of both engines match.
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
# claircore names the place of a language package "<scanner>:<path>".
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
    """See ``Engine``. Needs Clair 4.7 or newer; indexer and matcher share one URL (``combo``, or behind a proxy)."""

    id = "clair"
    title = "Clair"

    def version(self, settings: Settings) -> str:
        """Clair does not report its version. The returned text changes if the indexer's state changes."""
        with ClairClient(settings, _ASK_SECONDS) as client:
            return _version(client.index_state())

    def advisories(self, settings: Settings) -> AdvisoryStatus:
        with ClairClient(settings, _ASK_SECONDS) as client:
            return Updates.of(client).status()

    def scan(self, job: EngineJob) -> EngineReport:
        job.running()  # on another machine
        with ClairClient(job.settings, job.deadline, job.cancelled) as client:
            state = client.index_state()
            memory = _Memory(job.settings, state)
            if not memory.has(job.image.digest):
                _index(job, client)
                memory.add(job.image.digest)
            document = client.vulnerability_report(job.image.digest)
            if document is None:  # Clair lost the index: it has another database, or the index was deleted
                _index(job, client)
                document = client.vulnerability_report(job.image.digest)
            if document is None:
                raise EngineError(
                    "Clair does not find the image that it has just indexed", reason="scanner_output_invalid"
                )
            return Reader(document, job.image, job.settings.limits).report(_version(state), Updates.of(client))

    def match(self, image: Image, settings: Settings, seconds: float) -> EngineReport | None:
        """Match an image that was indexed before, without its layers. Returns None if Clair no longer has its index."""
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
    """Offer the layers and wait until they are indexed. Raises EngineError with Clair's reason if it fails."""
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
        raise EngineError("Clair's index report is about another image", reason="scanner_output_invalid")
    if report.get("success") is not True:
        problem = as_text(report.get("err"), _SHORT) or "no reason given"
        raise EngineError(
            f"Clair could not index the image: {problem}", hint="check that Clair can reach us: see docs/clair.md"
        )
    if report.get("state") != _FINISHED:
        raise EngineError(
            f"Clair's index ended as {as_text(report.get('state'), 60) or 'nothing'}", reason="scanner_output_invalid"
        )


class _Memory:
    """The images that this Clair has indexed in this state of its indexer: an empty file for each.

    Losing them costs time.
    """

    def __init__(self, settings: Settings, state: str) -> None:
        self._parent = settings.home / "cache" / "clair"
        # Another Clair, or another state of this one, has indexed nothing of what we remember.
        key = hashlib.sha256(f"{configured_url(settings)}\n{state}".encode()).hexdigest()[:32]
        self._directory = self._parent / key

    def has(self, digest: Digest) -> bool:
        return (self._directory / digest.hex).exists()

    def add(self, digest: Digest) -> None:
        # A full disk costs another indexing, not the scan.
        with contextlib.suppress(OSError):
            if not self._directory.exists():
                self._forget_others()
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self._directory / digest.hex).touch()

    def _forget_others(self) -> None:
        """Images that were indexed in a former state are indexed again anyway, so their files are removed."""
        for directory in self._parent.iterdir() if self._parent.exists() else ():
            for file in directory.iterdir():
                file.unlink(missing_ok=True)
            directory.rmdir()


class Updates:
    """The state of Clair's advisories: the newest update of every updater, by its name."""

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
        """Return the status; with ``system``, of the updaters for this distribution.

        Clair records an update only if it changed something, so the newest one is the time of the last change.
        """
        # An Alpine image is not up to date because Debian's advisories came today.
        concerned = [date for name, date in self._dates.items() if not system or _clair_updaters.concerns(name, system)]
        digest = Digest.of("\n".join(f"{n} {d.isoformat()}" for n, d in sorted(self._dates.items())).encode())
        newest = max(concerned, default=None)
        return AdvisoryStatus("clair", self._latest, newest, newest, None, digest if self._dates else None)

    @property
    def names(self) -> frozenset[str]:
        """Updaters that have loaded advisories."""
        return frozenset(self._dates)

    def cover(self, system: str) -> bool:
        """True if there are advisories for this distribution."""
        return any(_clair_updaters.concerns(name, system) for name in self._dates)


class Reader:
    """Converts Clair's vulnerability report to our model.

    The image may have influenced everything in it, so all values are bounded and cleaned. A report that does not follow
    the schema is refused (reason ``scanner_output_invalid``).
    """

    def __init__(self, document: Mapping[str, Any], image: Image, limits: Limits = _LIMITS) -> None:
        # Clair answers by digest from its own database. A proxy or a mix-up must not give one image another's
        # findings.
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
        # For Alpine, claircore has the release in another member.
        release = _release_name(system).partition(" ")[2]
        placed = ((key, c) for key, package in self._packages.items() for c in self._components(key, package))
        found: dict[str, list[Component]] = {key: [] for key in self._packages}
        for key, component in at_most(placed, self._limits.packages, "packages", "Clair"):
            found[key].append(component)
        components = tuple(component for items in found.values() for component in items)
        kind, codename = _SYSTEMS.get(family, ("", ""))[1], as_text(system.get("version_code_name"), _SHORT)
        missing = dict(_clair_updaters.gaps(family, release, codename, kind, components, updates.names))
        coverage = Coverage(family, release, None, len(components), without_advisories=tuple(missing))
        others = self._other_systems(system)
        vulnerabilities = at_most(self._findings(found), self._limits.report_findings, "vulnerabilities", "Clair")
        return EngineReport(
            engine="clair",
            version=version,
            # It runs on another machine, so its program cannot be measured, nor revoked by digest.
            binary=None,
            advisories=updates.status(family if updates.cover(family) else ""),
            coverage=coverage,
            components=components,
            vulnerabilities=tuple(vulnerabilities),
            incomplete=(*_gaps(coverage), *missing.values(), *others),
            isolation="remote",
        )

    def _system(self) -> Mapping[str, Any]:
        """The distribution to which most packages belong, or else the only one."""
        uses = Counter(
            key
            for items in self._environments.values()
            for item in items
            if (key := as_exact_text(item.get("distribution_id"), _SHORT, "Clair"))
        )
        # A layer may bring a second os-release (a forged one, or a copied root). The one with most packages is what
        # runs; the others become gaps (`_other_systems`).
        best = next((key for key, _ in uses.most_common() if key in self._distributions), None)
        if best is None and len(self._distributions) == 1:
            best = next(iter(self._distributions))
        return self._distributions[best] if best is not None else {}

    def _other_systems(self, system: Mapping[str, Any]) -> Iterator[Incomplete]:
        """Yield a gap for every other distribution: Clair matches each package with the release of its layer, so a
        layer with another os-release has its packages matched with the wrong advisories.
        """
        used = {
            as_text(place.get("distribution_id"), _SHORT) for places in self._environments.values() for place in places
        }
        found = {_release_name(self._distributions[key]) for key in used if key in self._distributions}
        for other in sorted(found - {_release_name(system)}):
            yield Incomplete(
                "release_disagrees", f"Clair matched packages with both {_release_name(system)} and {other}"
            )

    def _components(self, key: str, package: Mapping[str, Any]) -> Iterator[Component]:
        """Yield the package for every place where it was found."""
        name, version = as_text(package.get("name"), _SHORT).strip(), as_text(package.get("version"), _SHORT)
        if not name:
            raise EngineError("Clair's report has a package without a name", reason="scanner_output_invalid")
        source = _dict(package.get("source"))
        # A package without a place still counts: leaving it out would hide its vulnerabilities.
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
                    "Clair's report refers to a package that it does not list", reason="scanner_output_invalid"
                )
            for identifier in map(str, _list(identifiers)):
                item = self._vulnerabilities.get(identifier)
                if item is None:
                    raise EngineError(
                        "Clair's report refers to a vulnerability that it does not list",
                        reason="scanner_output_invalid",
                    )
                for component in found[key]:
                    yield self._finding(identifier, item, component)

    def _finding(self, identifier: str, item: Mapping[str, Any], component: Component) -> Vulnerability:
        title, links = as_text(item.get("name"), _SHORT).strip(), as_text(item.get("links"), _TEXT * 4).split()
        if not title:
            raise EngineError("Clair's report has a vulnerability without a name", reason="scanner_output_invalid")
        cve_in_title = _CVE.search(title)
        name = cve_in_title[0] if cve_in_title else title.split()[0]
        addresses = tuple(filter(None, (as_link(link, _TEXT) for link in links[:_MANY])))
        fixed = _fixed_versions(as_exact_text(item.get("fixed_in_version"), _SHORT, "Clair"))
        # Distributions name their advisories themselves (RHSA, DSA); the CVE ids are only in the links.
        mentioned = [] if cve_in_title else [cve for link in addresses for cve in _CVE.findall(link)]
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
            published=_issue_time(item.get("issued")),
            layer=component.layer,
            path=component.path,
            engines=("clair",),
        )

    def _layer(self, digest: object) -> Digest | None:
        """The layer, if it belongs to this image: by the diff_id that we offered, or the digest in the registry."""
        layers = self._image.layers
        return next((layer.diff_id for layer in layers if digest in (str(layer.diff_id), str(layer.digest))), None)


def _release_name(system: Mapping[str, Any]) -> str:
    release = as_text(system.get("version_id"), _SHORT) or as_text(system.get("version"), _SHORT)
    return f"{as_text(system.get('did'), _SHORT)} {release}".strip()


def read_report(data: bytes, image: Image, limits: Limits = _LIMITS) -> EngineReport:
    """Parse a report's bytes, without knowledge of Clair's state.

    Raises EngineError if they are not a report of ``image``.
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
    """The package URL in Trivy's form (https://github.com/package-url/purl-spec, purl-types)."""
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


def _fixed_versions(text: str) -> tuple[str, ...]:
    """Parse ``fixed_in_version``: a version, empty, or (OSV) a query string of events."""
    if "=" in text:
        return tuple(parse_qs(text).get("fixed", ()))
    return (text,) if text and text != "0" else ()


def _issue_time(value: object) -> datetime | None:
    """Parse the time of issue. Go's zero time means that it is unknown."""
    moment = parse_time(value)
    return moment if moment is not None and moment.year > 1 else None


def _scores(enrichments: Mapping[str, Any]) -> dict[str, tuple[CVSS, ...]]:
    """CVSS scores by Clair's vulnerability id, from the ``clair.cvss`` enrichments: NVD's metrics (API 2.0), or the
    plain score of older feeds.
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
