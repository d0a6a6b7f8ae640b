"""Shared by the SBOM formats: SPDX licence identifiers, gaps of the inventory, and a stable document id."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from scanner.model.scan import ImageReport, ScanReport

# SPDX licence identifiers (https://spdx.org/licenses/) that distributions and languages use. Any other text is
# written as a licence name, because an unknown identifier would make the whole document invalid.
_NAMES = """0BSD AFL-2.1 AGPL-3.0-only AGPL-3.0-or-later Apache-1.1 Apache-2.0 Artistic-1.0-Perl Artistic-2.0
    BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause BSD-3-Clause BSD-4-Clause BSL-1.0 bzip2-1.0.6 CC-BY-3.0 CC-BY-4.0
    CC0-1.0 CDDL-1.0 CDDL-1.1 curl EPL-1.0 EPL-2.0 FTL GFDL-1.3-only GFDL-1.3-or-later GPL-1.0-only GPL-1.0-or-
    later GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later ICU IJG ISC LGPL-2.0-only LGPL-2.0-or-
    later LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0-only LGPL-3.0-or-later Libpng MIT MIT-0 MPL-1.1 MPL-2.0 NCSA
    OFL-1.1 OpenSSL PHP-3.01 PostgreSQL PSF-2.0 Python-2.0 Ruby Unicode-3.0 Unlicense Vim W3C WTFPL X11 Zlib
    ZPL-2.1"""
LICENCES = frozenset(_NAMES.split())


def identity(report: ScanReport) -> uuid.UUID:
    """Return a UUID derived from the evidence, so that rendering a scan twice gives the same document."""
    engines = sorted(f"{e.engine} {e.version} {e.advisories.id}" for image in report.images for e in image.engines)
    name = "\n".join((str(report.digest), report.repository, report.finished_at.isoformat(), *engines))
    # Without the engines a rescan with newer advisories would get the id of the former document, which differs in
    # content.
    return uuid.uuid5(uuid.NAMESPACE_URL, f"urn:dockwarden:{name}")


def missing_components(image: ImageReport) -> Iterator[str]:
    """Yield the reasons why the image may hold more components than are listed."""
    if not image.engines:
        yield "no engine looked for packages"
    for gap in image.incomplete:
        yield gap.detail or gap.reason
    for engine in image.engines:
        for gap in engine.incomplete:
            yield f"{engine.engine}: {gap.detail or gap.reason}"


def image_purl(report: ScanReport, image: ImageReport) -> str:
    """Return the image's ``pkg:oci`` purl (purl-types): the digest is the version, the registry a qualifier."""
    from packageurl import PackageURL

    digest = str(image.image.digest)
    # purl-types defines the name of pkg:oci as the last part of the repository, in lower case.
    name = report.repository.rpartition("/")[2].lower() or "image"
    where = {"repository_url": report.repository} if report.repository else {}
    platform = image.image.platform
    return PackageURL("oci", None, name, digest, {**where, "arch": platform.architecture}).to_string()
