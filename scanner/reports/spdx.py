"""An SPDX 2.3 SBOM (the successor of ISO/IEC 5962), as JSON.

https://spdx.github.io/spdx-spec/v2.3/. Each image is a package that contains a package for each component. Unknown
values are ``NOASSERTION``. SPDX 2.3 cannot mark an inventory as incomplete, so each gap is an annotation of the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from scanner.model import agreement
from scanner.model.finding import Component
from scanner.model.scan import ImageReport, ScanReport
from scanner.model.untrusted import clean_text
from scanner.reports._sbom import LICENCES, identity, image_purl, missing_components
from scanner.reports.base import ReportFormat, ReportSubject

_NOASSERTION = "NOASSERTION"


class SpdxReport(ReportFormat):
    """See ``ReportFormat``."""

    id = "spdx"
    title = "SPDX 2.3"
    purpose = "an SBOM"
    media_type = "application/spdx+json"
    extension = "spdx.json"

    def render(self, subject: ReportSubject) -> str:
        return orjson.dumps(_Document(subject.report).document(), option=orjson.OPT_INDENT_2, default=str).decode()


class _Document:
    def __init__(self, report: ScanReport) -> None:
        self._report = report
        self._licences: dict[str, str] = {}  # licence texts without an SPDX identifier, by their ``LicenseRef``
        self._packages: list[dict[str, Any]] = []
        self._relationships: list[dict[str, str]] = []

    def document(self) -> dict[str, Any]:
        report = self._report
        for number, item in enumerate(report.images):
            self._image(number, item)
        if not report.images:
            self._relate("SPDXRef-DOCUMENT", "DESCRIBES", _NOASSERTION)
        return {
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": _text(report.reference) or str(report.digest),
            "documentNamespace": f"urn:uuid:{identity(report)}",
            "creationInfo": {
                "created": _moment(report.finished_at),
                "creators": [f"Tool: dockwarden-{report.dockwarden or '0'}", *_engines(report)],
            },
            "packages": self._packages,
            "relationships": self._relationships,
            "hasExtractedLicensingInfos": [
                {"licenseId": reference, "extractedText": text, "name": text}
                for reference, text in sorted(self._licences.items())
            ],
        }

    def _image(self, number: int, item: ImageReport) -> None:
        digest = item.image.digest
        reference = f"SPDXRef-Image-{number}"
        self._relate("SPDXRef-DOCUMENT", "DESCRIBES", reference)
        self._packages.append(
            {
                "SPDXID": reference,
                "name": _text(self._report.repository or self._report.reference) or str(digest),
                "versionInfo": str(digest),
                "downloadLocation": _NOASSERTION,
                "filesAnalyzed": False,
                "primaryPackagePurpose": "CONTAINER",
                "checksums": [{"algorithm": digest.algorithm.upper(), "checksumValue": digest.hex}],
                "externalRefs": [_purl(image_purl(self._report, item))],
                "comment": f"platform {item.image.platform}",
                "annotations": [
                    {
                        "annotationDate": _moment(self._report.finished_at),
                        "annotationType": "OTHER",
                        "annotator": "Tool: dockwarden",
                        "comment": f"unknown: {_text(gap)}",
                    }
                    for gap in list(dict.fromkeys(missing_components(item)))[:100]
                ],
            }
        )
        for index, component in enumerate(agreement.components(item.engines)):
            own = f"SPDXRef-Package-{number}-{index}"
            self._packages.append(self._package(own, item, component))
            self._relate(reference, "CONTAINS", own)

    def _package(self, reference: str, image: ImageReport, item: Component) -> dict[str, Any]:
        layer = image.image.layer_of(item.layer)
        where = [
            f"layer {layer.index} {layer.diff_id}" if layer else "",
            f"path /{_text(item.path)}" if item.path else "",
        ]
        built = f"built from {_text(item.source_name)} {_text(item.source_version)}" if item.source_name else ""
        source_info = "; ".join(filter(None, [*where, built]))
        return {
            "SPDXID": reference,
            "name": _text(item.name) or "unknown",
            "versionInfo": _text(item.version),
            "downloadLocation": _NOASSERTION,
            "filesAnalyzed": False,
            "licenseConcluded": _NOASSERTION,
            "licenseDeclared": self._licence(item.licenses),
            "copyrightText": _NOASSERTION,
            "externalRefs": [_purl(item.purl)],
            **({"sourceInfo": source_info} if source_info else {}),
            "comment": f"type {_text(item.type) or 'unknown'}",
        }

    def _licence(self, texts: Sequence[str]) -> str:
        """Join all declared licences with AND (annex D)."""
        # AND is the safe reading of several declared licences: the obligations of all of them apply.
        names = []
        for text in dict.fromkeys(map(_text, texts)):
            if text in LICENCES:
                names.append(text)
            elif text:
                reference = "LicenseRef-" + hashlib.sha256(text.encode()).hexdigest()[:16]
                self._licences[reference] = text
                names.append(reference)
        return " AND ".join(names) or _NOASSERTION

    def _relate(self, one: str, how: str, other: str) -> None:
        self._relationships.append({"spdxElementId": one, "relationshipType": how, "relatedSpdxElement": other})


def _engines(report: ScanReport) -> Iterator[str]:
    for name in sorted({f"{e.engine}-{e.version}" for image in report.images for e in image.engines}):
        yield f"Tool: {_text(name)}"


def _purl(purl: str) -> dict[str, str]:
    return {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": clean_text(purl, 2000)}


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(value: str) -> str:
    return clean_text(value, 1000)
