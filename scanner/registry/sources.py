"""Sources of images: a registry, an OCI layout, an archive, the local engine. All provide the same documents and bytes.

``host/repo:tag``, ``host/repo@sha256:…``, ``oci:DIR[:TAG]``, ``archive:FILE`` (docker save or OCI, plain or gzip),
``docker:NAME``.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import platform as machine
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scanner.config import Settings
from scanner.errors import ImageError, LimitExceeded, NotAnImage, NotFoundError, RemoteError, ScannerError, UsageError
from scanner.model.image import Image
from scanner.model.reference import Descriptor, Digest, Platform, Reference
from scanner.model.untrusted import clean_text
from scanner.registry.archive import MissingBlob, OciLayout, open_archive
from scanner.registry.decompress import Readable
from scanner.registry.manifest import (
    ImageIndex,
    Manifest,
    build_image,
    doubtful_layers,
    has_image_layers,
    parse_config,
    parse_manifest,
    require_image,
    unknown_config,
)
from scanner.registry.tar import BLOCK, begins_archive
from scanner.registry.work_directories import work_directory

if TYPE_CHECKING:
    from scanner.registry.auth import CredentialStore
    from scanner.registry.client import Access, RegistryClient

log = logging.getLogger(__name__)

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
# Bytes read at once.
_PIECE = 64 << 10
AccessTo = Callable[[str], "tuple[Access, CredentialStore]"]


class Source(ABC):
    """An opened target. ``reference`` is None if the image has no name in a registry."""

    reference: Reference | None = None

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._no_archives: set[Digest] = set()  # manifests of artifacts whose layers were looked into

    def read_until(self, ends: float) -> None:
        """Stop reading at this time.monotonic() value. Local files ignore it."""

    @abstractmethod
    def describe(self) -> str:
        """Name of the source, for progress messages."""

    @abstractmethod
    def resolve(self) -> Descriptor:
        """Resolve the target, once. Afterwards only digests are used, so a tag that moves cannot mix two images."""

    @abstractmethod
    def document(self, descriptor: Descriptor, limit: int) -> bytes:
        """Return a manifest or config, verified by its digest."""

    @abstractmethod
    def open(self, descriptor: Descriptor) -> contextlib.AbstractContextManager[Readable]:
        """Open a layer's transported bytes. They are not verified yet; ``read_layer`` does that."""

    def referrers(self, digest: Digest) -> list[Descriptor]:
        """List what refers to this manifest. Empty for directories and archives, which have no referrers."""
        return []

    def image(self, descriptor: Descriptor) -> tuple[Image, bytes]:
        """Return the image that a manifest describes, and its config's bytes.

        Raises ImageError for an index or artifact.
        """
        data = self.document(descriptor, self.settings.limits.manifest)
        manifest = parse_manifest(data, descriptor, self.settings.limits)
        # The specification allows nesting; no runtime follows it, and it would have no end here.
        if not isinstance(manifest, Manifest):
            raise ImageError("an index inside an index", reason="unsupported_media_type")
        self._require_image(manifest)
        if manifest.config.size > self.settings.limits.config:
            raise LimitExceeded(f"the config is too large: {manifest.config.size} bytes")
        config = self.document(manifest.config, self.settings.limits.config)
        return build_image(manifest, parse_config(config, manifest.config.digest, self.settings.limits)), config

    def children(
        self, subject: Descriptor, platform: Platform | None, every: bool
    ) -> tuple[tuple[Descriptor, ...], tuple[str, ...]]:
        """Return the manifests to examine, and the digests of children that are not images (attestations).

        ``every``: all platforms; otherwise ``platform``, or the host's. Raises NotFoundError with the available
        platforms.
        """
        document = self._manifest(subject)
        if not isinstance(document, ImageIndex):
            self._require_image(document)
            if platform is not None and not (there := self._platform(document.descriptor)).fits(platform):
                raise NotFoundError(
                    f"the image is for {there}, not for {platform}",
                    hint=f"omit --platform, or use --platform {there}",
                )
            return (document.descriptor,), ()
        images = tuple(d for d in document.manifests if self._is_image(d))
        skipped = tuple(str(d.digest) for d in document.manifests if d not in images)
        if not images:
            raise NotAnImage("the index has no image, only attestations or other artifacts")
        if every and platform is None:
            return tuple({d.digest: d for d in reversed(images)}.values())[::-1], skipped  # each manifest once
        wanted = platform or host_platform()
        for descriptor in images:
            if (descriptor.platform or self._platform(descriptor)).fits(wanted):
                return (descriptor,), skipped
        # An image for one other platform is what the user means: it cannot be another.
        if platform is None and len(images) == 1:
            return images, skipped
        available = ", ".join(str(d.platform or self._platform(d)) for d in images if _is_called_an_image(d))
        raise NotFoundError(f"the index has no image for {wanted}", hint=f"use --platform with one of: {available}")

    def _manifest(self, descriptor: Descriptor) -> Manifest | ImageIndex:
        limits = self.settings.limits
        return parse_manifest(self.document(descriptor, limits.manifest), descriptor, limits)

    def _is_image(self, descriptor: Descriptor) -> bool:
        """True if a child of an index must be examined, by its own manifest.

        A child that the index declares as an attestation is checked as well, because the attacker writes that
        declaration. A child that does not exist can be run by nobody (registries and archives often lack the
        attestations).
        """
        try:
            document = self._manifest(descriptor)
            if isinstance(document, Manifest):
                self._require_image(document)
        except NotAnImage:
            return False
        except (NotFoundError, MissingBlob):
            if _is_called_an_image(descriptor):
                raise
            return False
        return True

    def _require_image(self, manifest: Manifest) -> None:
        """Raise NotAnImage for an artifact, and ImageError for one that some runtime would run all the same.

        The types in a manifest are its author's words. Only an artifact whose layers are no archives passes a pull
        gate, or is left out of an index, without being examined.
        """
        try:
            require_image(manifest)
        except NotAnImage:
            descriptor = manifest.descriptor
            # Some runtimes refuse a config of another type, but not all of them do.
            if descriptor.platform is not None and descriptor.platform.is_image and has_image_layers(manifest):
                raise unknown_config(manifest) from None
            if descriptor.digest not in self._no_archives:
                for layer in {each.digest: each for each in doubtful_layers(manifest)}.values():
                    self._require_no_archive(layer)
                self._no_archives.add(descriptor.digest)
            raise

    def _require_no_archive(self, layer: Descriptor) -> None:
        if layer.size > self.settings.limits.layer_compressed:
            raise LimitExceeded(f"a layer of an artifact is larger than {self.settings.limits.layer_compressed} bytes")
        seen, head = hashlib.new(layer.digest.algorithm), b""
        try:
            with self.open(layer) as stream:
                while piece := stream.read(_PIECE):
                    seen.update(piece)
                    head += piece[: BLOCK - len(head)]
        except MissingBlob:
            return  # archives often lack the layers of attestations, and nobody can unpack what is not there
        if seen.hexdigest() != layer.digest.hex:
            raise ImageError(f"layer {layer.digest.short} has other content", reason="digest_mismatch")
        if begins_archive(head):
            kind = clean_text(layer.media_type, 100)
            raise ImageError(
                f"a layer of type {kind!r} is an archive, which some runtimes unpack whatever its type",
                reason="unsupported_media_type",
            )

    def _platform(self, descriptor: Descriptor) -> Platform:
        """The platform in the image's own config."""
        return self.image(descriptor)[0].config.platform

    def close(self) -> None:
        """Release what was opened."""


def _is_called_an_image(descriptor: Descriptor) -> bool:
    """Runtimes select by platform and ignore annotations, so an annotation makes no attestation of an image."""
    return descriptor.platform is None or descriptor.platform.is_image


def host_platform() -> Platform:
    """linux/<architecture of this machine>, in Go's names."""
    return Platform("linux", _ARCHITECTURES.get(machine.machine(), machine.machine()))


class RegistrySource(Source):
    """An image in a registry."""

    def __init__(self, reference: Reference, settings: Settings, client: RegistryClient) -> None:
        super().__init__(settings)
        self.reference: Reference = reference
        self.client = client
        self._manifests: dict[Digest, bytes] = {}  # children of an index are read twice: to select and to examine

    def read_until(self, ends: float) -> None:
        """See `Source.read_until`."""
        self.client.ends = ends

    def describe(self) -> str:
        return str(self.reference)

    def resolve(self) -> Descriptor:
        descriptor, self._first = self.client.manifest(self.reference)
        if self.reference.tag and self.reference.digest and self._names_another(self.reference.tag):
            # An event that comes late: its image is examined, but the tag has moved on and names it no more.
            self.reference = replace(self.reference, tag=None)
        self.reference = self.reference.at(descriptor.digest)
        return descriptor

    def _names_another(self, tag: str) -> bool:
        """Whether the registry says that the tag names another digest. False if it does not say."""
        digest = self.reference.digest
        try:
            return self.client.tag_digest(replace(self.reference, digest=None, tag=tag), digest) != digest
        except ScannerError:
            log.info("%s: the registry does not say what the tag %s names", self.reference, tag)
            return False

    def still_names(self, digest: Digest) -> bool:
        """Whether the registry says that the tag names this digest now. Nothing is downloaded."""
        return self.client.tag_digest(self.reference, digest) == digest

    def document(self, descriptor: Descriptor, limit: int) -> bytes:
        if descriptor.digest == self.reference.digest:
            return self._first
        if "manifest" in descriptor.media_type or "index" in descriptor.media_type:
            if descriptor.digest not in self._manifests:
                self._manifests[descriptor.digest] = self.client.manifest(self.reference.at(descriptor.digest))[1]
            return self._manifests[descriptor.digest]
        return self.client.blob(self.reference, descriptor.digest, limit)

    def referrers(self, digest: Digest) -> list[Descriptor]:
        """See `Source.referrers`."""
        return self.client.referrers(self.reference, digest)

    @contextmanager
    def open(self, descriptor: Descriptor) -> Iterator[Readable]:
        with self.client.stream_blob(self.reference, descriptor) as chunks:
            yield _Stream(chunks)

    def close(self) -> None:
        self.client.__exit__()


class _Stream:
    """A readable stream over an iterator of byte strings."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def read(self, size: int = -1, /) -> bytes:
        while size < 0 or len(self._rest) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self._rest += chunk
        piece, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return piece


class LayoutSource(Source):
    """An OCI layout in a directory or an archive."""

    def __init__(
        self,
        layout: OciLayout,
        settings: Settings,
        name: str,
        tag: str | None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(settings)
        self._layout, self._name, self._tag, self._close = layout, name, tag, close

    def describe(self) -> str:
        return self._name

    def resolve(self) -> Descriptor:
        return self._layout.find(self._tag)

    def document(self, descriptor: Descriptor, limit: int) -> bytes:
        return self._layout.blob(descriptor.digest, limit)

    def open(self, descriptor: Descriptor) -> contextlib.AbstractContextManager[Readable]:
        return self._layout.open(descriptor.digest)

    def close(self) -> None:
        self._close()


@contextmanager
def open_target(text: str, settings: Settings, access: AccessTo | None = None) -> Iterator[Source]:
    """Open the source that ``text`` names.

    ``access`` tells how a server reaches a registry, and refuses unconfigured ones. Without it, the settings and the
    user's docker config apply. Raises UsageError with a hint if ``text`` is not a target.
    """
    source = _open(text, settings, access)
    try:
        yield source
    finally:
        source.close()


def _open(text: str, settings: Settings, access: AccessTo | None) -> Source:
    kind, colon, rest = text.partition(":")
    if access is None and colon and kind in ("oci", "archive", "docker"):
        if not rest:
            raise UsageError(
                f"{kind}: needs a {'name' if kind == 'docker' else 'path'}",
                hint=f"write {kind}:{'NAME' if kind == 'docker' else 'PATH'}",
            )
        return {"oci": _open_oci, "archive": _open_archive, "docker": _open_docker}[kind](rest, settings)
    looks_like_a_path = text.startswith(("./", "../", "/")) or (
        text.endswith((".tar", ".tgz", ".gz")) and Path(text).exists()
    )
    if access is None and looks_like_a_path:
        # A path is a frequent mistake, and the reference grammar would read ./image.tar as a repository of Docker Hub.
        kind = "oci" if Path(text).is_dir() else "archive"
        raise UsageError(f"{text[:200]!r} is a path, not a reference", hint=f"write {kind}:{text[:200]}")
    # Imported only here: an HTTP client takes longer to import than a small archive takes to scan.
    from scanner.registry.auth import CredentialStore
    from scanner.registry.client import Access, RegistryClient

    reference = Reference.parse(text)
    way, credentials = (
        access(reference.host)
        if access
        else (Access(reference.host in settings.insecure_registries, named=True), CredentialStore(settings))
    )
    return RegistrySource(reference, settings, RegistryClient(reference.host, settings, credentials, way))


def _open_oci(rest: str, settings: Settings) -> Source:
    directory, tag = Path(rest), None
    if not directory.is_dir() and ":" in rest:
        head, _, tag = rest.rpartition(":")
        directory = Path(head)
    if not directory.is_dir():
        raise UsageError(f"there is no directory {directory}", hint="write oci:DIR[:TAG]; DIR is an OCI image layout")
    return LayoutSource(OciLayout.of_directory(directory, settings.limits), settings, f"oci:{rest}", tag)


def _open_archive(rest: str, settings: Settings) -> Source:
    layout, close = open_archive(Path(rest), settings)
    return LayoutSource(layout, settings, f"archive:{rest}", None, close)


def _open_docker(name: str, settings: Settings) -> Source:
    """Save an image of the local engine (``docker save``) into a bounded temporary file."""
    import docker
    from docker.errors import DockerException, ImageNotFound

    with ExitStack() as stack:
        file = stack.enter_context(work_directory(settings, "docker")) / "image.tar"
        try:
            # Saving a large image takes the engine a while before the first byte.
            client = docker.from_env(timeout=120)
            size = 0
            # The size is known only at the end: the engine streams the archive while it writes it.
            with file.open("xb") as out:
                for chunk in client.images.get(name).save(named=True):
                    size += len(chunk)
                    if size > settings.limits.image_uncompressed:
                        raise LimitExceeded(f"{name} is larger than {settings.limits.image_uncompressed} bytes")
                    out.write(chunk)
        except ImageNotFound as error:
            raise NotFoundError(
                f"the local engine has no image {name!r}", hint="list them with: docker images"
            ) from error
        except DockerException as error:
            raise RemoteError(
                "cannot reach the local engine",
                reason="engine_unreachable",
                hint="check that dockerd is running, and DOCKER_HOST",
                retryable=False,
            ) from error
        layout, close = open_archive(file, settings)
        stack.callback(close)
        return LayoutSource(layout, settings, f"docker:{name}", None, stack.pop_all().close)
