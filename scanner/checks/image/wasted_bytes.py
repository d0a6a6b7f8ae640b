"""Files that a later layer overwrites or deletes: pulled and stored by everybody, seen by nobody (article: keep
images small).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from scanner.checks.base import FilesCheck, ImageSubject
from scanner.model.filesystem import FileEntry, FileType, Rootfs
from scanner.model.finding import Evidence, Outcome, Severity


class WastedBytes(FilesCheck):
    """Bytes of each layer that no container sees. A ``chown -R`` in a RUN of its own copies every file it touches."""

    id = "wasted-bytes"
    title = "Bytes that later layers hide"
    severity = Severity.LOW
    remedy = (
        "delete in the RUN that creates; give owner and mode in COPY --chown=10001 --chmod=755 instead of RUN chown"
    )
    looks_at = "every file of every layer that a later layer overwrites or deletes, uncompressed"
    cannot_see = "the same content under two names; how well the bytes compress"
    cis = ("4.3",)
    article = ("Image Management: Keep Images Small",)
    tags = ("build", "size")
    parameters: ClassVar[Mapping[str, Any]] = MappingProxyType({"max_megabytes": 10.0})

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        return self.judged(_wasted(subject, rootfs), subject.parameters)

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """See ``Check.tolerates``. The bound is for each layer and the layer that hides its files."""
        return evidence.amount is not None and evidence.amount <= parameters["max_megabytes"] * 1e6


def _wasted(subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
    pairs: dict[tuple[int, int], list[FileEntry]] = defaultdict(list)
    for placed, by in rootfs.hidden:
        # A hard link shows its target's size; the bytes are the target's.
        if placed.entry.type is FileType.FILE and placed.entry.size and not placed.entry.link:
            pairs[placed.layer, by].append(placed.entry)
    for (layer, by), entries in sorted(pairs.items()):
        size = sum(entry.size for entry in entries)
        largest = max(entries, key=lambda entry: entry.size)
        message = (
            f"layer {by} {_how(rootfs, by, entries)} {size / 1e6:.1f} MB in {len(entries)} files of layer {layer}, "
            f"the largest /{largest.path} ({largest.size / 1e6:.1f} MB)"
        )
        yield subject.evidence(message, layer_index=by, path=largest.path, amount=float(size))


def _how(rootfs: Rootfs, by: int, entries: list[FileEntry]) -> str:
    """Deleted, overwritten, or copied only to change owner or mode."""
    now = {entry.path: entry for entry in rootfs.layers[by].entries}
    written = [(entry, now[entry.path]) for entry in entries if entry.path in now]
    if not written:
        return "deletes"
    same = [old for old, new in written if old.size == new.size and old.mtime == new.mtime]
    if len(same) * 2 > len(entries):
        return "copies, to change owner or mode,"
    return "overwrites" if len(written) == len(entries) else "overwrites or deletes"
