"""Files that a later layer overwrites or deletes (article: keep images small)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from scanner.checks.base import FilesCheck, ImageSubject
from scanner.model.filesystem import FileEntry, FileType, Rootfs
from scanner.model.finding import Evidence, Outcome, Severity


class WastedBytes(FilesCheck):
    """Hidden files are still pulled and stored. A ``chown -R`` in a separate RUN copies every file."""

    id = "wasted-bytes"
    title = "Files hidden by later layers"
    severity = Severity.LOW
    remedy = "delete files in the RUN that creates them; use COPY --chown=10001 --chmod=755 instead of RUN chown"
    looks_at = "uncompressed sizes of files that later layers overwrite or delete"
    cannot_see = "duplicate content under different names; compression"
    cis = ("4.3",)
    article = ("Image Management: Keep Images Small",)
    tags = ("build", "size")
    parameters: ClassVar[Mapping[str, Any]] = MappingProxyType({"max_megabytes": 10.0})

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        return self.judged(_wasted_evidence(subject, rootfs), subject.parameters)

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """See ``Check.tolerates``. The limit applies to each pair of layers."""
        return evidence.amount is not None and evidence.amount <= parameters["max_megabytes"] * 1e6


def _wasted_evidence(subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
    pairs: dict[tuple[int, int], list[FileEntry]] = defaultdict(list)
    for placed, by in rootfs.hidden:
        # The size of a hard link is that of its target and must not be counted twice.
        if placed.entry.type is FileType.FILE and placed.entry.size and not placed.entry.link:
            pairs[placed.layer, by].append(placed.entry)
    for (layer, by), entries in sorted(pairs.items()):
        size = sum(entry.size for entry in entries)
        largest = max(entries, key=lambda entry: entry.size)
        message = (
            f"layer {by} {_how_hidden(rootfs, by, entries)} {size / 1e6:.1f} MB in {len(entries)} files of "
            f"layer {layer}, the largest /{largest.path} ({largest.size / 1e6:.1f} MB)"
        )
        yield subject.evidence(message, layer_index=by, path=largest.path, amount=float(size))


def _how_hidden(rootfs: Rootfs, by: int, entries: list[FileEntry]) -> str:
    """Return how the layer hides the files. Equal size and time mean that only owner or mode changed."""
    now = {entry.path: entry for entry in rootfs.layers[by].entries}
    written = [(entry, now[entry.path]) for entry in entries if entry.path in now]
    if not written:
        return "deletes"
    same = [old for old, new in written if old.size == new.size and old.mtime == new.mtime]
    if len(same) * 2 > len(entries):
        return "copies, to change owner or mode,"
    return "overwrites" if len(written) == len(entries) else "overwrites or deletes"
