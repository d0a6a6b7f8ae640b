"""What our own reading of an image says against an engine's answer about its system: another release, or no system
at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from scanner.model.filesystem import FileType, LayerFacts, PlacedFile, Rootfs
from scanner.model.finding import NO_OS, NO_SYSTEM, PROGRAM_UNREAD, EngineReport, Incomplete
from scanner.model.release import Release, disagreement, foreign_packages, os_id, release_number
from scanner.model.untrusted import clean_text
from scanner.registry.packages import package_databases, release_of
from scanner.registry.places import APK, APK_REPOSITORIES, APPLICATION, DATABASES, DPKG, DPKG_PARTS, OS_RELEASE

# As Trivy reads the file: the release that it names decides which of Alpine's advisories the packages are compared
# with.
_REPOSITORY = re.compile(r"(?:https*|ftp)://[0-9A-Za-z.-]+/alpine/v?([0-9A-Za-z_.-]+)/")
_ENTRY = re.compile(rb"^(?:package|p):", re.IGNORECASE | re.MULTILINE)
_LEAST_ENTRY = 100  # bytes
_DIGITS = 9  # a longer number is no branch; Python refuses to read one of thousands of digits
_SHELLS = frozenset(("sh", "bash", "ash", "dash", "zsh", "ksh", "fish", "busybox", "toybox"))
_LIBRARY = re.compile(r"\.so(?:\.[0-9]+)*$|(?:^|/)ld-[^/]*$")


def compared(answer: EngineReport, rootfs: Rootfs) -> EngineReport:
    """The answer, incomplete where the engine may have compared with another release's advisories than the image's
    own.
    """
    family, version = answer.coverage.os_family, answer.coverage.os_version
    if not any(os_id(component.type) == os_id(family) for component in answer.components):
        # Clair's names of package types are Trivy's; of a distribution that it has no name for, there are none to
        # compare.
        return answer if not family or not answer.components else _doubted(answer, _by_files(family, version, rootfs))
    doubts = (*_by_files(family, version, rootfs), foreign_packages(family, version, answer.components))
    return _doubted(answer, doubts)


def _doubted(answer: EngineReport, doubts: Sequence[str]) -> EngineReport:
    gaps = tuple(Incomplete("release_disagrees", clean_text(doubt, 500)) for doubt in doubts if doubt)
    return replace(answer, incomplete=(*answer.incomplete, *gaps)) if gaps else answer


def _by_files(family: str, version: str, rootfs: Rootfs) -> tuple[str, ...]:
    told = release_of(rootfs)
    alpine = _repositories(version, rootfs) if os_id(family) == "alpine" else ""
    return (disagreement(family, version, told), _rewritten(rootfs), alpine)


def _repositories(version: str, rootfs: Rootfs) -> str:
    """Why the advisories may have been those of another branch: Trivy takes the newest one that etc/apk/repositories
    names, whatever the image is. A layer that writes v3.99 there makes every package look clean.
    """
    texts = [text for layer in rootfs.layers if _REPOSITORY.search(text := _text(layer.contents.get(APK_REPOSITORIES)))]
    named = _REPOSITORY.findall(texts[-1]) if texts else []
    own = release_number("alpine", version)
    branch = "edge" if "edge" in named else max(named, key=_order, default="")
    if own == "edge" and branch != "edge":
        return f"the image is of Alpine's edge branch, but {APK_REPOSITORIES} names {branch or 'no branch'}"
    if branch and branch != own:
        return (
            f"the image is Alpine {own}, but {APK_REPOSITORIES} names the branch {branch}, "
            "whose advisories the packages were compared with"
        )
    return ""


def _order(branch: str) -> tuple[bool, tuple[int, ...]]:
    """Numbers as numbers; a name that is none comes last, because it is the image's own in no case."""
    parts = branch.split(".")
    known = all(part.isdecimal() and len(part) < _DIGITS for part in parts)
    return not known, tuple(map(int, parts)) if known else ()


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")


def _rewritten(rootfs: Rootfs) -> str:
    """Whether a layer made the image another release without touching its packages.

    An upgrade of the distribution changes both.
    """
    former, last = Release(), ""
    for index, layer in enumerate(rootfs.layers):
        told = next((release_of(layer.contents[path]) for path in OS_RELEASE if path in layer.contents), None)
        if told is None or not told.id:
            continue
        changed = former.id and _differs(former, told)
        if changed and not _writes_packages(layer):
            last = f"layer {index} makes the image {told} from {former}, but leaves its packages as they were"
        elif changed:
            last = ""
        former = told
    return last


def _differs(former: Release, told: Release) -> bool:
    """A point release is no other release: nobody upgrades packages for the sake of a number."""
    before, after = (release_number(r.id, r.version) or r.version for r in (former, told))
    return (os_id(former.id), before) != (os_id(told.id), after)


def _writes_packages(layer: LayerFacts) -> bool:
    return any(entry.path in _DATABASES or entry.path.startswith(f"{DPKG_PARTS}/") for entry in layer.entries)


_DATABASES = frozenset(DATABASES)


def without_system(answer: EngineReport, rootfs: Rootfs) -> EngineReport:
    """The answer about an image that holds programs of languages and nothing else (``FROM scratch``): there is no
    system to recognise.

    It holds where the image has no release file, no package database and no shell, and the engine has read packages
    in every file that can be run and in every library. A program in which nothing could be read keeps the answer as
    it was: it may be packed, or built without what names its parts (docs/static-images.md).
    """
    if NO_SYSTEM not in answer.incomplete or answer.coverage.os_family or not answer.components:
        return answer
    read = {component.path.strip("/") for component in answer.components if component.path}
    unread = next(_unread(rootfs, read), "")
    if unread:
        detail = f"{NO_SYSTEM.detail}, and no package could be read in {clean_text(unread, 300)}"
        return replace(answer, incomplete=(*answer.incomplete, Incomplete(PROGRAM_UNREAD, detail)))
    if _is_distribution(rootfs):
        return answer
    return as_static(answer)


def as_static(answer: EngineReport) -> EngineReport:
    """The answer about an image of which our own reading has shown that it has no system."""
    gaps = tuple(gap for gap in answer.incomplete if gap != NO_SYSTEM)
    return replace(answer, coverage=replace(answer.coverage, os_family=NO_OS), incomplete=gaps)


def _is_distribution(rootfs: Rootfs) -> bool:
    """Whether anything in any layer is a distribution's: what a layer deleted was there all the same, and its files
    may still be.
    """
    told = any(path in layer.contents for layer in rootfs.layers for path in OS_RELEASE)
    return told or bool(package_databases(rootfs).databases)


def _unread(rootfs: Rootfs, read: set[str]) -> Iterator[str]:
    """Programs and libraries in which the engine found no package."""
    for path, placed in rootfs.files.items():
        if _runs(path, placed) and path not in read and placed.entry.link not in read:
            yield path


def _runs(path: str, placed: PlacedFile) -> bool:
    """Anything executable, every library, and every shell, whatever its mode."""
    if placed.entry.type is not FileType.FILE:
        return False
    return bool(placed.entry.mode & 0o111) or bool(_LIBRARY.search(path)) or path.rpartition("/")[2] in _SHELLS


def listed_packages(rootfs: Rootfs) -> int:
    """How many packages an engine would find at least, by our own count: what package managers list, and one for
    each file that languages keep of a package.
    """
    applications = sum(1 for path in rootfs.files if APPLICATION.match(path.rpartition("/")[2]))
    return applications + sum(_entries(path, rootfs) for path in _texts(rootfs))


def _texts(rootfs: Rootfs) -> set[str]:
    prefix = f"{DPKG_PARTS}/"
    parts = {path for path in rootfs.files if path.startswith(prefix) and not path.endswith(".md5sums")}
    return parts | {found for path in (DPKG, *APK) if (found := rootfs.resolve(path)) is not None}


def _entries(path: str, rootfs: Rootfs) -> int:
    """Every entry, in whatever state: the engine reads it before it knows.

    Of a text that was too large to be kept, by its size.
    """
    data = rootfs.content(path)
    return rootfs.files[path].entry.size // _LEAST_ENTRY if data is None else len(_ENTRY.findall(data))
