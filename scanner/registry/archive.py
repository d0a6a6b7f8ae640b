"""OCI image layouts and ``docker save`` archives, read without unpacking them.

An archive can be both (docker 25 and newer write both). The OCI layout then counts, because it has the manifest's
digest. For the older form a manifest is generated from the config and layers in the archive (``_as_layout``). The
config's digest, which is the image id, is the same in every form.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from scanner.config import Limits, Settings
from scanner.errors import ImageError, LimitExceeded, NotFoundError, UsageError
from scanner.files import open_regular
from scanner.lazy_dataclasses import dataclass
from scanner.model.filesystem import FileEntry, FileType
from scanner.model.reference import Descriptor, Digest
from scanner.model.untrusted import load_untrusted_json
from scanner.registry.decompress import compression_of
from scanner.registry.manifest import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFEST_MEMBERS,
    OCI_INDEX,
    TAR_GZIP,
    TAR_ZSTD,
    ImageIndex,
    Manifest,
    parse_descriptor,
    parse_manifest,
    parse_members,
)
from scanner.registry.tar import TarReader, Visitor

# Bytes read at once.
_CHUNK = 1 << 20
_REF_NAME = "org.opencontainers.image.ref.name"
_IMAGE_NAME = "io.containerd.image.name"
_SAVED = ("Config", "RepoTags", "Layers", "Parent", "LayerSources")
_OTHER_COMPRESSIONS = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2"}
_DIFF_TAR = "application/vnd.docker.image.rootfs.diff.tar"


class MissingBlob(ImageError):
    """The layout refers to a file that is not in it."""


@dataclass(frozen=True)
class OciLayout:
    """An image layout.

    ``read`` opens a file by its path in the layout. ``generated``: documents that are in no file, by digest.
    ``places``: path of a blob whose path does not follow from its digest. ``subject``: the only image, for a ``docker
    save`` archive.
    """

    read: Callable[[str], contextlib.AbstractContextManager[BinaryIO]]
    limits: Limits
    generated: dict[Digest, bytes] = field(default_factory=dict)
    places: Mapping[Digest, str] = field(default_factory=dict)
    subject: Descriptor | None = None

    @classmethod
    def of_directory(cls, directory: Path, limits: Limits) -> OciLayout:
        """Open a layout directory. Symbolic links are refused: they could point to files of the host."""

        @contextmanager
        def read(name: str) -> Iterator[BinaryIO]:
            path = directory
            for part in name.split("/"):
                path = path / part
                # Each part of the path: a linked directory leads out of the layout as well as a linked file.
                if path.is_symlink():
                    raise ImageError(
                        f"{name} is a link, and links in a layout are not followed", reason="malformed_archive"
                    )
            with open_regular(path, reason="malformed_archive") as file:
                yield file

        if not (directory / "index.json").exists():
            raise UsageError(
                f"{directory} is not an OCI image layout: it has no index.json", hint="skopeo copy … oci:DIR makes one"
            )
        return cls(read, limits)

    def find(self, tag: str | None) -> Descriptor:
        """Return the image with this tag (annotation org.opencontainers.image.ref.name); without a tag, the only one.

        Several entries with the same name, or without one, are one image for several platforms, or an image with its
        attestations (``docker buildx build --output type=oci``). index.json itself is then the image's index.
        """
        if self.subject is not None:
            return self.subject
        items = self.index_entries()
        if not items:
            raise ImageError("the layout's index.json lists no image", reason="nothing_to_scan")
        if len(items) > self.limits.index_manifests:
            raise LimitExceeded(f"a layout of {len(items)} manifests, more than {self.limits.index_manifests}")
        found = [parse_descriptor(item, f"/manifests/{i}") for i, item in enumerate(items)]
        chosen = [i for i, d in enumerate(found) if tag is None or tag in _names(d)]
        if not chosen:
            raise NotFoundError(f"the layout has no image {tag!r}", hint=_choices(found))
        # The same image under several tags is one image.
        if len({found[i].digest for i in chosen}) == 1:
            return found[chosen[0]]
        names = {_names(found[i])[:1] for i in chosen}
        # An index among several entries is an image of its own. Merging it with the others would make one image of
        # two.
        if len(names) > 1 or any(found[i].media_type in INDEXES for i in chosen):
            raise UsageError(f"the layout has {len(chosen)} images", hint=_choices(found))
        return self._generate_index([items[i] for i in chosen])

    def lists_images(self) -> bool:
        """True if index.json lists anything. Raises ImageError if it cannot be read."""
        return bool(self.index_entries())

    def index_entries(self) -> list[Any]:
        document = load_untrusted_json(self.read_file("index.json", self.limits.manifest), limit=self.limits.manifest)
        members = parse_members(document, "", MANIFEST_MEMBERS) if isinstance(document, dict) else {}
        manifests = members.get("manifests")
        return manifests if isinstance(manifests, list) else []

    def _generate_index(self, items: list[Any]) -> Descriptor:
        data = orjson.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": items})
        digest = Digest.of(data)
        self.generated[digest] = data
        return Descriptor(OCI_INDEX, digest, len(data))

    def blob(self, digest: Digest, limit: int) -> bytes:
        """Return a document after comparing it with its digest.

        Raises ImageError(reason="digest_mismatch"), MissingBlob.
        """
        data = self.generated.get(digest) or self.read_file(self._place(digest), limit)
        if not digest.matches(data):
            raise ImageError(f"the content of {digest} does not match its digest", reason="digest_mismatch")
        return data

    def open(self, digest: Digest) -> contextlib.AbstractContextManager[BinaryIO]:
        """Open a layer. Its bytes are not verified yet."""
        return self._open_file(self._place(digest))

    def _place(self, digest: Digest) -> str:
        return self.places.get(digest) or f"blobs/{digest.algorithm}/{digest.hex}"

    @contextmanager
    def _open_file(self, name: str) -> Iterator[BinaryIO]:
        try:
            with self.read(name) as file:
                yield file
        except (FileNotFoundError, KeyError):
            raise MissingBlob(f"{name} is missing", reason="malformed_archive") from None
        except OSError as error:
            raise ImageError(f"{name} cannot be read: {error.strerror}", reason="malformed_archive") from error

    def read_file(self, name: str, limit: int) -> bytes:
        with self._open_file(name) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise LimitExceeded(f"{name} is larger than {limit} bytes")
        return data


def _names(descriptor: Descriptor) -> tuple[str, ...]:
    notes = dict(descriptor.annotations)
    full = notes.get(_IMAGE_NAME, "")
    return tuple(filter(None, (notes.get(_REF_NAME, ""), full, full.rpartition(":")[2])))


def _choices(found: list[Descriptor]) -> str:
    names = [name for d in found for name in _names(d)[:1]]
    return "choose one with :TAG: " + (", ".join(names[:20]) if names else "none of them has a tag")


class _Index(Visitor):
    """Offset of each file in the outer archive. A repeated name is refused: readers differ in which entry they take."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[int, int]] = {}
        self.links: dict[str, str] = {}
        self.reader: TarReader

    def entry(self, entry: FileEntry) -> bool:
        if entry.path in self.files or entry.path in self.links:
            raise ImageError(f"{entry.path} is in the archive twice", reason="malformed_archive")
        if entry.type is FileType.FILE:
            self.files[entry.path] = (self.reader.offset, entry.size)
        elif entry.type in (FileType.SYMLINK, FileType.HARDLINK):
            # A symbolic link is relative to its directory, a hard link to the archive's root (POSIX pax, "linkpath").
            base = entry.path.rpartition("/")[0] if entry.type is FileType.SYMLINK else ""
            self.links[entry.path] = os.path.normpath(f"{base}/{entry.link}").lstrip("/")
        return False

    def content(self, entry: FileEntry, data: bytes) -> None:
        raise AssertionError("no content was requested")

    def find(self, name: str) -> tuple[int, int]:
        """Offset and size of a file, through at most one link inside the archive (``docker save`` links equal
        layers).
        """
        name = os.path.normpath(name)
        # One link, not a chain: a loop of links would not end.
        return self.files[self.links.get(name, name)]


def open_archive(path: Path, settings: Settings) -> tuple[OciLayout, Callable[[], None]]:
    """Open the images of an archive. Returns the layout and a function that closes it.

    Raises UsageError if the file is not an archive, ImageError (malformed_archive …) if it is broken or hostile.
    """
    file = _seekable(path, settings)
    try:
        index = _index(file, path, settings.limits)

        @contextmanager
        def read(name: str) -> Iterator[BinaryIO]:
            offset, size = index.find(name)
            yield io.BufferedReader(_Part(file.fileno(), offset, size), _CHUNK)

        layout = OciLayout(read, settings.limits)
        is_layout = "index.json" in index.files and "oci-layout" in index.files
        is_saved = "manifest.json" in index.files or "manifest.json" in index.links
        # Some versions of `docker save` write an index that lists nothing beside the older form that lists the image.
        if is_layout and (not is_saved or layout.lists_images()):
            if is_saved:
                _require_same_images(layout)
            return layout, file.close
        if is_saved:
            return _as_layout(layout, read, settings.limits), file.close
        raise UsageError(
            f"{path} is neither a docker save archive nor an OCI layout",
            hint=_missing(index.files),
        )
    except BaseException:
        file.close()
        raise


def _missing(names: Collection[str]) -> str:
    """Return what an archive without an image lacks, and how to get it."""
    beginning = next((name[: -len("index.json")] for name in names if name.endswith("/index.json")), "")
    if "index.json" in names:
        return "it has an index.json, but no oci-layout file beside it"
    if "repositories" in names:
        return "a Docker older than 1.10 saved it: load it and save it again with a newer one"
    if beginning:
        return f"its layout is in {beginning[:100]}: pack the content of that directory, with tar -C"
    return "it has no manifest.json and no index.json"


class _Part(io.RawIOBase):
    """A range of a file, read by position, so that several ranges can be read at the same time."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._descriptor, self._at, self._end = descriptor, offset, offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.pread(self._descriptor, min(len(buffer), self._end - self._at), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _seekable(path: Path, settings: Settings) -> BinaryIO:
    """Return the archive, or a bounded temporary copy of the content of a gzipped one."""
    try:
        file = open_regular(path, "the archive")
    except OSError as error:
        hint = "write oci:DIR for a layout directory" if isinstance(error, IsADirectoryError) else ""
        raise UsageError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    head = file.read(2)
    file.seek(0)
    if head != b"\x1f\x8b":
        return file
    # Random access needs the uncompressed bytes: layers come in any order, and the manifest may come last.
    settings.work_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    import gzip
    import tempfile

    # Without a name in the file system: nothing is left when the process is killed.
    plain = tempfile.TemporaryFile(dir=settings.work_dir)  # noqa: SIM115  the caller closes it
    total, limits = 0, settings.limits
    compressed = path.stat().st_size
    try:
        with file, gzip.GzipFile(fileobj=file) as stream:
            while chunk := stream.read(_CHUNK):
                total += len(chunk)
                # The ratio stops a small bomb early; the size alone would let it fill the disk first.
                if total > limits.image_uncompressed or (
                    total > limits.ratio_after and total > limits.ratio * compressed
                ):
                    raise LimitExceeded(f"{path} expands to more than the allowed size")
                plain.write(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        plain.close()
        raise ImageError(f"{path} is a broken gzip file", reason="malformed_archive") from error
    except BaseException:
        plain.close()
        raise
    return plain


def _index(file: BinaryIO, path: Path, limits: Limits) -> _Index:
    index = _Index()
    index.reader = TarReader(index, limits)
    file.seek(0)
    first = True
    while chunk := file.read(_CHUNK):
        try:
            index.reader.feed(chunk)
        except ImageError as error:
            # Only the first piece decides whether it is a tar at all. A fault behind it is the image's.
            if first and not index.reader.entries and error.reason == "malformed_archive":
                packed = next((name for magic, name in _OTHER_COMPRESSIONS.items() if chunk.startswith(magic)), "")
                raise UsageError(
                    f"{path} is not a tar archive",
                    reason="malformed_archive",
                    hint=f"it is compressed with {packed}: decompress it first"
                    if packed
                    else "docker save or skopeo copy … oci-archive: makes one",
                ) from error
            raise
        first = False
    if not index.reader.entries:
        raise UsageError(f"{path} is empty or not a tar archive")
    index.reader.close()
    return index


def _require_same_images(layout: OciLayout) -> None:
    """Raise ImageError if manifest.json lists an image that index.json does not list.

    containerd loads the images of index.json, and Docker's own store those of manifest.json: an archive could show one
    to a scanner and another to a host. A config names the content of all layers, so equal configs are equal images.
    """
    pending = [parse_descriptor(item, f"/manifests/{i}") for i, item in enumerate(layout.index_entries())]
    seen: set[Digest] = set()
    configs: set[Digest] = set()
    while pending:
        descriptor = pending.pop()
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        document = _stored_document(layout, descriptor)
        if isinstance(document, Manifest):
            configs.add(document.config.digest)
        elif document is not None:
            pending.extend(document.manifests)
    for name, _ in _saved_images(layout):
        if Digest.of(layout.read_file(name, layout.limits.config)) not in configs:
            raise ImageError(
                f"manifest.json lists the image {name[:100]!r}, which index.json does not list: hosts would load "
                "different images from this archive",
                reason="malformed_archive",
            )


def _stored_document(layout: OciLayout, descriptor: Descriptor) -> Manifest | ImageIndex | None:
    """Return a manifest or index. None: it is missing, as in archives that hold one platform of an index."""
    try:
        return parse_manifest(layout.blob(descriptor.digest, layout.limits.manifest), descriptor, layout.limits)
    except MissingBlob:
        return None


def _saved_images(layout: OciLayout) -> list[tuple[str, list[str]]]:
    """Return config and layers of each image in manifest.json, as paths in the archive."""
    limit = layout.limits.manifest
    document = load_untrusted_json(layout.read_file("manifest.json", limit), limit=limit)
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise ImageError("manifest.json lists no image", reason="malformed_archive")
    # Each config is read: a short list can name one of megabytes a hundred thousand times.
    if len(document) > layout.limits.index_manifests:
        raise LimitExceeded(f"manifest.json lists {len(document)} images, more than {layout.limits.index_manifests}")
    found = []
    for number, item in enumerate(document):
        members = parse_members(item, f"/{number}", _SAVED)
        config, layers = members.get("Config"), members.get("Layers")
        layers = layers if isinstance(layers, list) else []
        if (
            not isinstance(config, str)
            or not all(isinstance(name, str) for name in layers)
            or len(layers) > layout.limits.layers
        ):
            raise ImageError("manifest.json names no config or too many layers", reason="malformed_archive")
        for name in (config, *layers):
            if name.startswith("/") or ".." in name.split("/"):
                raise ImageError(f"manifest.json names {name[:100]!r}, outside the archive", reason="unsafe_archive")
        found.append((config, layers))
    return found


def _as_layout(
    layout: OciLayout, read: Callable[[str], contextlib.AbstractContextManager[BinaryIO]], limits: Limits
) -> OciLayout:
    """Read a ``docker save`` archive (Docker image specification 1.2) as a layout with a generated manifest."""
    images = _saved_images(layout)
    if not images:
        raise ImageError("manifest.json lists no image", reason="malformed_archive")
    # Which one a host would run depends on the tag that it is asked for, so none is chosen here.
    if len(images) > 1:
        raise UsageError(f"the archive has {len(images)} images", hint="save one image into one archive")
    ((config_name, names),) = images
    config = layout.read_file(config_name, limits.config)
    # Names in the archive are not trusted: each file is known by the digest of its bytes from here on.
    places: dict[Digest, str] = {Digest.of(config): config_name}
    layers = []
    for name in names:
        digest, size, kind = _measure(layout, name, limits)
        places[digest] = name
        layers.append({"mediaType": kind, "size": size, "digest": str(digest)})
    manifest = orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {"mediaType": DOCKER_CONFIG, "size": len(config), "digest": str(Digest.of(config))},
            "layers": layers,
        }
    )
    subject = Descriptor(DOCKER_MANIFEST, Digest.of(manifest), len(manifest))
    return OciLayout(read, limits, {subject.digest: manifest}, places, subject)


def _measure(layout: OciLayout, name: str, limits: Limits) -> tuple[Digest, int, str]:
    """Compute digest, size and media type of a layer file from its bytes."""
    digest, size, head = hashlib.sha256(), 0, b""
    with layout._open_file(name) as file:
        while chunk := file.read(_CHUNK):
            head += chunk[: 4 - len(head)]
            size += len(chunk)
            if size > limits.layer_compressed:
                raise LimitExceeded(f"{name} is larger than {limits.layer_compressed} bytes")
            digest.update(chunk)
    # By the bytes: manifest.json does not say how a layer is compressed.
    suffix = {TAR_GZIP: ".gzip", TAR_ZSTD: ".zstd"}.get(compression_of(head), "")
    return Digest("sha256:" + digest.hexdigest()), size, _DIFF_TAR + suffix
