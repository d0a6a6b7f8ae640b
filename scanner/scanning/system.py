"""Comparison of an engine's answer with our own reading: does the image have this OS release, or any?

A layer can change os-release or etc/apk/repositories, so that engines match the packages with the advisories of another
release and find nothing. Such an answer is incomplete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from scanner.errors import ScannerError
from scanner.model.filesystem import FileType, LayerFacts, PlacedFile, Rootfs
from scanner.model.finding import (
    NO_OS,
    NO_SYSTEM,
    PACKAGE_UNREAD,
    PROGRAM_UNREAD,
    Component,
    EngineReport,
    Incomplete,
)
from scanner.model.plurals import number_of
from scanner.model.release import Release, disagreement, foreign_packages, os_id, release_number
from scanner.model.untrusted import clean_text, load_untrusted_json
from scanner.patterns import lazy
from scanner.registry.language_packages import unread_records
from scanner.registry.packages import (
    installed_packages,
    other_packages,
    package_databases,
    release_of,
    unapplied_changes,
)
from scanner.registry.places import (
    APK,
    APK_REPOSITORIES,
    APPLICATION,
    DATABASES,
    DPKG,
    DPKG_PARTS,
    OS_RELEASE,
    RED_HAT_BUILD,
)

# Trivy reads the file with the same expression. The release in it selects the Alpine advisories.
_REPOSITORY = lazy(r"(?:https*|ftp)://[0-9A-Za-z.-]+/alpine/v?([0-9A-Za-z_.-]+)/")
_ENTRY = lazy(rb"^(?:package|p):", re.IGNORECASE | re.MULTILINE)
_MOST_MANIFEST = 1 << 20  # bytes
_LEAST_ENTRY = 100  # bytes; no entry of a package database is shorter
_DIGITS = 9  # longer numbers are no branch; int() raises for thousands of digits
_SHELLS = frozenset(("sh", "bash", "ash", "dash", "zsh", "ksh", "fish", "busybox", "toybox"))
# Types of packages that engines read from an executable. Those of other types come from texts and archives, which a
# program can contain or can be at the same time: a jar may follow an ELF program in one file.
_PROGRAMS = frozenset(("gobinary", "rustbinary"))
_NAMED, _NAMED_RECORDS = 5, 2  # packages in a message
_MOST_RECORDS = 1000  # more are not counted
# Shared libraries and loaders are no programs, although they are executable.
_LIBRARY = lazy(r"\.so(?:\.[0-9]+)*$|(?:^|/)ld-[^/]*$")


def compare_system(answer: EngineReport, rootfs: Rootfs) -> EngineReport:
    """Return the answer, incomplete if the engine may have used the advisories of another release, or did not look up
    all packages that the image lists.
    """
    family, version = answer.coverage.os_family, answer.coverage.os_version
    own = [component for component in answer.components if os_id(component.type) == os_id(family)]
    answer = _without_unlisted(answer, own, rootfs)
    if not own:
        if not family or not answer.components:
            return answer
        # No package has the type of this distribution: Clair has no type for some. Only files can be compared.
        answer = _with_doubts(answer, _by_files(family, version, rootfs))
        return _without_system_packages(answer, rootfs)
    doubts = (*_by_files(family, version, rootfs), foreign_packages(family, version, answer.components))
    return _with_doubts(answer, doubts)


def _without_unlisted(answer: EngineReport, own: Sequence[Component], rootfs: Rootfs) -> EngineReport:
    """Return the answer, incomplete if the engine left out packages of the image, each of which may be vulnerable.

    Trivy skips a package whose entry has no valid version, or that is marked for removal but still installed. The
    number of packages proves nothing: those of languages, or of an SBOM in the image, make up for missing ones.
    """
    if not answer.components:
        return answer  # a gap already says so
    gaps = [Incomplete(PACKAGE_UNREAD, clean_text(detail, 500)) for detail in _unlisted(answer, own, rootfs)]
    return replace(answer, incomplete=(*answer.incomplete, *gaps)) if gaps else answer


def _unlisted(answer: EngineReport, own: Sequence[Component], rootfs: Rootfs) -> Iterator[str]:
    system = [component for component in own or answer.components if not component.stated]
    missing = sorted(installed_packages(rootfs) - {component.name for component in system})
    if missing:
        named = ", ".join(missing[:_NAMED]) + (" and others" if len(missing) > _NAMED else "")
        yield f"the image lists {number_of(len(missing), 'package')} that the engine did not look up: {named}"
    there = [database for database in package_databases(rootfs).databases if database.kind == "rpm"]
    # 90 %: a package may be listed for several architectures, or in several versions.
    if len(system) < (listed := sum(database.packages or 0 for database in there)) * 9 // 10:
        yield f"rpm's database lists {number_of(listed, 'package')}, but the engine looked up only {len(system)}"
    for path in unapplied_changes(rootfs):
        yield f"{path} has changes of the package database, which the engine did not read"
    read = {component.path.strip("/") for component in answer.components}
    for manager, path in sorted(other_packages(rootfs, read).items()):
        yield f"{path} has packages of {manager}, which the engine did not look up"
    yield from _unread_records(answer, rootfs)


def _unread_records(answer: EngineReport, rootfs: Rootfs) -> Iterator[str]:
    components = [component for component in answer.components if component.path and not component.stated]
    unread = list(islice(unread_records(rootfs, components), _MOST_RECORDS))
    if unread:
        amount = (
            number_of(len(unread), "package") if len(unread) < _MOST_RECORDS else f"{_MOST_RECORDS} or more packages"
        )
        named = ", ".join(clean_text(record, 150) for record in unread[:_NAMED_RECORDS])
        others = " and others" if len(unread) > _NAMED_RECORDS else ""
        yield f"the engine did not look up {amount} that files of the image record: {named}{others}"


def _without_system_packages(answer: EngineReport, rootfs: Rootfs) -> EngineReport:
    """Return the answer, incomplete if the distribution's programs are there but none of its packages is listed.

    ``COPY --from=debian`` without the package database leaves vulnerable libraries of which no engine can know. The
    packages of a language say nothing about them.
    """
    unread = next(_unread(rootfs, answer), "")
    if not unread:
        return answer
    system = f"{answer.coverage.os_family} {answer.coverage.os_version}".strip()
    detail = f"the image is {system}, but none of its packages is listed, and no package could be read in "
    gap = Incomplete(PROGRAM_UNREAD, detail + clean_text(unread, 300))
    return replace(answer, incomplete=(*answer.incomplete, gap))


def _with_doubts(answer: EngineReport, doubts: Sequence[str]) -> EngineReport:
    gaps = tuple(Incomplete("release_disagrees", clean_text(doubt, 500)) for doubt in doubts if doubt)
    return replace(answer, incomplete=(*answer.incomplete, *gaps)) if gaps else answer


def _by_files(family: str, version: str, rootfs: Rootfs) -> tuple[str, ...]:
    told = release_of(rootfs)
    alpine = _repositories(version, rootfs) if os_id(family) == "alpine" else ""
    red_hat = _content_sets(family, version, rootfs) if os_id(family) in ("rhel", "centos") else ""
    return (disagreement(family, version, told), _rewritten(rootfs), alpine, red_hat)


def _repositories(version: str, rootfs: Rootfs) -> str:
    """Return why the advisories may be those of another Alpine branch. Empty: they are not.

    Trivy uses the newest branch in etc/apk/repositories instead of the image's release. A layer that writes v3.99 there
    would make every package look clean.
    """
    texts = [text for layer in rootfs.layers if _REPOSITORY.search(text := _text(layer.contents.get(APK_REPOSITORIES)))]
    named = _REPOSITORY.findall(texts[-1]) if texts else []
    own = release_number("alpine", version)
    branch = "edge" if "edge" in named else max(named, key=_order, default="")
    if own == "edge" and branch != "edge":
        return f"the image is Alpine edge, but {APK_REPOSITORIES} contains {branch or 'no branch'}"
    if branch and branch != own:
        return (
            f"the image is Alpine {own}, but {APK_REPOSITORIES} contains the branch {branch}, "
            "so the engine used the advisories of that branch"
        )
    return ""


def _content_sets(family: str, version: str, rootfs: Rootfs) -> str:
    """Return why the advisories may be those of another Red Hat product. Empty: they are not.

    Engines match only the advisories of the content sets that a layer's build information names; without any, those of
    the operating system. A file that names another product's set makes every package of the system look clean. So each
    layer with build information has to name the system's own set, with a name of Red Hat's repository-to-cpe.json. An
    engine finds no advisories for other names, such as those in ubi.repo. Sets of a support extension (EUS, E4S) do not
    count: their advisories end, and never list what only the release itself had fixed.
    """
    number = release_number(family, version)
    own = re.compile(
        rf"(?:rhel|ubi)-{re.escape(number)}-for-(?:x86_64|aarch64|ppc64le|s390x)-baseos-rpms"
        rf"|rhel-{re.escape(number)}-(?:server|for-power-le|for-system-z)-rpms"
    )
    for index, layer in enumerate(rootfs.layers):
        paths = [entry.path for entry in layer.entries if entry.path.startswith(RED_HAT_BUILD)]
        # These name the build, of which engines know the product.
        build = any(path.rpartition("/")[2].startswith(("Dockerfile", "labels.json")) for path in paths)
        manifests = (_listed_sets(layer.contents.get(path, b"")) for path in paths if path.endswith(".json"))
        listed = [sets for sets in manifests if sets]
        if (build and not listed) or not all(any(map(own.fullmatch, sets)) for sets in listed):
            return (
                f"the build information of layer {index} does not name the content set of Red Hat Enterprise Linux "
                f"{number}, so the engine may have used the advisories of another product"
            )
    return ""


def _listed_sets(data: bytes) -> list[str]:
    """Return the content sets of a manifest. Empty: it has no list of them.

    A file that is not read or is no JSON lists something unknown. Engines written in Go read names in any case.
    """
    try:
        document = load_untrusted_json(data, limit=_MOST_MANIFEST, depth=20)
    except ScannerError:
        return ["unknown"]
    if not isinstance(document, dict):
        return ["unknown"]
    lists = [value for name, value in document.items() if name.lower() == "content_sets" and value]
    if len(lists) > 1 or not all(isinstance(value, list) for value in lists):
        return ["unknown"]
    return [name if isinstance(name, str) else "unknown" for name in lists[0]] if lists else []


def _order(branch: str) -> tuple[bool, tuple[int, ...]]:
    """Sort key of branches, numerically. Other names come last (highest): they never are the image's own branch."""
    parts = branch.split(".")
    known = all(part.isdecimal() and len(part) < _DIGITS for part in parts)
    return not known, tuple(map(int, parts)) if known else ()


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")


def _rewritten(rootfs: Rootfs) -> str:
    """Return how a layer changed the release without changing packages. Empty: none did.

    A real upgrade of the distribution changes both.
    """
    former, last = Release(), ""
    for index, layer in enumerate(rootfs.layers):
        told = next((release_of(layer.contents[path]) for path in OS_RELEASE if path in layer.contents), None)
        if told is None or not told.id:
            continue
        changed = former.id and _differs(former, told)
        if changed and not _writes_packages(layer):
            last = f"layer {index} changes the release from {former} to {told} without changing packages"
        elif changed:
            last = ""
        former = told
    return last


def _differs(former: Release, told: Release) -> bool:
    """Return whether two releases have different advisories. Point releases of one release do not."""
    before, after = (release_number(r.id, r.version) or r.version for r in (former, told))
    return (os_id(former.id), before) != (os_id(told.id), after)


def _writes_packages(layer: LayerFacts) -> bool:
    return any(entry.path in _DATABASES or entry.path.startswith(f"{DPKG_PARTS}/") for entry in layer.entries)


_DATABASES = frozenset(DATABASES)


def without_system(answer: EngineReport, rootfs: Rootfs) -> EngineReport:
    """Accept the answer about an image without an operating system (``FROM scratch`` with static programs).

    Accepted if the image has no release file, no package database and no shell, and the engine found packages in every
    executable and library. Otherwise the answer stays incomplete: an unread program may be packed or stripped of its
    module list (docs/static-images.md).
    """
    if NO_SYSTEM not in answer.incomplete or answer.coverage.os_family or not answer.components:
        return answer
    unread = next(_unread(rootfs, answer), "")
    if unread:
        detail = f"{NO_SYSTEM.detail}, and no package could be read in {clean_text(unread, 300)}"
        return replace(answer, incomplete=(*answer.incomplete, Incomplete(PROGRAM_UNREAD, detail)))
    if _is_distribution(rootfs):
        return answer
    return as_static(answer)


def as_static(answer: EngineReport) -> EngineReport:
    """Return the answer without the gap for the missing operating system."""
    gaps = tuple(gap for gap in answer.incomplete if gap != NO_SYSTEM)
    return replace(answer, coverage=replace(answer.coverage, os_family=NO_OS), incomplete=gaps)


def _is_distribution(rootfs: Rootfs) -> bool:
    """Return whether any layer contains parts of a distribution. Deleted ones count: other files may remain."""
    told = any(path in layer.contents for layer in rootfs.layers for path in OS_RELEASE)
    return told or bool(package_databases(rootfs).databases)


def _unread(rootfs: Rootfs, answer: EngineReport) -> Iterator[str]:
    """Yield executables and libraries in which the engine found no package.

    The layer of a package counts as well as its path: engines keep what they read in a lower layer, although a later
    layer replaced the file by a program that they cannot read.
    """
    read = {
        (component.path.strip("/"), component.layer)
        for component in answer.components
        if component.path and component.type in _PROGRAMS and not component.stated
    }
    contents = {
        placed.origin or (placed.layer, path)
        for path, placed in rootfs.files.items()
        if (path, rootfs.layers[placed.layer].diff_id) in read or (path, None) in read
    }
    for path, placed in rootfs.files.items():
        # Hard links have the content of their target, which a later layer may have replaced under its own name only.
        if _runs(path, placed) and (placed.origin or (placed.layer, path)) not in contents:
            yield path


def _runs(path: str, placed: PlacedFile) -> bool:
    """Return whether the file is executable, a library, or a shell of any mode (a later chmod may make it run)."""
    if placed.entry.type is not FileType.FILE:
        return False
    return bool(placed.entry.mode & 0o111) or bool(_LIBRARY.search(path)) or path.rpartition("/")[2] in _SHELLS


def listed_packages(rootfs: Rootfs) -> int:
    """Return the minimum number of packages that an engine would find: entries of package databases, and package files
    of language ecosystems.
    """
    applications = sum(1 for path in rootfs.files if APPLICATION.match(path.rpartition("/")[2]))
    return applications + sum(_entries(path, rootfs) for path in _texts(rootfs))


def _texts(rootfs: Rootfs) -> set[str]:
    prefix = f"{DPKG_PARTS}/"
    parts = {path for path in rootfs.files if path.startswith(prefix) and not path.endswith(".md5sums")}
    return parts | {found for path in (DPKG, *APK) if (found := rootfs.resolve(path)) is not None}


def _entries(path: str, rootfs: Rootfs) -> int:
    """Return the number of entries of a package database, in any state.

    Files too large to keep are estimated by size.
    """
    data = rootfs.content(path)
    return rootfs.files[path].entry.size // _LEAST_ENTRY if data is None else len(_ENTRY.findall(data))
