"""ADD of local files instead of COPY (CIS Docker 4.9)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scanner.checks._history import Instruction, evidence, failed, history
from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.filesystem import FileType, LayerFacts
from scanner.model.finding import Evidence, Incomplete, Outcome, Severity
from scanner.patterns import lazy

# What ADD unpacks (moby, pkg/archive); COPY does not.
_ARCHIVE = lazy(r"\.(?:tar(?:\.\w{1,5})?|t[bgx]z2?|tzst)$", re.IGNORECASE)
# A layer with one of these is a root file system: ADD of an archive is how a base image begins.
_ROOT_FILES = frozenset(
    ("etc/os-release", "usr/lib/os-release", "etc/passwd", "bin/sh", "bin/busybox", "usr/bin/sh", "usr/bin/dpkg")
)


class AddInsteadOfCopy(ImageCheck):
    """ADD also unpacks archives and downloads URLs, which may happen unintentionally. COPY does neither.

    The ADD of a root file system is that of a base image and is accepted. It is recognised by its files, because it
    need not be the first instruction.
    """

    id = "add-instead-of-copy"
    title = "ADD used instead of COPY"
    severity = Severity.LOW
    remedy = "COPY file /file"
    looks_at = "ADD instructions in the history, and the files of their layers"
    cannot_see = "instructions of images without history (incomplete)"
    cis = ("4.9",)
    dockle = ("CIS-DI-0009",)
    trivy = ("DS-0005",)
    article = ("Lessons Learned: Start simple",)
    tags = ("build", "history")

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        lines = history(subject)
        adds = [one for one in lines.instructions if one.name == "ADD"]
        found = [item for one in adds for item in self._judge(subject, one)]
        if subject.rootfs is None and not found and any(_unclear(one) for one in adds):
            return Incomplete("layers_unreadable", subject.rootfs_reason)
        return failed(found) if found else lines.outcome(())

    def _judge(self, subject: ImageSubject, one: Instruction) -> Iterator[Evidence]:
        source, target = _source_and_target(one)
        if "://" in source or source.startswith("git@") or _ARCHIVE.search(source.split(" ")[0]):
            return
        layer = subject.rootfs.layers[one.layer] if subject.rootfs is not None and one.layer is not None else None
        if layer is None:
            if not _unclear(one):
                yield evidence(subject, one, f"ADD {source} {target} can be replaced by COPY")
        elif not (_is_root_file_system(layer) if target == "/" else _is_unpacked(source, layer)):
            yield evidence(subject, one, f"ADD {source} {target} can be replaced by COPY")


def _source_and_target(one: Instruction) -> tuple[str, str]:
    """Return sources and destination.

    The classic builder records ``file:DIGEST in /app``, BuildKit the Dockerfile's text.
    """
    words = [word for word in one.text.split() if not word.startswith("--")]
    classic = len(words) >= 3 and words[-2] == "in"
    sources = words[: -2 if classic else -1]
    return " ".join(word[:14] if classic else word for word in sources)[:200], words[-1] if words else ""


def _unclear(one: Instruction) -> bool:
    """Return whether the layer's files are needed to know if the ADD unpacked an archive."""
    return one.text.startswith(("file:", "multi:")) or _source_and_target(one)[1] == "/"


def _is_root_file_system(layer: LayerFacts) -> bool:
    return any(entry.path in _ROOT_FILES for entry in layer.entries)


def _is_unpacked(source: str, layer: LayerFacts) -> bool:
    """Return whether one source became several files, so it was an archive. Directories are recorded as ``dir:``."""
    if not source.startswith(("file:", "multi:")):
        return False
    return sum(entry.type is not FileType.DIRECTORY for entry in layer.entries) > 1
