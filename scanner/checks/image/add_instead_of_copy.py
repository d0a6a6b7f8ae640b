"""ADD of local files, where COPY would do (CIS Docker 4.9)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scanner.checks._history import Instruction, evidence, failed, history
from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.filesystem import FileType, LayerFacts
from scanner.model.finding import Evidence, Incomplete, Outcome, Severity

_ARCHIVE = re.compile(r"\.(?:tar(?:\.\w{1,5})?|t[bgx]z2?|tzst)$", re.IGNORECASE)
_ROOT_FILES = frozenset(
    ("etc/os-release", "usr/lib/os-release", "etc/passwd", "bin/sh", "bin/busybox", "usr/bin/sh", "usr/bin/dpkg")
)


class AddInsteadOfCopy(ImageCheck):
    """ADD unpacks archives and fetches URLs; where neither is meant, COPY does only what it says.

    The ADD of a root file system is a base image's own, wherever it stands: it is known by what it puts into the
    image, not by being the first.
    """

    id = "add-instead-of-copy"
    title = "ADD where COPY would do"
    severity = Severity.LOW
    remedy = "COPY file /file"
    looks_at = "every ADD of the history, and the files that it put into its layer"
    cannot_see = "images whose history was taken out are unknown"
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
                yield evidence(subject, one, f"ADD {source} {target} does nothing that COPY would not")
        elif not (_is_root_file_system(layer) if target == "/" else _is_unpacked(source, layer)):
            yield evidence(subject, one, f"ADD {source} {target} does nothing that COPY would not")


def _source_and_target(one: Instruction) -> tuple[str, str]:
    """Sources and destination.

    The classic builder writes ``file:DIGEST in /app``, BuildKit what stood in the Dockerfile.
    """
    words = [word for word in one.text.split() if not word.startswith("--")]
    classic = len(words) >= 3 and words[-2] == "in"
    sources = words[: -2 if classic else -1]
    return " ".join(word[:14] if classic else word for word in sources)[:200], words[-1] if words else ""


def _unclear(one: Instruction) -> bool:
    """Whether only its files can tell what an ADD unpacked."""
    return one.text.startswith(("file:", "multi:")) or _source_and_target(one)[1] == "/"


def _is_root_file_system(layer: LayerFacts) -> bool:
    return any(entry.path in _ROOT_FILES for entry in layer.entries)


def _is_unpacked(source: str, layer: LayerFacts) -> bool:
    """Whether one file became many: it was an archive. A digest of a directory says itself that it is none."""
    if not source.startswith(("file:", "multi:")):
        return False
    return sum(entry.type is not FileType.DIRECTORY for entry in layer.entries) > 1
