"""The layers of an image applied in order: what a container would see (OCI image-spec, layer.md), and where readers disagree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from scanner.model.filesystem import FileEntry, FileType, LayerFacts, PlacedFile, Rootfs
from scanner.model.finding import Coverage, Incomplete

_DEBIAN, _ALPINE = "var/lib/dpkg/status", ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_RPM = tuple(
    f"{directory}/{name}"
    for directory in ("var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm")
    for name in ("Packages", "Packages.db", "rpmdb.sqlite")
)
_DATABASES = (_DEBIAN, *_ALPINE, *_RPM)
# Directories that distributions themselves replace by links; what is reached through them is where it always is.
_USUAL_LINKS = {
    "lib": "usr/lib",
    "bin": "usr/bin",
    "sbin": "usr/sbin",
    "lib64": "usr/lib64",
    "var/lib/rpm": "usr/lib/sysimage/rpm",
}


def merge(layers: Sequence[LayerFacts]) -> Rootfs:
    """Apply whiteouts (to lower layers only), opaque directories, then each layer's own entries, last of duplicates winning."""
    files: dict[str, PlacedFile] = {}
    children: dict[str, set[str]] = {"": set()}
    hidden: list[tuple[PlacedFile, int]] = []

    def drop(path: str, index: int) -> None:
        """Take a path and everything below it out of the merged view."""
        pending = [path]
        while pending:
            current = pending.pop()
            pending.extend(f"{current}/{name}" for name in children.pop(current, ()))
            placed = files.pop(current, None)
            if placed is not None and placed.layer != index:
                hidden.append((placed, index))
        parent, _, name = path.rpartition("/")
        children.get(parent, set()).discard(name)

    def place(entry: FileEntry, index: int) -> None:
        path = entry.path
        if not path:
            return
        before = files.get(path)
        if (before is not None and not (before.entry.type is entry.type is FileType.DIRECTORY)) or (
            path in children and entry.type is not FileType.DIRECTORY
        ):
            drop(path, index)
        _link_in(path, children)
        files[path] = PlacedFile(entry, index)
        # A file below what was a link or a file: a runtime makes it a directory.
        parent = path.rpartition("/")[0]
        while parent:
            above = files.get(parent)
            if above is not None and above.entry.type is not FileType.DIRECTORY:
                if above.layer != index:
                    hidden.append((above, index))
                del files[parent]
            parent = parent.rpartition("/")[0]

    for index, layer in enumerate(layers):
        for path in layer.whiteouts:
            drop(path, index)
        for directory in layer.opaque:
            for name in tuple(children.get(directory, ())):
                drop(f"{directory}/{name}" if directory else name, index)
        for entry in layer.entries:
            place(entry, index)
    return Rootfs(tuple(layers), files, tuple(hidden))


def _link_in(path: str, children: dict[str, set[str]]) -> None:
    """Register ``path`` with each directory above it, stopping where that was done before."""
    while path:
        parent, _, name = path.rpartition("/")
        siblings = children.setdefault(parent, set())
        if name in siblings:
            return
        siblings.add(name)
        path = parent


def concerns(rootfs: Rootfs, coverage: Coverage | None) -> tuple[Incomplete, ...]:
    """Why the engine may have seen another image than a container would: each makes its silence prove nothing.

    ``package_db_indirect``: a package database behind a link. ``package_db_deleted``: a later layer took it away.
    ``duplicate_entry``, ``unsafe_archive``: a layer that readers read differently. ``nothing_to_scan``: programs, but no
    package database and nothing that the engine recognised.
    """
    found = [*_odd(rootfs), *_indirect(rootfs), *_deleted(rootfs)]
    if coverage is not None:
        found.extend(_uncovered(rootfs, coverage))
    return tuple(dict.fromkeys(found))


def _odd(rootfs: Rootfs) -> Iterator[Incomplete]:
    for index, oddity in rootfs.oddities:
        if oddity.reason in ("duplicate_entry", "unsafe_archive"):
            yield Incomplete(oddity.reason, f"layer {index}: {oddity.path} {oddity.detail}")


def _indirect(rootfs: Rootfs) -> Iterator[Incomplete]:
    for path in _DATABASES:
        resolved = rootfs.resolve(path)
        if resolved is None:
            continue
        entry = rootfs.files[resolved].entry
        if entry.type is not FileType.FILE and entry.type is not FileType.DIRECTORY:
            yield Incomplete("package_db_indirect", f"{path} is a {entry.type}")
        elif resolved != path and resolved != _usual(path, rootfs):
            yield Incomplete("package_db_indirect", f"{path} is reached through a link to {resolved}")
    for path in ("etc/os-release",):
        placed = rootfs.files.get(path)
        if placed is not None and placed.entry.type is FileType.HARDLINK:
            yield Incomplete("package_db_indirect", f"{path} is a hard link to {placed.entry.link}")


def _usual(path: str, rootfs: Rootfs) -> str:
    """Where ``path`` is after the links that distributions make themselves."""
    for link, target in _USUAL_LINKS.items():
        placed = rootfs.files.get(link)
        if placed is not None and placed.entry.type is FileType.SYMLINK and path.startswith(link + "/"):
            return target + path[len(link) :]
    return path


def _deleted(rootfs: Rootfs) -> Iterator[Incomplete]:
    names = set(_DATABASES)
    for placed, index in rootfs.hidden:
        path = placed.entry.path
        if path in names and path not in rootfs.files and rootfs.resolve(path) is None:
            yield Incomplete(
                "package_db_deleted", f"layer {index} deletes {path}: its packages are still there, unnamed"
            )


def _uncovered(rootfs: Rootfs, coverage: Coverage) -> Iterator[Incomplete]:
    listed = installed(rootfs)
    if listed and coverage.packages == 0:
        yield Incomplete("nothing_to_scan", f"the image lists {listed} packages, the engine found none")
    if (
        not listed
        and coverage.packages == 0
        and any(p.entry.type is FileType.FILE and p.entry.mode & 0o111 for p in rootfs)
    ):
        yield Incomplete("nothing_to_scan", "the image holds programs, but no package that could be looked up")


def installed(rootfs: Rootfs) -> int:
    """How many packages the image's own databases list, as far as they are text (dpkg, apk)."""
    debian = rootfs.content(_DEBIAN) or b""
    alpine = next(filter(None, map(rootfs.content, _ALPINE)), b"")
    slim = sum(
        1
        for placed in rootfs
        if placed.entry.path.startswith("var/lib/dpkg/status.d/") and "." not in placed.entry.path[-8:]
    )
    return len(re.findall(rb"^Package: ", debian, re.MULTILINE)) + len(re.findall(rb"^P:", alpine, re.MULTILINE)) + slim
