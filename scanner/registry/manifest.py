"""Strict parsers for manifests, indexes and configs (OCI image-spec 1.1; Docker image manifest v2 schema 2).

Anything that two parsers could read differently is refused: a manifest that is also an index (CVE-2021-41190), a media
type that contradicts the body, negative sizes, schema 1, layers with URLs (CVE-2020-15157), different numbers of layers
and diff_ids, and members in another case (runtimes written in Go accept ``user`` for ``User``; the last one wins).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from scanner.config import Limits
from scanner.errors import ImageError, LimitExceeded, NotAnImage
from scanner.lazy_dataclasses import dataclass
from scanner.model.image import Healthcheck, HistoryEntry, Image, ImageConfig, Layer
from scanner.model.reference import Descriptor, Digest, Platform
from scanner.model.untrusted import clean_text, load_untrusted_json

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
EMPTY_CONFIG = "application/vnd.oci.empty.v1+json"
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ACCEPT = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)

TAR, TAR_GZIP, TAR_ZSTD = "tar", "tar+gzip", "tar+zstd"
_LAYERS = {
    "application/vnd.oci.image.layer.v1.tar": TAR,
    "application/vnd.oci.image.layer.v1.tar+gzip": TAR_GZIP,
    "application/vnd.oci.image.layer.v1.tar+zstd": TAR_ZSTD,
    "application/vnd.docker.image.rootfs.diff.tar": TAR,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": TAR_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": TAR_ZSTD,
}
_FOREIGN = ("application/vnd.docker.image.rootfs.foreign.", "application/vnd.oci.image.layer.nondistributable.")
_LAYER_TYPES = ("application/vnd.oci.image.", "application/vnd.docker.")
# Types of config that every runtime takes for an image.
_CONFIGS = frozenset((OCI_CONFIG, DOCKER_CONFIG))
# Docker accepts these types for configs and layers of images, because old registries send them:
# https://github.com/moby/moby/blob/v27.0.0/distribution/registry.go ("defaultImageTypes", "supportedMediaTypes").
_NO_MEDIA_TYPES = frozenset(("", "application/octet-stream", "application/json", "text/html"))
# Prefixes of the media types of artifacts, with names for users. The first prefix that matches any type of the manifest
# is used.
_ARTIFACTS = (
    ("application/vnd.in-toto", "an attestation"),
    ("application/vnd.dsse.", "an attestation"),
    ("application/vnd.dev.sigstore.bundle", "a signature or attestation of cosign"),
    ("application/vnd.dev.cosign.", "a signature of cosign"),
    ("application/vnd.cncf.notary.", "a signature of Notation"),
    ("application/vnd.cncf.helm.", "a Helm chart"),
    ("application/spdx", "an SBOM"),
    ("text/spdx", "an SBOM"),
    ("application/vnd.cyclonedx", "an SBOM"),
    ("application/vnd.syft", "an SBOM"),
    ("application/vnd.wasm", "a WebAssembly module"),
    ("application/wasm", "a WebAssembly module"),
    ("application/vnd.docker.plugin", "a plug-in of Docker"),
    ("application/vnd.aquasec.trivy", "an advisory database of Trivy"),
)
_MAX_SIZE = 1 << 50  # Bytes. Larger sizes are no sizes, and would overflow in other readers.
_MAX_TIME = 1 << 63

_DESCRIPTOR = ("mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType")
_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")
MANIFEST_MEMBERS = (
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "fsLayers",
)
_MOST_UNSPECIFIED = 100_000  # members and items that the specification does not have; builders write a few hundred
_MOST_NAME = 100  # characters of a member's name that are kept, where the specification does not have it
_CONFIG = ("created", "author", "architecture", "os", "variant", "config", "rootfs", "history")
_RUN = (
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "Shell",
    "OnBuild",
)
_HISTORY = ("created", "created_by", "author", "comment", "empty_layer")
_HEALTHCHECK = ("Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")


def layer_compression(media_type: str) -> str:
    """Return ``tar``, ``tar+gzip`` or ``tar+zstd``. Raises ImageError for types that are not readable layers."""
    if media_type.startswith(_FOREIGN):
        raise ImageError(
            f"layer of type {media_type[:100]!r} has content outside the registry", reason="foreign_layer_refused"
        )
    if media_type not in _LAYERS:
        raise ImageError(f"layer of unknown type {media_type[:100]!r}", reason="unsupported_media_type")
    return _LAYERS[media_type]


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest. With ``subject`` or ``artifact_type`` it is a referrer."""

    descriptor: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]  # base first
    annotations: tuple[tuple[str, str], ...] = ()
    subject: Descriptor | None = None
    artifact_type: str = ""


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """An image index (Docker: manifest list)."""

    descriptor: Descriptor
    manifests: tuple[Descriptor, ...]
    annotations: tuple[tuple[str, str], ...] = ()


def parse_manifest(data: bytes, descriptor: Descriptor, limits: Limits) -> Manifest | ImageIndex:
    """Parse the document that ``descriptor`` names. Raises ImageError with a JSON pointer to the wrong member."""
    document = parse_members(
        load_untrusted_json(data, limit=limits.manifest, depth=limits.json_depth), "", MANIFEST_MEMBERS
    )
    declared = _text(document, "mediaType", "")
    kind = declared or descriptor.media_type
    # CVE-2021-41190: two readers that trust different places would see two documents.
    if declared and descriptor.media_type in INDEXES | MANIFESTS and declared != descriptor.media_type:
        raise ImageError(f"the manifest declares {declared[:100]!r}, but its descriptor {descriptor.media_type!r}")
    version = document.get("schemaVersion")
    # Its layers have no diff_ids, and its signature covers a form that no registry stores.
    if version == 1 or "fsLayers" in document:
        raise ImageError("Docker schema 1 manifests cannot be verified", reason="unsupported_media_type")
    # 2.0 equals 2 in Python, and is no integer for Go.
    if version != 2 or isinstance(version, float):
        raise ImageError("/schemaVersion: must be 2")
    if kind in INDEXES or (not kind and "manifests" in document):
        return _index(document, descriptor, kind or OCI_INDEX, limits)
    if kind in MANIFESTS or (not kind and "config" in document):
        return _manifest(document, descriptor, kind or OCI_MANIFEST, limits)
    raise ImageError(f"unknown manifest type {kind[:100]!r}", reason="unsupported_media_type")


def _index(document: Mapping[str, Any], descriptor: Descriptor, kind: str, limits: Limits) -> ImageIndex:
    if "layers" in document or "config" in document:
        raise ImageError("the document is both an index and a manifest (CVE-2021-41190)")
    items = _list(document, "manifests", "")
    if len(items) > limits.index_manifests:
        raise LimitExceeded(f"an index of {len(items)} manifests, more than {limits.index_manifests}")
    manifests = tuple(parse_descriptor(item, f"/manifests/{i}") for i, item in enumerate(items))
    return ImageIndex(_with_media_type(descriptor, kind), manifests, _annotations(document, ""))


def _manifest(document: Mapping[str, Any], descriptor: Descriptor, kind: str, limits: Limits) -> Manifest:
    if "manifests" in document:
        raise ImageError("the document is both an index and a manifest (CVE-2021-41190)")
    items = _list(document, "layers", "")
    if len(items) > limits.layers:
        raise LimitExceeded(f"{len(items)} layers, more than {limits.layers}")
    layers = tuple(parse_descriptor(item, f"/layers/{i}") for i, item in enumerate(items))
    config = parse_descriptor(document.get("config"), "/config")
    subject = parse_descriptor(document["subject"], "/subject") if document.get("subject") is not None else None
    artifact_type = _text(document, "artifactType", "")
    return Manifest(
        _with_media_type(descriptor, kind), config, layers, _annotations(document, ""), subject, artifact_type
    )


def _with_media_type(descriptor: Descriptor, kind: str) -> Descriptor:
    return Descriptor(
        kind, descriptor.digest, descriptor.size, descriptor.platform, descriptor.artifact_type, descriptor.annotations
    )


def parse_descriptor(value: Any, pointer: str) -> Descriptor:
    """Parse a content descriptor (image-spec, descriptor.md).

    A descriptor with ``urls`` is refused: the image would choose where we connect to.
    """
    item = parse_members(value, pointer, _DESCRIPTOR)
    # ``True`` is an int in Python.
    size = item.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
        raise ImageError(f"{pointer}/size: not a valid size")
    if item.get("urls"):
        raise ImageError(f"{pointer}/urls: content outside the registry is not fetched", reason="foreign_layer_refused")
    platform = None
    if item.get("platform") is not None:
        fields = parse_members(item["platform"], f"{pointer}/platform", _PLATFORM)
        platform = Platform(*(_text(fields, name, f"{pointer}/platform") for name in ("os", "architecture", "variant")))
    try:
        digest = Digest(_text(item, "digest", pointer))
    except ImageError as error:
        raise ImageError(f"{pointer}/digest: {error}") from error
    return Descriptor(
        _text(item, "mediaType", pointer),
        digest,
        size,
        platform,
        _text(item, "artifactType", pointer),
        _annotations(item, pointer),
    )


def require_image(manifest: Manifest) -> None:
    """Raise NotAnImage for a manifest of another artifact: a chart, a module, a signature, an attestation.

    Only the manifest decides. Statements of an index about it (``artifactType``, platform "unknown", annotations) are
    ignored: a runtime selects by platform and runs what is there, so an image declared as an attestation would never be
    scanned.
    """
    kind = manifest.config.media_type
    unpacked = has_image_layers(manifest)
    if kind not in _CONFIGS and unpacked and _may_run(manifest):
        raise unknown_config(manifest)
    # Sigstore and BuildKit store an image config beside layers of other types. A single image layer makes it an image,
    # even if we cannot read that layer (encrypted, foreign): that is an image that failed, not another artifact.
    attached = bool(manifest.layers) and not unpacked
    if kind not in _CONFIGS or attached:
        error = NotAnImage(
            f"not an image manifest: {_artifact_kind(manifest)}", hint="it contains nothing that a container could run"
        )
        error.blobs = tuple(str(each.digest) for each in (manifest.config, *manifest.layers))
        raise error
    for layer in manifest.layers:
        layer_compression(layer.media_type)


def has_image_layers(manifest: Manifest) -> bool:
    """True if a layer has a type that runtimes unpack, or none that says what it is."""
    return any(d.media_type in _NO_MEDIA_TYPES or d.media_type.startswith(_LAYER_TYPES) for d in manifest.layers)


def doubtful_layers(manifest: Manifest) -> tuple[Descriptor, ...]:
    """The layers of an artifact that a runtime would unpack if they were archives, whatever their types say.

    Podman and CRI-O take any layer type beside the config of an image, and any config type in a Docker manifest:
    https://github.com/containers/image/blob/v5.32.0/manifest/oci.go
    """
    return manifest.layers if _may_run(manifest) else ()


def unknown_config(manifest: Manifest) -> ImageError:
    """The error for an image whose config has a type that only some runtimes accept."""
    kind = clean_text(manifest.config.media_type, 100)
    return ImageError(
        f"the image's config has the type {kind!r}, which some runtimes accept",
        reason="unsupported_media_type",
        hint=f"push it with a config of type {OCI_CONFIG}",
    )


def _may_run(manifest: Manifest) -> bool:
    """True if some runtime takes the config for that of an image."""
    kind = manifest.config.media_type
    return kind in _CONFIGS or kind in _NO_MEDIA_TYPES or manifest.descriptor.media_type == DOCKER_MANIFEST


def _artifact_kind(manifest: Manifest) -> str:
    """Name of an artifact's kind, for users."""
    types = (manifest.artifact_type, manifest.config.media_type, *(layer.media_type for layer in manifest.layers))
    for beginning, name in _ARTIFACTS:
        if any(kind.startswith(beginning) for kind in types):
            return name
    shown = next((kind for kind in types if kind and kind not in (EMPTY_CONFIG, *_CONFIGS)), "")
    return f"an artifact of type {clean_text(shown, 100)!r}" if shown else "an artifact without a type"


def build_image(manifest: Manifest, config: ImageConfig) -> Image:
    """Combine manifest and config.

    Raises ImageError if they do not describe the same layers, or no layer.
    """
    require_image(manifest)
    if len(manifest.layers) != len(config.diff_ids):
        raise ImageError(
            f"{len(manifest.layers)} layers but {len(config.diff_ids)} diff_ids: readers would see different files"
        )
    # "No findings" about nothing would look clean.
    if not manifest.layers:
        raise ImageError("the image has no layers", reason="nothing_to_scan")
    made_by = {entry.layer: entry.created_by for entry in config.history if entry.layer is not None}
    layers = []
    for index, (layer, diff_id) in enumerate(zip(manifest.layers, config.diff_ids, strict=True)):
        layers.append(
            Layer(index, layer.digest, diff_id, layer.media_type, layer.size, created_by=made_by.get(index, ""))
        )
    return Image(manifest.descriptor, config, tuple(layers), manifest.annotations)


def parse_config(data: bytes, digest: Digest, limits: Limits) -> ImageConfig:
    """Parse the image config (image-spec, config.md).

    Raises ImageError with a JSON pointer for a member of the wrong type.
    """
    # Old builders wrote text that is not valid UTF-8 into labels and history. Only text is mended, never structure.
    loaded = load_untrusted_json(data, limit=limits.config, depth=limits.json_depth, mend_text=True)
    document = parse_members(loaded, "", _CONFIG)
    rootfs = _optional(document, "rootfs", "", ("type", "diff_ids"))
    diff_ids = []
    for i, value in enumerate(_strings(rootfs, "diff_ids", "/rootfs")):
        try:
            diff_ids.append(Digest(value))
        except ImageError as error:
            raise ImageError(f"/rootfs/diff_ids/{i}: {error}") from error
    run = _optional(document, "config", "", _RUN)
    return ImageConfig(
        digest=digest,
        platform=Platform(*(_text(document, name, "") for name in ("os", "architecture", "variant"))),
        diff_ids=tuple(diff_ids),
        created=parse_time(document.get("created")),
        author=_text(document, "author", ""),
        user=_text(run, "User", "/config"),
        env=tuple(
            (name, value) for name, _, value in (item.partition("=") for item in _strings(run, "Env", "/config"))
        ),
        entrypoint=_command(run, "Entrypoint"),
        cmd=_command(run, "Cmd"),
        shell=_command(run, "Shell"),
        working_dir=_text(run, "WorkingDir", "/config"),
        exposed_ports=tuple(_optional(run, "ExposedPorts", "/config")),
        volumes=tuple(_optional(run, "Volumes", "/config")),
        labels=_pairs(run.get("Labels"), "/config/Labels"),
        stop_signal=_text(run, "StopSignal", "/config"),
        onbuild=_strings(run, "OnBuild", "/config"),
        healthcheck=_healthcheck(run.get("Healthcheck")),
        history=_history(document, len(diff_ids)),
        unspecified=(*_unspecified(document, "", _CONFIG), *_unspecified(run, "/config", _RUN)),
    )


def _unspecified(item: Mapping[str, Any], pointer: str, known: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the texts of members that the specification does not have, such as ``container_config`` of old builders.

    Raises LimitExceeded: a config of eight megabytes can have millions of them, each of which is searched for secrets.
    """
    count = 0
    pending: list[tuple[str, Any]] = [(pointer, {name: value for name, value in item.items() if name not in known})]
    while pending:
        place, value = pending.pop()
        if isinstance(value, str):
            yield place, value
        elif isinstance(value, Mapping | list):
            count += len(value)
            if count > _MOST_UNSPECIFIED:
                raise LimitExceeded(
                    f"the image config has more than {_MOST_UNSPECIFIED} members that are not specified"
                )
            members = value.items() if isinstance(value, Mapping) else ((str(n), each) for n, each in enumerate(value))
            pending.extend((_place(place, name), inner) for name, inner in members)


def _place(above: str, name: str) -> str:
    """A JSON pointer, cut: a long name above many members would take memory for each of them."""
    return f"{above}/{name[:_MOST_NAME]}" if len(above) < _MOST_NAME else above


def _history(document: Mapping[str, Any], layers: int) -> tuple[HistoryEntry, ...]:
    """Parse the history and map its entries to layers.

    If the counts differ, no entry is mapped: history is optional, and a guess would blame the wrong instruction.
    """
    items = [parse_members(item, f"/history/{i}", _HISTORY) for i, item in enumerate(_list(document, "history", ""))]
    making = [i for i, item in enumerate(items) if item.get("empty_layer") is not True]
    layer_of = {position: layer for layer, position in enumerate(making)} if len(making) == layers else {}
    return tuple(
        HistoryEntry(
            created_by=_text(item, "created_by", f"/history/{i}"),
            created=parse_time(item.get("created")),
            author=_text(item, "author", f"/history/{i}"),
            comment=_text(item, "comment", f"/history/{i}"),
            empty_layer=item.get("empty_layer") is True,
            layer=layer_of.get(i),
        )
        for i, item in enumerate(items)
    )


def _healthcheck(value: Any) -> Healthcheck | None:
    if value is None:
        return None
    pointer = "/config/Healthcheck"
    item = parse_members(value, pointer, _HEALTHCHECK)
    return Healthcheck(
        test=_strings(item, "Test", pointer),
        interval=_seconds(item, "Interval", pointer),
        timeout=_seconds(item, "Timeout", pointer),
        start_period=_seconds(item, "StartPeriod", pointer),
        retries=_integer(item, "Retries", pointer) if item.get("Retries") is not None else None,
    )


def _seconds(item: Mapping[str, Any], name: str, pointer: str) -> float | None:
    """Seconds of a duration in nanoseconds (Go). 0 means that the default is inherited: None."""
    return _integer(item, name, pointer) / 1e9 if item.get(name) else None


def _integer(item: Mapping[str, Any], name: str, pointer: str) -> int:
    value = item[name]
    if not isinstance(value, int) or isinstance(value, bool) or not -_MAX_TIME <= value < _MAX_TIME:
        raise ImageError(f"{pointer}/{name}: must be an integer")
    return value


def parse_time(value: Any) -> datetime | None:
    """Parse an RFC 3339 time with any number of fraction digits.

    None if it is invalid: a wrong date is no reason to refuse an image.
    """
    if not isinstance(value, str) or len(value) > 64:
        return None
    head, dot, rest = value.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    try:
        time = datetime.fromisoformat(head + dot + (digits + "000000")[:6] + rest[len(digits) :] if dot else value)
    except ValueError:
        return None
    return time if time.tzinfo else None


def _command(run: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Entrypoint, Cmd or Shell: a list, or a single string in old images."""
    value = run.get(name)
    return (value,) if isinstance(value, str) else _strings(run, name, "/config")


def _object(value: Any, pointer: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ImageError(f"{pointer or 'the document'}: must be an object")
    return value


def parse_members(value: Any, pointer: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    """Return an object with known member names.

    A name that differs from a known one only in case is refused: Go would accept it, and we would not.
    """
    item = _object(value, pointer)
    folded = {name.casefold() for name in known}
    for name in item:
        if name not in known and name.casefold() in folded:
            raise ImageError(
                f"{pointer}/{clean_text(name, 100)}: differs from the specification in upper or lower case; runtimes "
                "disagree about it"
            )
    return item


def _optional(item: Mapping[str, Any], name: str, pointer: str, known: tuple[str, ...] = ()) -> Mapping[str, Any]:
    value = item.get(name)
    return {} if value is None else parse_members(value, f"{pointer}/{name}", known)


def _list(item: Mapping[str, Any], name: str, pointer: str) -> list[Any]:
    value = item.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ImageError(f"{pointer}/{name}: must be a list")
    return value


def _strings(item: Mapping[str, Any], name: str, pointer: str) -> tuple[str, ...]:
    values = _list(item, name, pointer)
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise ImageError(f"{pointer}/{name}/{i}: must be a string")
    return tuple(values)


def _text(item: Mapping[str, Any], name: str, pointer: str) -> str:
    value = item.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ImageError(f"{pointer}/{name}: must be a string")
    return value


def _pairs(value: Any, pointer: str) -> tuple[tuple[str, str], ...]:
    if value is None:
        return ()
    items = _object(value, pointer)
    for name, text in items.items():
        if not isinstance(text, str):
            raise ImageError(f"{pointer}/{clean_text(name, 100)}: must be a string")
    return tuple(items.items())


def _annotations(item: Mapping[str, Any], pointer: str) -> tuple[tuple[str, str], ...]:
    return _pairs(item.get("annotations"), f"{pointer}/annotations")
