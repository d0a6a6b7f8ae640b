"""Writes attestations beside an image, in the two forms that verifiers look for: cosign's tag ``sha256-….att``, and a
referrer of the image (distribution-spec 1.1, https://github.com/opencontainers/distribution-spec/blob/main/spec.md).

The registry's state decides what is written: what we attached earlier is found by its annotation and replaced, what
others attached is kept. So a push that stopped halfway is completed by the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from scanner.errors import ImageError, NotFoundError
from scanner.model.reference import Descriptor, Digest, Reference
from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.registry.client import RegistryClient
from scanner.registry.manifest import EMPTY_CONFIG, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

OURS = "dev.dockwarden.receipt"
_EMPTY = b"{}"
_DSSE = "application/vnd.dsse.envelope.v1+json"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_MAX_LAYERS = 1000  # cosign's own limit


@dataclass(frozen=True)
class Attestation:
    """An attestation in both forms. ``owner``: who attached it; a later push of the same owner replaces it."""

    predicate_type: str
    envelope: bytes  # DSSE, as older clients read it
    bundle: bytes  # Sigstore bundle, as newer ones do
    owner: str
    made_at: datetime


def attach(client: RegistryClient, image: Reference, owner: str, wanted: Sequence[Attestation]) -> str:
    """Make ``wanted`` the owner's attestations of an image. Returns a note about what the registry refused, or "".

    Raises RemoteError, ImageError if the registry's documents are malformed, NotFoundError if it has no such image.
    """
    assert image.digest is not None
    subject, _ = client.manifest(image)
    # The tag first: it is replaced by one request, so no verifier sees a moment with two contradicting receipts.
    _write_tag(client, image, owner, wanted)
    return _write_referrers(client, image, subject, owner, wanted)


def _tag(digest: Digest, suffix: str = "") -> str:
    return f"{digest.algorithm}-{digest.hex[:64]}{suffix}"


def _write_tag(client: RegistryClient, image: Reference, owner: str, wanted: Sequence[Attestation]) -> None:
    """Write cosign's manifest: each layer is a DSSE envelope."""
    assert image.digest is not None
    tag = _tag(image.digest, ".att")
    document = _read_manifest(client, Reference(image.host, image.repository, tag))
    layers = [] if document is None else _items(document, "layers", tag)
    kept = [layer for layer in layers if _annotations(layer).get(OURS) != owner]
    if not wanted and len(kept) == len(layers):
        return
    for each in wanted:
        digest = client.push_blob(image.repository, each.envelope)
        # An empty signature: cosign reads signatures of attestations from the envelope, but wants the annotation.
        notes = {"dev.cosignproject.cosign/signature": "", "predicateType": each.predicate_type, OURS: owner}
        kept.append({"mediaType": _DSSE, "digest": str(digest), "size": len(each.envelope), "annotations": notes})
    if len(kept) > _MAX_LAYERS:
        raise ImageError(f"{tag} has more than {_MAX_LAYERS} attestations", reason="limit_exceeded")
    config = orjson.dumps(
        {
            "architecture": "",
            "created": "0001-01-01T00:00:00Z",
            "history": [{"created": "0001-01-01T00:00:00Z"} for _ in kept],
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [layer.get("digest") for layer in kept]},
            "config": {},
        }
    )
    described = {
        "mediaType": OCI_CONFIG,
        "digest": str(client.push_blob(image.repository, config)),
        "size": len(config),
    }
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": kept}
    client.push_manifest(image.repository, tag, orjson.dumps(manifest), OCI_MANIFEST)


def _write_referrers(
    client: RegistryClient, image: Reference, subject: Descriptor, owner: str, wanted: Sequence[Attestation]
) -> str:
    """Write each attestation as a sigstore bundle that refers to the image, and remove the owner's former ones."""
    assert image.digest is not None
    former = [d for d in client.referrers(image, image.digest, _BUNDLE) if dict(d.annotations).get(OURS) == owner]
    added: list[dict[str, Any]] = []
    listed = False
    for each in wanted:
        manifest = orjson.dumps(_referrer(client, image.repository, subject, each))
        digest = Digest.of(manifest)
        headers = client.push_manifest(image.repository, str(digest), manifest, OCI_MANIFEST)
        listed = bool(headers.get("OCI-Subject"))
        added.append(
            {
                "mediaType": OCI_MANIFEST,
                "digest": str(digest),
                "size": len(manifest),
                "artifactType": _BUNDLE,
                "annotations": _referrer_annotations(each),
            }
        )
    new = {item["digest"] for item in added}
    gone = [str(d.digest) for d in former if str(d.digest) not in new]
    if not listed:
        _write_fallback(client, image, added, set(gone))
    refused = [digest for digest in gone if not client.delete_manifest(image.repository, digest)]
    if refused and listed:
        return (
            f"the registry does not delete manifests: {len(refused)} superseded receipts stay among the referrers of "
            "the image until they end"
        )
    return ""


def _referrer(client: RegistryClient, repository: str, subject: Descriptor, each: Attestation) -> dict[str, Any]:
    bundle, empty = client.push_blob(repository, each.bundle), client.push_blob(repository, _EMPTY)
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": _BUNDLE,
        "config": {"mediaType": EMPTY_CONFIG, "digest": str(empty), "size": len(_EMPTY)},
        "layers": [{"mediaType": _BUNDLE, "digest": str(bundle), "size": len(each.bundle)}],
        "subject": {"mediaType": subject.media_type, "digest": str(subject.digest), "size": subject.size},
        "annotations": _referrer_annotations(each),
    }


def _referrer_annotations(each: Attestation) -> dict[str, str]:
    """The annotations that cosign writes, and ours."""
    return {
        "org.opencontainers.image.created": each.made_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": each.predicate_type,
        OURS: each.owner,
    }


def _write_fallback(
    client: RegistryClient, image: Reference, added: Sequence[Mapping[str, Any]], gone: set[str]
) -> None:
    """Update the referrers tag, for registries without the API (distribution-spec, referrers tag schema)."""
    assert image.digest is not None
    tag = _tag(image.digest)
    document = _read_manifest(client, Reference(image.host, image.repository, tag))
    if document is None and not added:
        return
    listed = [] if document is None else _items(document, "manifests", tag)
    new = {item["digest"] for item in added}
    kept = [item for item in listed if item.get("digest") not in gone | new]
    if not added and len(kept) == len(listed):
        return
    index = {**(document or {}), "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*kept, *added]}
    client.push_manifest(image.repository, tag, orjson.dumps(index), OCI_INDEX)


def _read_manifest(client: RegistryClient, reference: Reference) -> dict[str, Any] | None:
    try:
        _, data = client.manifest(reference)
    except NotFoundError:
        return None
    found = load_untrusted_json(data, limit=client.settings.limits.manifest, error=ImageError)
    if not isinstance(found, dict):
        raise ImageError(f"{reference} is not a manifest")
    return found


def _items(document: Mapping[str, Any], member: str, tag: str) -> list[dict[str, Any]]:
    """The descriptors of a manifest or index.

    Raises ImageError for anything else under the tag: it is not replaced, because it may be an image.
    """
    items = document.get(member)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ImageError(f"the tag {clean_text(tag, 100)} is something else than attestations")
    return list(items)


def _annotations(item: Mapping[str, Any]) -> Mapping[str, Any]:
    found = item.get("annotations")
    return found if isinstance(found, dict) else {}
