"""Signing as cosign does: classic layers with annotations, DSSE envelopes, sigstore bundles."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from scanner.model.reference import Descriptor
from scanner.trust._cosign.payload import SIGNATURE_PREDICATE
from tests.scanner.trust.certificates import Log, PrivateKey, b64, der, pem
from tests.scanner.trust.trees import MANIFEST, NOW, Files

SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
IN_TOTO = "application/vnd.in-toto+json"
PROVENANCE = "https://slsa.dev/provenance/v1"


def sign(key: PrivateKey, data: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(data)


def payload(digest: str, kind: str = "cosign container image signature", **optional: Any) -> bytes:
    critical = {
        "identity": {"docker-reference": "registry.example/team/app"},
        "image": {"docker-manifest-digest": digest},
        "type": kind,
    }
    return json.dumps({"critical": critical, "optional": optional or None}).encode()


def statement(digest: str, predicate_type: str = SIGNATURE_PREDICATE, predicate: Any = None, **other: Any) -> bytes:
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "app", "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": predicate_type,
        "predicate": predicate or {},
        **other,
    }
    return json.dumps(document).encode()


def pae(body: bytes, kind: str = IN_TOTO) -> bytes:
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(body), body)


def envelope(key: PrivateKey, body: bytes) -> dict[str, Any]:
    return {"payload": b64(body), "payloadType": IN_TOTO, "signatures": [{"sig": b64(sign(key, pae(body)))}]}


@dataclass
class Layer:
    """A layer of a ``.sig`` or ``.att`` manifest."""

    data: bytes
    annotations: Mapping[str, str]
    media_type: str = SIMPLE


def signer_pem(key: PrivateKey, certificate: x509.Certificate | None) -> str:
    return b64(pem(certificate or key).encode())


def hashed_rekord(
    data: bytes, signature: bytes, key: PrivateKey, certificate: x509.Certificate | None = None
) -> dict[str, Any]:
    digest = {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}
    signed = {"content": b64(signature), "publicKey": {"content": signer_pem(key, certificate)}}
    return {"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {"data": {"hash": digest}, "signature": signed}}


def dsse_entry(
    body: bytes, signature: bytes, key: PrivateKey, certificate: x509.Certificate | None = None
) -> dict[str, Any]:
    return {
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(body).hexdigest()},
            "signatures": [{"signature": b64(signature), "verifier": signer_pem(key, certificate)}],
        },
    }


def in_toto_entry(
    body: bytes, signature: bytes, key: PrivateKey, certificate: x509.Certificate | None = None
) -> dict[str, Any]:
    signatures = [{"sig": b64(b64(signature).encode()), "publicKey": signer_pem(key, certificate)}]
    content = {
        "envelope": {"payloadType": IN_TOTO, "signatures": signatures},
        "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(body).hexdigest()},
    }
    return {"apiVersion": "0.0.2", "kind": "intoto", "spec": {"content": content}}


def classic(
    key: PrivateKey,
    data: bytes,
    certificate: x509.Certificate | None = None,
    chain: Sequence[x509.Certificate] = (),
    log: Log | None = None,
    logged: datetime = NOW,
    entry: Mapping[str, Any] | None = None,
    timestamp: bytes = b"",
    signature: bytes | None = None,
) -> Layer:
    """A signature over ``data``; with a log entry where a log is given (``entry``: another than the honest one)."""
    made = sign(key, data) if signature is None else signature
    annotations = {"dev.cosignproject.cosign/signature": b64(made)}
    if certificate is not None:
        annotations["dev.sigstore.cosign/certificate"] = pem(certificate)
        annotations["dev.sigstore.cosign/chain"] = "".join(map(pem, chain))
    if log is not None:
        promise = log.promise(entry or hashed_rekord(data, made, key, certificate), logged)
        annotations["dev.sigstore.cosign/bundle"] = json.dumps(promise)
    if timestamp:
        annotations["dev.sigstore.cosign/rfc3161timestamp"] = json.dumps({"SignedRFC3161Timestamp": b64(timestamp)})
    return Layer(data, annotations)


def attestation(
    key: PrivateKey, body: bytes, log: Log | None = None, certificate: x509.Certificate | None = None
) -> Layer:
    made = envelope(key, body)
    annotations = {"predicateType": "not believed"}
    if certificate is not None:
        annotations["dev.sigstore.cosign/certificate"] = pem(certificate)
    if log is not None:
        signature = base64.b64decode(made["signatures"][0]["sig"])
        promise = log.promise(in_toto_entry(body, signature, key, certificate), NOW)
        annotations["dev.sigstore.cosign/bundle"] = json.dumps(promise)
    return Layer(json.dumps(made).encode(), annotations, DSSE)


def put_layers(files: Files, image: Descriptor, layers: Sequence[Layer], suffix: str = "sig") -> None:
    listed = [
        {"mediaType": layer.media_type, **files.put_blob(layer.data), "annotations": dict(layer.annotations)}
        for layer in layers
    ]
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", **files.put_blob(b"{}")}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": listed}
    files.put_manifest(manifest, f"sha256-{image.digest.hex}.{suffix}")


def bundle(
    key: PrivateKey,
    body: bytes,
    certificate: x509.Certificate | None = None,
    entries: Sequence[Mapping[str, Any]] = (),
    timestamps: Sequence[bytes] = (),
    **other: Any,
) -> bytes:
    material: dict[str, Any] = {"tlogEntries": list(entries)}
    if certificate is not None:
        material["certificate"] = {"rawBytes": b64(der(certificate))}
    else:
        material["publicKey"] = {"hint": "whatever"}
    if timestamps:
        listed = [{"signedTimestamp": b64(token)} for token in timestamps]
        material["timestampVerificationData"] = {"rfc3161Timestamps": listed}
    return json.dumps(
        {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope(key, body), **other}
    ).encode()


def logged_bundle(
    key: PrivateKey, body: bytes, log: Log, certificate: x509.Certificate | None = None, at: datetime = NOW
) -> bytes:
    """A bundle whose one envelope stands in the log: the signature in both is the same."""
    made = envelope(key, body)
    signature = base64.b64decode(made["signatures"][0]["sig"])
    entry = log.bundle_entry(dsse_entry(body, signature, key, certificate), at)
    return bundle(key, body, certificate, [entry], dsseEnvelope=made)


def put_bundle(files: Files, image: Descriptor, data: bytes, **other: Any) -> None:
    files.put_referrer(image, BUNDLE, BUNDLE, data, **other)
