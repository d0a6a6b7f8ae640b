"""The contract of every check: what it declares, what it is given, what it may answer.

A check is pure: evidence in, ``Outcome`` out. It never opens files or connections. Input it cannot read is
``Incomplete(reason)``, never ``Passed``; input that it does not concern is ``NotApplicable(reason)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from scanner.model.filesystem import Rootfs
from scanner.model.finding import Evidence, Outcome, SecretMatch, Severity
from scanner.model.image import Image, instruction
from scanner.model.reference import Digest, Reference
from scanner.model.workload import Workload


@dataclass(frozen=True)
class ImageSubject:
    """What an image check sees. ``rootfs`` is None where the layers could not all be read (then a check of files is Incomplete
    with ``rootfs_reason``). ``secrets`` is the engine's content scan, None where no engine looked. ``reference`` is None for an archive."""

    image: Image
    rootfs: Rootfs | None
    rootfs_reason: str = ""
    reference: Reference | None = None
    secrets: Sequence[SecretMatch] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def evidence(self, message: str, *, layer_index: int | None = None, path: str = "", **more: Any) -> Evidence:
        """Evidence with layer, instruction and history index filled in from ``layer_index``."""
        if layer_index is None or layer_index >= len(self.image.layers):
            return Evidence(message, path=path, **more)
        layer = self.image.layers[layer_index]
        history = next((i for i, entry in enumerate(self.image.config.history) if entry.layer == layer_index), None)
        more.setdefault("instruction", instruction(layer.created_by))
        return Evidence(message, layer=layer.diff_id, layer_index=layer_index, path=path, history_index=history, **more)

    def layer_index(self, diff_id: Digest | None) -> int | None:
        layer = self.image.layer_of(diff_id)
        return layer.index if layer else None


class Check(ABC):
    """What the catalogue shows about every check. Class attributes, all required but the tuples.

    ``cis`` names items of the CIS Docker Benchmark 1.6 ("4.1"), ``dockle`` Dockle's codes, ``article`` sections of the lessons
    the service automates; ``looks_at`` and ``cannot_see`` are one sentence each, for the catalogue; ``remedy`` is the line to
    write in the Dockerfile or compose file; ``parameters`` maps a policy parameter's name to its default.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    severity: ClassVar[Severity]
    remedy: ClassVar[str]
    looks_at: ClassVar[str]
    cannot_see: ClassVar[str]
    cis: ClassVar[tuple[str, ...]] = ()
    dockle: ClassVar[tuple[str, ...]] = ()
    article: ClassVar[tuple[str, ...]] = ()
    pss: ClassVar[tuple[str, ...]] = ()
    tags: ClassVar[tuple[str, ...]] = ()
    parameters: ClassVar[Mapping[str, Any]] = {}


class ImageCheck(Check):
    """A check of one image. ``wants`` are glob patterns (fnmatch on the whole path, ``**`` any depth) of small files whose bytes it needs."""

    wants: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def examine(self, subject: ImageSubject) -> Outcome:
        """Judge the image. Must not raise for anything an image can contain."""


class WorkloadCheck(Check):
    """A check of one workload, with the image it runs where that is known."""

    @abstractmethod
    def examine(self, workload: Workload, image: ImageSubject | None) -> Outcome:
        """Judge how the container is run. Must not raise."""
