"""An image as it was built: manifest, config, history, layers (OCI image-spec: manifest.md, config.md)."""

from __future__ import annotations

import re
from datetime import datetime

from scanner.lazy_dataclasses import dataclass
from scanner.model.reference import Descriptor, Digest, Platform
from scanner.patterns import lazy


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One line of the config's history. ``layer``: index of the layer that it created; None if it created none."""

    created_by: str  # the builder's text: hostile, may contain secrets
    created: datetime | None = None
    author: str = ""
    comment: str = ""
    empty_layer: bool = False  # the instruction changed only the config
    layer: int | None = None


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """``config.Healthcheck``.

    ``test`` in Docker's form: ("NONE",), ("CMD", …), ("CMD-SHELL", line). Times in seconds.
    """

    test: tuple[str, ...]
    interval: float | None = None  # None: Docker's default
    timeout: float | None = None
    start_period: float | None = None
    retries: int | None = None  # None: Docker's default


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The image config, parsed and bounded. Absent members are empty, and None only if absence has a meaning."""

    digest: Digest
    platform: Platform
    diff_ids: tuple[Digest, ...]  # one for each layer, base first
    created: datetime | None = None  # None: not stated; a reproducible build states 1970
    author: str = ""
    user: str = ""  # empty: root
    env: tuple[tuple[str, str], ...] = ()  # a name may be there twice; the last one counts
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()  # empty: /bin/sh -c
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()  # as written, such as 80/tcp
    volumes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    onbuild: tuple[str, ...] = ()  # run when another image is built on this one
    healthcheck: Healthcheck | None = None
    history: tuple[HistoryEntry, ...] = ()
    # Texts of members that the specification does not have, by JSON pointer. They may hold secrets: never in evidence.
    unspecified: tuple[tuple[str, str], ...] = ()

    def label(self, name: str) -> str | None:
        return dict(self.labels).get(name)


MOST_PATHS = 40  # per layer: evidence of an image with 127 layers stays below half a megabyte


@dataclass(frozen=True, slots=True)
class PathSize:
    """A file of a layer, or a directory with everything below it. ``size``: bytes. ``files``: the number of files."""

    path: str
    size: int
    files: int = 1
    directory: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer. ``digest`` and ``size``: as transported. ``diff_id``: of the uncompressed tar (verified).

    ``index``: from 0, the base. ``created_by``: the history instruction that created it; empty if unknown.
    ``uncompressed_size``: None until the layer has been read. ``files``: how many files it holds; None in evidence that
    did not count them. ``largest``: its largest files and directories, a directory before what it contains.
    ``hidden``: bytes of its files that a later layer deletes or replaces. They are still transported.
    """

    index: int
    digest: Digest
    diff_id: Digest
    media_type: str
    size: int
    uncompressed_size: int | None = None
    created_by: str = ""
    files: int | None = None
    largest: tuple[PathSize, ...] = ()
    hidden: int = 0


@dataclass(frozen=True, slots=True)
class Image:
    """One image for one platform. ``manifest``: the descriptor; its digest identifies the image everywhere."""

    manifest: Descriptor
    config: ImageConfig
    layers: tuple[Layer, ...]  # base first
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> Digest:
        return self.manifest.digest

    @property
    def platform(self) -> Platform:
        return self.config.platform

    @property
    def blobs(self) -> tuple[Digest, ...]:
        """What its manifest names: the config and the layers."""
        return (self.config.digest, *(layer.digest for layer in self.layers))

    @property
    def size(self) -> int:
        """Compressed size in bytes: what a pull transfers."""
        return sum(layer.size for layer in self.layers)

    def layer_of(self, diff_id: Digest | None) -> Layer | None:
        """The first layer with this diff_id."""
        return next((layer for layer in self.layers if layer.diff_id == diff_id), None)


_NOP = lazy(r"^/bin/sh -c #\(nop\)\s*")
_RUN = lazy(r"^(?:RUN )?(?:\|\d+ .*? )?/bin/sh -c (?!#\(nop\))", re.DOTALL)


def instruction(created_by: str) -> str:
    """Convert a history line to the Dockerfile instruction that it came from, for users: ``/bin/sh -c #(nop)  USER
    0`` -> ``USER 0``.
    """
    line = _NOP.sub("", created_by)
    line = _RUN.sub("RUN ", line)
    return line.removesuffix(" # buildkit").strip()
