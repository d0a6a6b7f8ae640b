"""Fetching advisories from a site's own mirror: an OCI artifact of trivy-db's media type, or a file under a URL.

A mirror is trusted to be reachable, not to be right: sizes are bounded, digests compared, redirects refused, and
nothing that it calls a title, name or path is ever used as one. What comes down goes into a file of our own name,
and is verified before it is in force.
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
_MAX_ARTIFACT, _MAX_FILE = 4 << 30, 256 << 20
_SECONDS = 3600.0  # an hour for 4 GiB is 1.2 MB/s


@dataclass(frozen=True)
class Fetched:
    """What came down.

    ``identity`` is what tells whether there is something new: a layer's digest, or an ETag; empty: it cannot be
    told. ``file`` None: it is what we have already.
    """

    identity: str
    file: Path | None


def fetch(settings: Settings, source: str, media_type: str, target: Path, have: str = "") -> Fetched:
    """Bring ``source`` into the file ``target``, unless ``have`` says that we have it.

    Raises UsageError for a source that cannot be read, RemoteError and ImageError as the registry client does.
    """
    if source.startswith(("https://", "http://")):
        return _file(settings, source, target, have)
    return _artifact(settings, Reference.parse(source), media_type, target, have)


def _artifact(settings: Settings, reference: Reference, media_type: str, target: Path, have: str) -> Fetched:
    """OCI image-spec 1.1, artifacts: one layer of the media type that we want, whatever annotations call it."""
    access = Access(reference.host in settings.insecure_registries, settings.advisories_ca_file)
    with RegistryClient(reference.host, settings, CredentialStore(settings, personal=False), access) as client:
        descriptor, data = client.manifest(reference)
        manifest = parse_manifest(data, descriptor, settings.limits)
        layers = [d for d in manifest.layers if d.media_type == media_type] if isinstance(manifest, Manifest) else []
        if len(layers) != 1:
            raise ImageError(
                f"{reference} holds {len(layers)} layers of {media_type}", reason="not_an_advisory_database"
            )
        layer = layers[0]
        if layer.size > _MAX_ARTIFACT:
            raise LimitExceeded(f"{reference} is larger than {_MAX_ARTIFACT >> 30} GiB")
        if layer.digest == have:
            return Fetched(have, None)
        found = hashlib.new(layer.digest.algorithm)
        with client.stream_blob(reference, layer, _SECONDS) as chunks:
            _keep(_hashing(chunks, found), target, layer.size)
        if found.hexdigest() != layer.digest.hex:
            raise ImageError(f"{reference.host} sent other bytes than {layer.digest}", reason="digest_mismatch")
        return Fetched(str(layer.digest), target)


def _hashing(chunks: Iterable[bytes], found: hashlib._Hash) -> Iterable[bytes]:
    for chunk in chunks:
        found.update(chunk)
        yield chunk


def _file(settings: Settings, url: str, target: Path, have: str) -> Fetched:
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.netloc not in settings.insecure_registries:
        raise UsageError(
            f"{parts.netloc} would be asked over plain HTTP",
            reason="tls_required",
            hint="use https, or name it in DOCKWARDEN_INSECURE_REGISTRIES",
        )
    if parts.username or parts.password:
        raise UsageError(
            "a source's address must not hold a password",
            hint="put it into the file that DOCKWARDEN_REGISTRY_CREDENTIALS names",
        )
    headers = {"If-None-Match": have} if have.startswith(('"', "W/")) else {}
    known = CredentialStore(settings, personal=False).find(parts.netloc)
    if known is not None:
        pair = f"{known.username}:{known.password.reveal()}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
    with http_client(settings, ca_file=settings.advisories_ca_file or settings.ca_file) as client:
        try:
            with client.open("GET", url, headers=headers, seconds=_SECONDS) as answer:
                if answer.status == 304:
                    return Fetched(have, None)
                if answer.status != 200:
                    raise RemoteError(
                        f"{parts.netloc} answered {answer.status} for {parts.path}", reason="mirror_error"
                    )
                if answer.encoding != "identity":  # what is kept is the file itself: its own gzip is no encoding
                    raise RemoteError(f"{parts.netloc} compressed an answer nobody asked it to", reason="mirror_error")
                limit = _MAX_ARTIFACT if parts.path.endswith(".tar.gz") else _MAX_FILE
                _keep(answer.chunks(limit), target, limit)
                return Fetched(answer.headers.get("ETag", "")[:200], target)
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
                raise LimitExceeded(f"more than the {limit} bytes that were announced or allowed")
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
