"""SBOMs beside an image in its registry: CycloneDX and SPDX documents that refer to it (distribution-spec, referrers).

Everybody who may push to the repository can attach one, so an SBOM is an unverified claim. It is read within limits,
stored as a claim, and never replaces our own scan. An SBOM that cannot be read is recorded with the problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from scanner.config import Limits
from scanner.errors import ImageError, RemoteError, ScannerError
from scanner.model.finding import Component
from scanner.model.reference import Descriptor, Digest
from scanner.model.scan import AttachedSbom
from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.registry.manifest import Manifest, parse_manifest
from scanner.registry.sources import Source

FORMATS = {"application/vnd.cyclonedx+json": "cyclonedx", "application/spdx+json": "spdx"}
# Of one image: their number, the bytes of one, its components and their nesting.
_SBOMS, _BYTES, _COMPONENTS, _DEPTH = 8, 32 << 20, 50_000, 16
_SHORT, _LICENCES = 512, 20
# CycloneDX 1.6 component types that are never packages. Components of unknown or missing type may be packages.
_NO_PACKAGES = ("container", "cryptographic-asset", "data", "device", "file", "machine-learning-model")


class Sbom(NamedTuple):
    """The components that a document lists. ``partial``: the document declares that the list is incomplete."""

    components: tuple[Component, ...]
    partial: bool = False


def read_attached_sboms(source: Source, digest: Digest) -> tuple[AttachedSbom, ...]:
    """Return every SBOM that is attached to this manifest. Errors of the registry are recorded as a problem."""
    try:
        found = [d for d in source.referrers(digest) if _format(d)]
    except (RemoteError, ImageError) as error:
        return (AttachedSbom(digest, "", problem=f"the attached SBOMs could not be listed: {error}"),)
    sboms = [_read_sbom(source, descriptor) for descriptor in found[:_SBOMS]]
    if len(found) > _SBOMS:
        sboms.append(AttachedSbom(digest, "", problem=f"{len(found) - _SBOMS} more were not read"))
    return tuple(sboms)


def _format(descriptor: Descriptor) -> str:
    return FORMATS.get((descriptor.artifact_type or "").partition(";")[0].strip(), "")


def _read_sbom(source: Source, descriptor: Descriptor) -> AttachedSbom:
    kind = _format(descriptor)
    try:
        data = source.document(descriptor, source.settings.limits.manifest)
        manifest = parse_manifest(data, descriptor, source.settings.limits)
        if not isinstance(manifest, Manifest) or not manifest.layers:
            raise ImageError("the artifact has no content")
        content = manifest.layers[0]
        if content.size > _BYTES:
            raise ImageError(f"the SBOM is too large: {content.size} bytes")
        sbom = parse_sbom(source.document(content, _BYTES), kind, source.settings.limits)
        return AttachedSbom(descriptor.digest, kind, sbom.components, partial=sbom.partial)
    except ScannerError as error:
        return AttachedSbom(descriptor.digest, kind, problem=clean_text(str(error), 300))


def parse_sbom(data: bytes, kind: str, limits: Limits) -> Sbom:
    """Parse a CycloneDX or SPDX 2 document in JSON. Raises ImageError if it is neither."""
    document = load_untrusted_json(data, limit=_BYTES, depth=limits.json_depth, mend_text=True)
    if not isinstance(document, dict):
        raise ImageError("the SBOM is not a JSON object")
    if kind == "cyclonedx" and document.get("bomFormat") == "CycloneDX":
        items = _cyclonedx(document, _DEPTH)
    elif kind == "spdx" and str(document.get("spdxVersion", "")).startswith("SPDX-2."):
        items = _spdx(document)
    else:
        raise ImageError(f"the SBOM is not a supported {kind} document")
    found: dict[tuple[str, str, str], Component] = {}
    for item in items:
        found.setdefault((item.purl, item.name, item.version), item)
        if len(found) > _COMPONENTS:
            raise ImageError(f"the SBOM lists more than {_COMPONENTS} components")
    return Sbom(tuple(found.values()), any(map(_is_partial, _list(document.get("compositions")))))


def _cyclonedx(parent: Mapping[str, Any], depth: int) -> Iterator[Component]:
    for item in map(_dict, _list(parent.get("components"))):
        if item.get("type") not in _NO_PACKAGES or item.get("purl"):
            licences = [_dict(_dict(entry).get("license")) for entry in _list(item.get("licenses"))[:_LICENCES]]
            names = [_text(one.get("id")) or _text(one.get("name")) for one in licences]
            yield _component(item.get("purl"), item.get("name"), item.get("version"), names, _text(item.get("type")))
        if not depth and item.get("components"):  # dropping them silently would report an incomplete list as complete
            raise ImageError(f"the SBOM nests components deeper than {_DEPTH}")
        yield from _cyclonedx(item, depth - 1) if depth else ()


def _is_partial(composition: object) -> bool:
    """CycloneDX 1.6, compositions: ``incomplete``, its variants and unknown values are partial.

    ``unknown`` is not: it is the meaning of every SBOM without compositions.
    """
    return _dict(composition).get("aggregate") not in ("complete", "unknown", "not_specified")


def _spdx(document: Mapping[str, Any]) -> Iterator[Component]:
    for item in map(_dict, _list(document.get("packages"))):
        if item.get("primaryPackagePurpose") == "CONTAINER":
            continue
        references = map(_dict, _list(item.get("externalRefs")))
        purl = next((r.get("referenceLocator") for r in references if r.get("referenceType") == "purl"), "")
        declared = _text(item.get("licenseDeclared"))
        licences = [declared] if declared != "NOASSERTION" else []
        purpose = _text(item.get("primaryPackagePurpose")).lower()
        yield _component(purl, item.get("name"), item.get("versionInfo"), licences, purpose)


def _component(purl: object, name: object, version: object, licences: list[str], purpose: str) -> Component:
    """``purpose``: the component's type if no package URL gives one, such as ``operating-system``."""
    text = _text(purl)
    kind = text.removeprefix("pkg:").partition("/")[0] if text.startswith("pkg:") else purpose
    return Component(text, _text(name), _text(version), kind, licenses=tuple(filter(None, licences)))


def _text(value: object) -> str:
    return clean_text(value, _SHORT) if isinstance(value, str) else ""


def _dict(value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ImageError("the SBOM does not follow its schema")
    return value


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ImageError("the SBOM does not follow its schema")
    return value
