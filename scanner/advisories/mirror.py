"""Downloads advisories from a configured mirror: an OCI artifact of trivy-db's media type, or a file at a URL.

A mirror is not trusted: sizes are limited, digests compared, redirects refused, and its titles, names and paths are
never used. The download goes to a file with our own name and is verified before it is activated.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from scanner.config import Settings
from scanner.errors import ImageError, LimitExceeded, RemoteError, UsageError
from scanner.model.reference import Reference
from scanner.outbound import AnswerTooLarge, http_client
from scanner.registry.auth import CredentialStore
from scanner.registry.client import Access, RegistryClient
from scanner.registry.manifest import Manifest, parse_manifest

DATABASE, JAVA_DATABASE = (f"application/vnd.aquasec.trivy.{name}.layer.v1.tar+gzip" for name in ("db", "javadb"))
# Bytes of a compressed database, and of a feed.
_MAX_ARTIFACT, _MAX_FILE = 4 << 30, 256 << 20
_SECONDS = 3600.0  # an hour for 4 GiB is 1.2 MB/s


@dataclass(frozen=True)
class Download:
    """A finished download.

    ``identity`` detects changes: a layer's digest, or an ETag; empty if unknown. ``file`` is None if nothing has
    changed.
    """

    identity: str
    file: Path | None


def fetch(settings: Settings, source: str, media_type: str, target: Path, have: str = "") -> Download:
    """Download ``source`` to the file ``target``, unless its identity is still ``have``.

    Raises UsageError for an unreadable source, RemoteError and ImageError like the registry client.
    """
    if source.startswith(("https://", "http://")):
        return _file(settings, source, target, have)
    return _artifact(settings, Reference.parse(source), media_type, target, have)


def _artifact(settings: Settings, reference: Reference, media_type: str, target: Path, have: str) -> Download:
    """Download an OCI artifact (image-spec 1.1): the one layer with the expected media type.

    Annotations are ignored.
    """
    access = Access(reference.host in settings.insecure_registries, settings.advisories_ca_file)
    with RegistryClient(reference.host, settings, CredentialStore(settings, personal=False), access) as client:
        descriptor, data = client.manifest(reference)
        manifest = parse_manifest(data, descriptor, settings.limits)
        layers = [d for d in manifest.layers if d.media_type == media_type] if isinstance(manifest, Manifest) else []
        # Two candidates would leave the choice to their order, which the mirror decides.
        if len(layers) != 1:
            raise ImageError(f"{reference} has {len(layers)} layers of {media_type}", reason="not_an_advisory_database")
        layer = layers[0]
        # Before the first byte: a declared size is a lie at most in the other direction, which `_keep` notices.
        if layer.size > _MAX_ARTIFACT:
            raise LimitExceeded(f"{reference} is larger than {_MAX_ARTIFACT >> 30} GiB")
        if layer.digest == have:
            return Download(have, None)
        found = hashlib.new(layer.digest.algorithm)
        with client.stream_blob(reference, layer, _SECONDS) as chunks:
            _keep(_hash_chunks(chunks, found), target, layer.size)
        if found.hexdigest() != layer.digest.hex:
            raise ImageError(
                f"{reference.host} sent content that does not match {layer.digest}", reason="digest_mismatch"
            )
        return Download(str(layer.digest), target)


def _hash_chunks(chunks: Iterable[bytes], found: hashlib._Hash) -> Iterable[bytes]:
    for chunk in chunks:
        found.update(chunk)
        yield chunk


def _file(settings: Settings, url: str, target: Path, have: str) -> Download:
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.netloc not in settings.insecure_registries:
        raise UsageError(
            f"{parts.netloc} would be contacted over plain HTTP",
            reason="tls_required",
            hint="use https, or add the host to DOCKWARDEN_INSECURE_REGISTRIES",
        )
    if parts.username or parts.password:
        raise UsageError(
            "the URL of a source must not contain a password",
            hint="put it into the file of DOCKWARDEN_REGISTRY_CREDENTIALS",
        )
    # An identity may also be a digest, left from a time when the source was an OCI artifact.
    headers = {"If-None-Match": have} if have.startswith(('"', "W/")) else {}
    known = CredentialStore(settings, personal=False).find(parts.netloc)
    if known is not None:
        pair = f"{known.username}:{known.password.reveal()}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
    with http_client(settings, ca_file=settings.advisories_ca_file or settings.ca_file) as client:
        try:
            with client.open("GET", url, headers=headers, seconds=_SECONDS) as answer:
                if answer.status == 304:
                    return Download(have, None)
                if answer.status != 200:
                    raise RemoteError(
                        f"{parts.netloc} answered {answer.status} for {parts.path}", reason="mirror_error"
                    )
                if answer.encoding != "identity":  # the file's own gzip is not a content encoding
                    raise RemoteError(
                        f"{parts.netloc} sent a compressed answer although none was requested", reason="mirror_error"
                    )
                limit = _MAX_ARTIFACT if parts.path.endswith(".tar.gz") else _MAX_FILE
                _keep(answer.chunks(limit), target, limit)
                return Download(answer.headers.get("ETag", "")[:200], target)
        except AnswerTooLarge as error:
            raise LimitExceeded(f"{parts.netloc}: {error}") from error
        except httpx.HTTPError as error:
            raise RemoteError(
                f"cannot reach {parts.netloc}: {type(error).__name__}", reason="mirror_unreachable"
            ) from error


def _keep(chunks: Iterable[bytes], target: Path, limit: int) -> None:
    size = 0
    with target.open("wb") as file:
        for chunk in chunks:
            size += len(chunk)
            if size > limit:
                raise LimitExceeded(f"the download is larger than the {limit} bytes that were declared or allowed")
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
