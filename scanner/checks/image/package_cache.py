"""What package managers downloaded and left in a layer (article: keep images small)."""

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
    """Indexes and archives that only an installation needs.

    What counts is what is in the layers: a cache mount, a base that cleans up by itself and a cleaning in the same
    RUN all leave nothing, and a cleaning in a later RUN leaves everything.
    """

    id = "package-cache"
    title = "Package manager caches left behind"
    severity = Severity.LOW
    remedy = "RUN apt-get update && apt-get install -y --no-install-recommends PACKAGE && rm -rf /var/lib/apt/lists/*"
    looks_at = (
        "the files of every layer below the caches of apt, apk, dnf, yum, zypper, pip, npm and twelve "
        "more; the history where files cannot be read"
    )
    cannot_see = "caches in places of somebody's own choice"
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
        """See ``Check.tolerates``. A few bytes of a log or an index are not worth a line."""
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
                        f"{name} is used and its cache not cleaned in the same RUN (by the history: the "
                        "files could not be read)"
                    )
                    found.append(evidence(subject, run, message))
        return (
            self.judged(found, subject.parameters) if found else Incomplete("layers_unreadable", subject.rootfs_reason)
        )


def _by_files(subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
    """One piece of evidence for each layer and cache in it, whatever it weighs."""
    hidden = {(placed.layer, placed.entry.path): by for placed, by in rootfs.hidden}
    for index, layer in enumerate(rootfs.layers):
        kept: dict[str, list[FileEntry]] = defaultdict(list)
        for entry in layer.entries:
            if entry.type is FileType.FILE and entry.size and (cache := cache_of(entry.path)):
                kept[f"{cache.owner} {cache.place}"].append(entry)
        for name, entries in kept.items():
            size, path = sum(entry.size for entry in entries), entries[-1].path
            by = hidden.get((index, path))
            note = f"; layer {by} deletes them, but they are still pulled" if by is not None else ""
            message = (
                f"{name.partition(' ')[0]} left {size / 1e6:.1f} MB in {len(entries)} files in "
                f"/{path.rpartition('/')[0]}{note}"
            )
            yield subject.evidence(message, layer_index=index, path=path, name=name, amount=size)
