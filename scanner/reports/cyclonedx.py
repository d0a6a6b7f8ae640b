"""A CycloneDX 1.6 SBOM with vulnerabilities (ECMA-424), as JSON.

https://cyclonedx.org/docs/1.6/json/. If something could not be examined, ``compositions`` marks the image's inventory
``incomplete``. Otherwise it is ``unknown``, never ``complete``: no engine can prove that it found every component.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from scanner.model import agreement
from scanner.model.finding import CVSS, Component, Severity, Vulnerability
from scanner.model.scan import ImageReport, ScanReport
from scanner.model.untrusted import clean_text
from scanner.reports._sbom import LICENCES, identity, image_purl, missing_components
from scanner.reports.base import ReportFormat, ReportSubject

_METHODS = {"2.0": "CVSSv2", "3.0": "CVSSv3", "3.1": "CVSSv31", "4.0": "CVSSv4"}
_SEVERITIES = {Severity.NONE: "none", Severity.UNKNOWN: "unknown"}
_RESPONSES = {"will_not_fix": ("exploitable", "will_not_fix"), "fix_deferred": ("exploitable", "can_not_fix")}


class CycloneDxReport(ReportFormat):
    """See ``ReportFormat``. An index is a component that holds its images; a single image is the subject itself."""

    id = "cyclonedx"
    title = "CycloneDX 1.6"
    purpose = "an SBOM with the vulnerabilities of its components"
    media_type = "application/vnd.cyclonedx+json"
    extension = "cdx.json"

    def render(self, subject: ReportSubject) -> str:
        return orjson.dumps(
            _document(subject.report), option=orjson.OPT_INDENT_2 | orjson.OPT_PASSTHROUGH_SUBCLASS, default=str
        ).decode()


def _document(report: ScanReport) -> dict[str, Any]:
    images = [_Image(report, item) for item in report.images]
    alone = images[0] if len(images) == 1 else None
    # One image: it is the subject itself, so that consumers that read ``metadata.component`` alone see the right
    # digest.
    whole = alone.container(nested=False) if alone else _whole_document(report)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{identity(report)}",
        "version": 1,
        "metadata": {
            "timestamp": report.finished_at.isoformat(),
            "tools": {"components": list(_tools(report))},
            "component": whole,
        },
        "components": alone.components if alone else [image.container(nested=True) for image in images],
        "compositions": [{"aggregate": image.aggregate, "assemblies": [image.ref]} for image in images],
        "vulnerabilities": list(_vulnerabilities(images)),
    }


def _whole_document(report: ScanReport) -> dict[str, Any]:
    digest = str(report.digest)
    return {
        "bom-ref": digest,
        "type": "container",
        "name": _text(report.repository or report.reference),
        "version": digest,
        "hashes": _hashes(digest),
    }


def _tools(report: ScanReport) -> Iterator[dict[str, Any]]:
    yield {"type": "application", "name": "dockwarden", "version": report.dockwarden or "0"}
    seen = {(e.engine, e.version, e.advisories.id) for image in report.images for e in image.engines}
    for name, version, advisories in sorted(seen):
        properties = _properties(advisories=advisories)
        yield {"type": "application", "name": name, "version": version or "unknown", "properties": properties}


class _Image:
    """The part of one image: its components, each with a ``bom-ref`` that is unique in the document."""

    def __init__(self, report: ScanReport, item: ImageReport) -> None:
        self._report, self._item = report, item
        self.ref = str(item.image.digest)
        self.gaps = list(dict.fromkeys(missing_components(item)))
        self.aggregate = "incomplete" if self.gaps else "unknown"
        self.found = agreement.findings(item.engines)
        self.components: list[dict[str, Any]] = []
        self.refs: dict[tuple[str, str], list[str]] = defaultdict(list)
        for number, component in enumerate(agreement.components(item.engines)):
            ref = f"{item.image.digest.short}/{number}"
            self.refs[component.name, component.version].append(ref)
            self.components.append(self._component(ref, component))

    def container(self, *, nested: bool) -> dict[str, Any]:
        digest = str(self._item.image.digest)
        # Bounded: a hostile image can have thousands of gaps, and one is enough for ``incomplete``.
        unknown = [{"name": "dockwarden:not-known", "value": _text(gap)} for gap in self.gaps[:100]]
        return {
            "bom-ref": self.ref,
            "type": "container",
            "name": _text(self._report.repository or self._report.reference),
            "version": digest,
            "purl": _text(image_purl(self._report, self._item)),
            "hashes": _hashes(digest),
            "properties": [
                *_properties(
                    platform=str(self._item.image.platform),
                    config=str(self._item.image.config.digest),
                    tag=self._report.tag,
                ),
                *unknown,
            ],
            **({"components": self.components} if nested else {}),
        }

    def _component(self, ref: str, item: Component) -> dict[str, Any]:
        layer = self._item.image.layer_of(item.layer)
        document: dict[str, Any] = {
            "bom-ref": ref,
            "type": "library",
            "name": _text(item.name) or "unknown",
            "version": _text(item.version),
            "purl": _text(item.purl, 2000),
            "properties": _properties(
                type=item.type,
                source=f"{item.source_name} {item.source_version}".strip(),
                layer=str(item.layer or ""),
                layer_index=str(layer.index) if layer else "",
            ),
        }
        if item.licenses:
            document["licenses"] = [
                # An unknown identifier makes the document invalid; ``name`` takes any text.
                {"license": {"id": text} if text in LICENCES else {"name": _text(text)}}
                for text in dict.fromkeys(item.licenses)
            ]
        if item.path:
            document["evidence"] = {"occurrences": [{"location": _text(item.path)}]}
        return document

    def affected(self, item: Vulnerability) -> list[str]:
        # A vulnerability whose package is not in the inventory affects the image as a whole. It is never dropped.
        return self.refs.get((item.package, item.installed_version)) or [self.ref]


def _vulnerabilities(images: list[_Image]) -> Iterator[dict[str, Any]]:
    """Yield each vulnerability once, with every component that it affects."""
    affects: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    first: dict[str, agreement.Finding] = {}
    remedies: dict[str, dict[str, None]] = defaultdict(dict)
    for image in images:
        upgrades = agreement.Upgrades(image.found)
        for found in image.found:
            item = found.vulnerability
            first.setdefault(item.id, found)
            if version := upgrades.of(item):
                remedies[item.id][f"upgrade {_text(item.package)} to {_text(version)}"] = None
            for ref in image.affected(item):
                affects[item.id][ref].add(item.installed_version)
    for number, (name, found) in enumerate(sorted(first.items())):
        yield _vulnerability(number, found, affects[name], remedies[name])


def _vulnerability(
    number: int, found: agreement.Finding, affects: Mapping[str, set[str]], remedies: Iterable[str]
) -> dict[str, Any]:
    item = found.vulnerability
    document: dict[str, Any] = {
        "bom-ref": f"vulnerability/{number}",
        "id": _text(item.id),
        "source": {
            "name": _text(item.severity_source or "unknown"),
            **({"url": _text(item.url, 2000)} if item.url else {}),
        },
        "references": [{"id": _text(alias), "source": {"name": "alias"}} for alias in dict.fromkeys(item.aliases)],
        "ratings": [
            {
                "severity": _SEVERITIES.get(item.severity, str(item.severity)),
                "source": {"name": _text(item.severity_source or "unknown")},
            },
            *(_rating(score) for score in item.cvss),
        ],
        "cwes": [
            # The schema takes integers only, while the advisory's texts come from a third party.
            int(c[4:])
            for c in dict.fromkeys(item.cwes)
            if c.startswith("CWE-") and c[4:].isdecimal() and 0 < int(c[4:]) < 10**6
        ],
        "description": _text(item.description or item.title, 4000),
        "advisories": [{"url": _text(url, 2000)} for url in dict.fromkeys(item.references)],
        "affects": [
            {"ref": ref, "versions": [{"version": _text(v), "status": "affected"} for v in sorted(versions)]}
            for ref, versions in sorted(affects.items())
        ],
        "properties": [
            *_properties(status=item.status, engines=" ".join(item.engines), disputed=found.dispute),
            *_properties(
                known_exploited=_known_value(item.known_exploited), epss="" if item.epss is None else str(item.epss)
            ),
        ],
    }
    if recommendation := "; ".join(remedies):
        document["recommendation"] = recommendation
    if item.status == "under_investigation":
        document["analysis"] = {"state": "in_triage"}
    elif item.status in _RESPONSES:
        state, response = _RESPONSES[item.status]
        document["analysis"] = {"state": state, "response": [response]}
    for name, moment in (("published", item.published), ("updated", item.modified)):
        if moment is not None:
            document[name] = moment.isoformat()
    return document


def _rating(score: CVSS) -> dict[str, Any]:
    return {
        "source": {"name": _text(score.source or "unknown")},
        "score": score.score,
        "method": _METHODS.get(score.version, "other"),
        **({"vector": _text(score.vector)} if score.vector else {}),
    }


def _hashes(digest: str) -> list[dict[str, str]]:
    algorithm, _, value = digest.partition(":")
    return [{"alg": {"sha256": "SHA-256", "sha512": "SHA-512"}[algorithm], "content": value}]


def _properties(**values: str) -> list[dict[str, str]]:
    return [
        {"name": f"dockwarden:{name.replace('_', '-')}", "value": _text(value)}
        for name, value in values.items()
        if value
    ]


def _known_value(value: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[value]


def _text(value: str, limit: int = 1000) -> str:
    return clean_text(value, limit)
