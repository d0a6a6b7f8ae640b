"""cosign: ``.sig`` tags, and sigstore bundles or signatures among the referrers; with keys, or keyless (identity and
issuer).

Attestations (``.att`` tags, bundles with another predicate type) are verified the same way and reported beside the
signature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from scanner.errors import NotFoundError, UsageError
from scanner.model.finding import Signer, TrustStatus, Verification
from scanner.model.reference import Descriptor, Reference
from scanner.model.untrusted import clean_text
from scanner.registry.manifest import Manifest, parse_manifest
from scanner.trust._cosign.document import CosignTrust, parse_document, parse_trust
from scanner.trust._cosign.forms import BUNDLES, DSSE, SIMPLE_SIGNING, parse_bundle, parse_classic
from scanner.trust._cosign.payload import MAX_ENVELOPE, MAX_PAYLOAD, SIGNATURE_PREDICATE
from scanner.trust._cosign.verification import AcceptedSignature, FoundSignature, verify_one
from scanner.trust._found import (
    FoundSignatures,
    answer,
    fetch_blob,
    furthest,
    referrers,
    referring_manifest,
    single_layer,
    type_of,
    without_root,
)
from scanner.trust.base import SignatureRefused, TrustJob, TrustRoot, TrustScheme

_BUNDLE = "application/vnd.dev.sigstore.bundle"
# What is otherwise under the tag ``.sig``, as a referrer (cosign sign --registry-referrers-mode=oci-1-1).
_REFERRING = "application/vnd.dev.cosign.artifact.sig"
_PREDICATE_TYPE = "dev.sigstore.bundle.predicateType"
_MAX_LAYERS = 1000  # cosign's own limit
_ANY = "*"  # predicate type of the answer that attestations may exist but could not be fetched
# Steps in order. Of several refused signatures, the one that passed most steps explains best why none is valid.
_PROGRESS = (
    "missing",
    "checksum",
    "signature",
    "too_large",
    "malformed",
    "tlog",
    "timestamp",
    "certificate",
    "identity",
    "payload",
    "annotations",
)


class Cosign(TrustScheme):
    """Signatures and attestations as cosign and other sigstore clients make them, with keys or keyless."""

    id: ClassVar[str] = "cosign"
    title: ClassVar[str] = "cosign (sigstore)"

    def parse_trust(self, data: bytes, where: str) -> Mapping[str, Any]:
        """See ``TrustScheme.parse_trust``."""
        return parse_document(data, where)

    def signers(self, document: Mapping[str, Any]) -> frozenset[str] | None:
        """See ``TrustScheme.signers``: names of keys, and identities that are not regular expressions."""
        subjects = [identity.get("subject") for identity in document.get("identities", ())]
        return None if None in subjects else frozenset((*document.get("keys", ()), *map(str, subjects)))

    def verify(self, job: TrustJob) -> tuple[Verification, ...]:
        """See ``TrustScheme.verify``. One answer for each trust root, then one for each verified attestation."""
        found = find(job)
        if not job.roots:
            return (without_root(self.id, job, found),)
        return tuple(answer for root in job.roots for answer in _judge(found, root, job))


def _judge(found: FoundSignatures[FoundSignature], root: TrustRoot, job: TrustJob) -> Iterator[Verification]:
    try:
        trust = parse_trust(root.document)
    except UsageError as error:
        yield answer(
            Cosign.id, job, TrustStatus.UNKNOWN, "trust_root_invalid", f"trust root {root.name}: {error}", root=root
        )
        return
    accepted: list[AcceptedSignature] = []
    attestations: list[tuple[AcceptedSignature, ...]] = []
    refused = list(found.refused)
    for signed in found.items:
        try:
            items = verify_one(signed, trust, job.descriptor.digest)
        except SignatureRefused as error:
            refused.append(error)
        else:
            if items[0].predicate_type:
                attestations.append(items)
            else:
                accepted += items
    signature = _signature(accepted, refused, found, trust, root, job)
    yield signature
    for items in attestations:
        yield _attestation(items, root, job)
    reason, text = found.why_unknown
    if reason and signature.status is TrustStatus.VERIFIED:
        # The signature is valid, but attestations may be missing. A policy must not read their absence as "none exist".
        unknown = answer(Cosign.id, job, TrustStatus.UNKNOWN, reason, text, root=root)
        yield replace(unknown, predicate_type=_ANY)


def _signature(
    accepted: Sequence[AcceptedSignature],
    refused: Sequence[SignatureRefused],
    found: FoundSignatures[FoundSignature],
    trust: CosignTrust,
    root: TrustRoot,
    job: TrustJob,
) -> Verification:
    """Verified if enough different signers signed; otherwise the best explanation. If the registry could not be read
    completely, the missing signature may exist, so the answer is unknown.
    """
    signers = {item.signer: item for item in accepted}
    people = tuple(_signer(item) for item in signers.values())
    missing = [n for n in job.options.require_signers if not any(n in (i.name, i.keyid) for i in accepted)]
    if len(signers) >= trust.threshold and not missing:
        notes = tuple(dict.fromkeys(note for item in accepted for note in item.notes))
        return answer(Cosign.id, job, TrustStatus.VERIFIED, signers=people, root=root, notes=notes)
    reason, text = found.why_unknown
    if reason:
        return answer(Cosign.id, job, TrustStatus.UNKNOWN, reason, text, root=root)
    if signers and missing:
        text = f"not signed by {clean_text(', '.join(missing), 200)}"
        return answer(Cosign.id, job, TrustStatus.REFUSED, "signer_missing", text, signers=people, root=root)
    if signers:
        text = f"signed by {len(signers)} of the {trust.threshold} different signers that are required"
        return answer(Cosign.id, job, TrustStatus.REFUSED, "threshold", text, signers=people, root=root)
    if refused:
        refusal = furthest(refused, _PROGRESS)
        return answer(Cosign.id, job, TrustStatus.REFUSED, refusal.reason, str(refusal), root=root)
    return answer(Cosign.id, job, TrustStatus.NOT_SIGNED, "not_signed", "no cosign signature", root=root)


def _attestation(items: Sequence[AcceptedSignature], root: TrustRoot, job: TrustJob) -> Verification:
    """One attestation with all its signers."""
    item, people = items[0], tuple(map(_signer, items))
    notes = tuple(dict.fromkeys(note for each in items for note in each.notes))
    verified = answer(Cosign.id, job, TrustStatus.VERIFIED, signers=people, root=root, notes=notes)
    return replace(verified, predicate_type=item.predicate_type, predicate=item.fields, predicate_cut=item.truncated)


def _signer(item: AcceptedSignature) -> Signer:
    return Signer(name=clean_text(item.name, 300), keyid=item.keyid, issuer=clean_text(item.issuer, 300))


def find(job: TrustJob) -> FoundSignatures[FoundSignature]:
    """Fetch everything that may be a signature or attestation of the image. Never raises.

    Signatures come first and have a budget of their own, so that many attestations cannot crowd out a signature. An
    annotation says which bundle is an attestation. It is not signed, so it only decides the order.
    """
    found: FoundSignatures[FoundSignature] = FoundSignatures(job.settings.limits.signatures)
    listed: list[Descriptor] = []

    def likely_signatures() -> list[Descriptor]:
        listed.extend(referrers(job, _BUNDLE, _REFERRING))
        return [item for item in listed if not _looks_like_attestation(item)]

    found.gather(partial(_tagged_layers, job, "sig", SIMPLE_SIGNING), lambda layer: _classic(layer, job))
    tagged = len(found.items)
    found.gather(likely_signatures, lambda candidate: _referrer(candidate, job, found))
    bundles, found.items = found.items[tagged:], found.items[:tagged]
    found.budget = job.settings.limits.signatures
    found.gather(partial(_tagged_layers, job, "att", DSSE), lambda layer: _classic(layer, job))
    found.items += bundles  # report in the order of the forms, not in that of fetching
    found.gather(
        lambda: list(filter(_looks_like_attestation, listed)), lambda candidate: _referrer(candidate, job, found)
    )
    return found


def _looks_like_attestation(item: Descriptor) -> bool:
    return dict(item.annotations).get(_PREDICATE_TYPE, SIGNATURE_PREDICATE) != SIGNATURE_PREDICATE


def _tagged_layers(job: TrustJob, suffix: str, media_type: str) -> Sequence[Descriptor]:
    """Layers of the manifest tagged ``sha256-<hex>.sig`` (each is a signature) or ``.att`` (each is an attestation)."""
    digest = job.descriptor.digest
    tag = f"{digest.algorithm}-{digest.hex[:64]}.{suffix}"
    try:
        descriptor, data = job.fetch.manifest(Reference(job.reference.host, job.reference.repository, tag))
    except NotFoundError:
        return []
    manifest = parse_manifest(data, descriptor, replace(job.settings.limits, layers=_MAX_LAYERS))
    return (
        [layer for layer in manifest.layers if layer.media_type == media_type] if isinstance(manifest, Manifest) else []
    )


def _classic(layer: Descriptor, job: TrustJob) -> Sequence[FoundSignature]:
    attestation = layer.media_type == DSSE
    data = fetch_blob(layer, job, MAX_ENVELOPE if attestation else MAX_PAYLOAD)
    return [parse_classic(data, dict(layer.annotations), attestation=attestation)]


def _referrer(candidate: Descriptor, job: TrustJob, found: FoundSignatures[FoundSignature]) -> Sequence[FoundSignature]:
    manifest = referring_manifest(candidate, job, _BUNDLE, _REFERRING)
    if manifest is None:
        return []
    if type_of(manifest).startswith(_REFERRING):
        # Several signatures, one a layer. They are gathered one by one: a broken one must not hide the others.
        layers = [layer for layer in manifest.layers if layer.media_type == SIMPLE_SIGNING]
        found.gather(lambda: layers, lambda layer: _classic(layer, job))
        return []
    layer = single_layer(manifest)
    if layer.media_type not in BUNDLES:
        raise SignatureRefused(f"a bundle of type {clean_text(layer.media_type, 100)}", reason="malformed")
    return [parse_bundle(fetch_blob(layer, job, MAX_ENVELOPE))]
