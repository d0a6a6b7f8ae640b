"""Caches of package managers in layers (article: keep images small)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from scanner.checks._history import evidence, history
from scanner.checks._package_managers import Manager, cache_of, manager_of, verb
from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.filesystem import FileEntry, FileType, Rootfs
from scanner.model.finding import Evidence, Incomplete, Outcome, Severity

_CLEAN = {
    "apt": ("/var/lib/apt/lists", "dist-clean", "distclean"),
    "apk": ("/var/cache/apk",),
    "dnf": ("clean", "/var/cache"),
    "zypper": ("clean", "cc", "/var/cache"),
    "opkg": ("/var/opkg-lists",),
}


class PackageCache(ImageCheck):
    """Package indexes and archives are needed only during the installation.

    The files of layers are decisive: a cache mount or a clean-up in the same RUN leaves none; after a clean-up in a
    later RUN the lower layer still contains them.
    """

    id = "package-cache"
    title = "Package manager caches in the image"
    severity = Severity.LOW
    remedy = "RUN apt-get update && apt-get install -y --no-install-recommends PACKAGE && rm -rf /var/lib/apt/lists/*"
    looks_at = (
        "files of all layers in the caches of apt, apk, dnf, yum, zypper, pip, npm and twelve more; the history if "
        "files cannot be read"
    )
    cannot_see = "caches in other directories"
    cis = ("4.3",)
    dockle = ("DKL-DI-0004", "DKL-DI-0005")
    trivy = ("DS-0015", "DS-0019", "DS-0020", "DS-0025", "DS-0027")
    article = ("Image Management: Keep Images Small",)
    tags = ("build", "size", "history")
    parameters: ClassVar[dict[str, Any]] = {"min_kilobytes": 64}

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        if subject.rootfs is None:
            return self._by_history(subject)
        return self.judged(_by_files(subject, subject.rootfs), subject.parameters)

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """See ``Check.tolerates``. Small remains are ignored."""
        return evidence.amount is not None and evidence.amount < parameters["min_kilobytes"] * 1024

    def remedy_for(self, evidence: Sequence[Evidence]) -> str:
        """See ``Check.remedy_for``."""
        cleans = (cache.clean for item in evidence if (cache := cache_of(item.path)))
        return "; ".join(dict.fromkeys(cleans))

    def _by_history(self, subject: ImageSubject) -> Outcome:
        found = []
        for run in history(subject).runs():
            used: dict[str, Manager] = {}
            for command in run.commands:
                manager = manager_of(command)
                if manager and verb(command, manager) and not command.has("--no-cache"):
                    used[manager.name] = manager
            for name in used:
                cleaned = any(
                    mark in word for command in run.commands for word in command.words for mark in _CLEAN[name]
                )
                if not cleaned:
                    message = (
                        f"{name} is used without clean-up in the same RUN (from the history: the files could "
                        "not be read)"
                    )
                    found.append(evidence(subject, run, message))
        return (
            self.judged(found, subject.parameters) if found else Incomplete("layers_unreadable", subject.rootfs_reason)
        )


def _by_files(subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
    """Yield evidence for each cache in each layer, of any size."""
    hidden = {(placed.layer, placed.entry.path): by for placed, by in rootfs.hidden}
    for index, layer in enumerate(rootfs.layers):
        kept: dict[str, list[FileEntry]] = defaultdict(list)
        for entry in layer.entries:
            if entry.type is FileType.FILE and entry.size and (cache := cache_of(entry.path)):
                kept[f"{cache.owner} {cache.place}"].append(entry)
        for name, entries in kept.items():
            size, path = sum(entry.size for entry in entries), entries[-1].path
            by = hidden.get((index, path))
            note = f"; layer {by} deletes them, but the image still contains them" if by is not None else ""
            message = (
                f"{name.partition(' ')[0]} left {size / 1e6:.1f} MB in {len(entries)} files in "
                f"/{path.rpartition('/')[0]}{note}"
            )
            yield subject.evidence(message, layer_index=index, path=path, name=name, amount=size)
