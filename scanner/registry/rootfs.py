"""The layers of an image applied in order: what a container would see (OCI image-spec, layer.md), and where readers
disagree about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from scanner.model.filesystem import FileEntry, FileType, LayerFacts, PlacedFile, Rootfs
from scanner.model.finding import ONLY_PROGRAMS, Coverage, Incomplete
from scanner.model.untrusted import clean_text
from scanner.registry.packages import package_databases
from scanner.registry.places import (
    APK,
    DATABASES,
    DPKG,
    DPKG_PARTS,
    OS_RELEASE,
    RPM_DATABASES,
    RPM_DIRECTORIES,
    is_sensitive,
)

# Globals, which are found faster than members of an enumeration: each entry of an image asks for them.
_FILE, _DIRECTORY, _SYMLINK, _HARDLINK = FileType.FILE, FileType.DIRECTORY, FileType.SYMLINK, FileType.HARDLINK
_MAX_CONCERNS, _MAX_DETAIL = 100, 500  # reasons, and characters of one
# The files by which engines recognise a package of Python.
_PYTHON = (".dist-info/METADATA", ".egg-info/PKG-INFO", ".egg-info")
_CODE = (".py", ".so", ".js", ".cjs", ".mjs", ".node")
_CONCERNING = frozenset(("duplicate_entry", "unsafe_archive", "limit_exceeded", "malformed_image"))
_ALIASES = (frozenset((DPKG,)), frozenset(APK), RPM_DATABASES, frozenset(OS_RELEASE))
# Links above package databases that distributions create themselves. A dangling one of these hides nothing.
_USUAL_LINKS = frozenset(("lib", "lib/apk", "lib/apk/db", "etc/os-release", "usr/lib/os-release", *RPM_DIRECTORIES))


def merge(layers: Sequence[LayerFacts]) -> Rootfs:
    """Apply the layers: whiteouts (to lower layers only), opaque directories, then the entries; the last duplicate
    wins.
    """
    tree = _Tree()
    for index, layer in enumerate(layers):
        tree.apply(index, layer)
    return Rootfs(tuple(layers), tree.files, tuple(tree.hidden), tuple(tree.redirected), tuple(tree.misplaced))


class _Tree:
    """The file system built so far. Every directory above a file is in ``files``, written by a layer or implied."""

    def __init__(self) -> None:
        self.files: dict[str, PlacedFile] = {}
        self.hidden: list[tuple[PlacedFile, int]] = []
        self.redirected: list[tuple[int, str, str]] = []
        self.misplaced: list[tuple[int, str]] = []
        self._children: dict[str, set[str]] = {"": set()}
        self._links: set[str] = set()  # symbolic links of lower layers, which this layer may write through
        self._where: dict[str, str] = {}
        # Children of directories into which this layer has written, not through a link. Most entries are new files.
        self._plain: dict[str, set[str]] = {}
        self._index = 0

    def apply(self, index: int, layer: LayerFacts) -> None:
        self._index = index
        self._where.clear()
        self._plain.clear()
        # Before the entries, wherever the whiteouts stand in the archive: they act on lower layers only (layer.md).
        for path in layer.whiteouts:
            self._drop(self._behind_links(path))
        for directory in layer.opaque:
            where = self._behind_links(f"{directory}/") if directory else ""
            for name in tuple(self._children.get(where, ())):
                self._drop(f"{where}/{name}" if where else name)
        files, plain = self.files, self._plain
        for entry in layer.entries:
            path = entry.path
            directory, _, name = path.rpartition("/")
            siblings = plain.get(directory)
            if siblings is not None and path not in files and entry.type is not _HARDLINK and path:
                siblings.add(name)
                files[path] = PlacedFile(entry, index)
            elif path:
                where = self._place(entry)
                if where == path and (not directory or self._is(directory, _DIRECTORY)):
                    plain[directory] = self._children[directory]
        for directory in {*(path.rpartition("/")[0] for path in layer.whiteouts), *layer.opaque}:
            placed = self.files.get(directory)
            # After the entries: a layer may replace a file by a directory, and mark that as opaque.
            if placed is not None and placed.entry.type not in (_DIRECTORY, _SYMLINK):
                self.misplaced.append((index, directory))
        self._links.update(e.path for e in layer.entries if e.type is _SYMLINK)
        self._links = {path for path in self._links if self._is(path, _SYMLINK)}

    def _is(self, path: str, kind: FileType) -> bool:
        placed = self.files.get(path)
        return placed is not None and placed.entry.type is kind

    def _behind_links(self, path: str) -> str:
        """The path at which a container finds an entry. containerd follows links of lower layers in its parent path;
        Docker's overlay2 replaces them. The difference is recorded in ``redirected``.
        """
        directory, slash, name = path.rpartition("/")
        if not directory or not self._links:
            return path.rstrip("/")
        where = self._where.get(directory)
        if where is None:
            where = self._where[directory] = self._resolve(directory)
        path = path.rstrip("/")
        if where == directory:
            return path
        found = f"{where}{slash}{name}".strip("/")
        self.redirected.append((self._index, path, found))
        return found

    def _resolve(self, directory: str) -> str:
        above = directory
        while above and above not in self._links:
            above = above.rpartition("/")[0]
        if not above:
            return directory
        followed = Rootfs((), self.files).follow(directory)
        return directory if followed is None else followed

    def _drop(self, path: str) -> None:
        """Remove a path and everything below it from the merged view."""
        self._plain.clear()
        # Not recursive: a layer may nest directories deeper than Python's stack.
        pending = [path]
        while pending:
            current = pending.pop()
            pending.extend(f"{current}/{name}" for name in self._children.pop(current, ()))
            self._hide(self.files.pop(current, None))
        parent, _, name = path.rpartition("/")
        self._children.get(parent, set()).discard(name)

    def _hide(self, placed: PlacedFile | None) -> None:
        # A duplicate within a layer was never in an image; only what another layer brought is hidden.
        if placed is not None and placed.layer != self._index:
            self.hidden.append((placed, self._index))

    def _place(self, entry: FileEntry) -> str:
        """Place an entry, and return the path at which a container finds it."""
        path = self._behind_links(entry.path)
        origin = None if path == entry.path else (self._index, entry.path)
        before = self.files.get(path)
        if before is not None and not (before.entry.type is entry.type is _DIRECTORY):
            # The resolved directories depended on this link.
            if path in self._links:
                self._links.discard(path)
                self._where.clear()
            self._drop(path)
        self._make_directories(path)
        placed = PlacedFile(entry if origin is None else replace(entry, path=path), self._index, origin)
        self.files[path] = self._resolve_link(placed) if entry.type is _HARDLINK else placed
        return path

    def _make_directories(self, path: str) -> None:
        """Create missing parent directories, as runtimes do. A file in their place is replaced."""
        while path:
            parent, _, name = path.rpartition("/")
            siblings = self._children.setdefault(parent, set())
            if name in siblings:
                return
            siblings.add(name)
            if not parent:
                return
            above = self.files.get(parent)
            if above is None or above.entry.type is not _DIRECTORY:
                self._plain.clear()
                self._hide(above)
                self._links.discard(parent)
                self.files[parent] = PlacedFile(FileEntry(parent, _DIRECTORY, 0o755, 0, 0, 0), self._index)
            path = parent

    def _resolve_link(self, placed: PlacedFile) -> PlacedFile:
        """Resolve a hard link: the target under another name.

        Some runtimes apply the link's mode to both, others keep the target's. The more permissive mode is reported.
        """
        entry = placed.entry
        target = self.files.get(self._behind_links(entry.link))
        if target is None or target.entry.type is not _FILE:
            return placed
        known = target.entry
        mode = entry.mode | known.mode
        if (mode, entry.uid, entry.gid) != (known.mode, known.uid, known.gid):
            # Both names are one file: what one link grants, the other has as well.
            self.files[known.path] = replace(target, entry=replace(known, mode=mode, uid=entry.uid, gid=entry.gid))
        capability = entry.capability or known.capability
        shown = replace(entry, type=_FILE, mode=mode, size=known.size, capability=capability)
        return PlacedFile(shown, placed.layer, target.origin or (target.layer, known.path))


def concerns(rootfs: Rootfs, coverage: Coverage | None) -> tuple[Incomplete, ...]:
    """Return why the engine may have seen another image than a container would.

    Each reason makes "no findings" unproven.

    ``package_db_indirect``: a package database is behind a link. ``package_db_deleted``: a later layer deleted or
    emptied one. ``duplicate_entry``, ``unsafe_archive``: readers interpret a layer differently. ``limit_exceeded``,
    ``malformed_image``: a required file could not be read. ``unsupported_os``: packages of another system than
    declared. ``nothing_to_scan``: there are programs or listed packages, but the engine found none, or clearly fewer.
    """
    # Equal reasons of many layers are one; the order stays.
    found = dict.fromkeys(
        (
            *_indirect(rootfs),
            *_deleted_databases(rootfs),
            *_misplaced(rootfs),
            *_deleted_metadata(rootfs),
            *_unread(rootfs),
            *_uncovered_systems(rootfs, coverage),
            *_oddities(rootfs),
        )
    )
    shown = tuple(Incomplete(c.reason, clean_text(c.detail, _MAX_DETAIL)) for c in islice(found, _MAX_CONCERNS))
    if len(found) > len(shown):
        shown += (Incomplete("unsafe_archive", f"and {len(found) - len(shown)} more remarks of this kind"),)
    return shown


def _oddities(rootfs: Rootfs) -> Iterator[Incomplete]:
    for index, oddity in rootfs.oddities:
        if oddity.reason in _CONCERNING:
            yield Incomplete(oddity.reason, f"layer {index}: {oddity.path[:200]} {oddity.detail}")


def _indirect(rootfs: Rootfs) -> Iterator[Incomplete]:
    for path in (*DATABASES, *OS_RELEASE):
        resolved = rootfs.resolve(path)
        if resolved is None:
            broken = _broken_link(path, rootfs)
            if broken:
                yield Incomplete("package_db_indirect", f"{path} is behind the dangling link {broken}")
            continue
        entry = rootfs.files[resolved].entry
        if entry.type is not _FILE:
            yield Incomplete("package_db_indirect", f"{path} is a {entry.type}")
        elif entry.link:
            yield Incomplete("package_db_indirect", f"{path} is a hard link to {entry.link[:200]}")
        # The names of an alias are the same database by design, such as /var/lib/rpm and /usr/lib/sysimage/rpm.
        elif resolved != path and not any(path in alias and resolved in alias for alias in _ALIASES):
            yield Incomplete("package_db_indirect", f"{path} is reached through a link to {resolved[:200]}")
    parts = rootfs.resolve(DPKG_PARTS)
    if parts is not None and parts != DPKG_PARTS:
        yield Incomplete("package_db_indirect", f"{DPKG_PARTS} is reached through a link to {parts[:200]}")
    for path, placed in rootfs.files.items():
        if path.startswith(f"{DPKG_PARTS}/") and (placed.entry.link or placed.entry.type is not _FILE):
            yield Incomplete("package_db_indirect", f"{path[:200]} is not a regular file")
    for index, written, where in rootfs.redirected:
        if is_sensitive(written) or is_sensitive(where):
            yield Incomplete(
                "package_db_indirect",
                f"layer {index} writes {written[:200]} through a link of a lower layer: some runtimes put it "
                f"at {where[:200]}",
            )


def _broken_link(path: str, rootfs: Rootfs) -> str:
    """The dangling link on the way to ``path``, unless distributions create that one themselves.

    Empty if there is none.
    """
    while path:
        placed = rootfs.files.get(path)
        if placed is not None:
            link = placed.entry.type is _SYMLINK and path not in _USUAL_LINKS and rootfs.resolve(path) is None
            return path if link else ""
        path = path.rpartition("/")[0]
    return ""


def _deleted_databases(rootfs: Rootfs) -> Iterator[Incomplete]:
    """Package databases that a layer removed.

    A database that moved to its new location (apk 3, rpm with SQLite) is kept.
    """
    for placed, index in rootfs.hidden:
        path = placed.entry.path
        if path not in DATABASES and not path.startswith(f"{DPKG_PARTS}/"):
            continue
        aliases = next((alias for alias in _ALIASES if path in alias), frozenset((path,)))
        now = [found for alias in aliases if (found := rootfs.resolve(alias)) is not None]
        if not now:
            yield Incomplete(
                "package_db_deleted",
                f"layer {index} deletes {path[:200]}: its packages remain in the image, but are not listed",
            )
        # Emptying hides packages as well as deleting, but the file is still there.
        elif placed.entry.size and not any(rootfs.files[found].entry.size for found in now):
            yield Incomplete(
                "package_db_deleted", f"layer {index} empties {path[:200]}: its packages remain in the image"
            )


def _misplaced(rootfs: Rootfs) -> Iterator[Incomplete]:
    """Deletions below a file. Trivy takes them for a deletion of what it found in that file; runtimes differ."""
    for index, path in rootfs.misplaced:
        yield Incomplete("unsafe_archive", f"layer {index} deletes something below {path[:200]}, which is a file")


def _deleted_metadata(rootfs: Rootfs) -> Iterator[Incomplete]:
    """Packages of Node.js and Python whose metadata a layer deleted, while their code remains.

    An upgrade writes new metadata, and an uninstallation removes the code.
    """
    deleted = [
        (package, placed.entry.path, index)
        for placed, index in rootfs.hidden
        if (package := _package_of(placed.entry.path)) and not _is_file(rootfs, placed.entry.path)
    ]
    if not deleted:
        return
    code: set[str] = set()
    for path, placed in rootfs.files.items():
        if placed.entry.type is _FILE and path.endswith(_CODE):
            directory = path.rpartition("/")[0]
            code.update((directory.lower(), path.rpartition(".")[0].lower()))
    listed = {_package_of(path) for path in rootfs.files if path.endswith(_PYTHON)}
    for package, path, index in deleted:
        if package in code and package not in listed:
            detail = f"layer {index} deletes {path[:200]}: the package remains in the image, but is not listed"
            yield Incomplete("package_db_deleted", detail)


def _is_file(rootfs: Rootfs, path: str) -> bool:
    placed = rootfs.files.get(path)
    return placed is not None and placed.entry.type is _FILE


def _package_of(path: str) -> str:
    """The directory of the code of a package whose metadata are at ``path``, in lower case. Empty: no such file.

    Without a regular expression: paths of 4095 characters would cost it milliseconds each.
    """
    if path.endswith("/package.json"):
        directory = path.removesuffix("/package.json")
        above = directory.rsplit("/", 3)[-3:-1]  # with a scope: node_modules/@scope/name
        known = above[-1:] == ["node_modules"] or (above[:1] == ["node_modules"] and above[-1].startswith("@"))
        return directory.lower() if known else ""
    suffix = next((each for each in _PYTHON if path.endswith(each)), "")
    site, _, name = path.removesuffix(suffix).rpartition("/") if suffix else ("", "", "")
    # https://packaging.python.org/en/latest/specifications/binary-distribution-format/#escaping-and-unicode
    return f"{site}/{name.partition('-')[0]}".lower() if site.endswith(("site-packages", "dist-packages")) else ""


def _unread(rootfs: Rootfs) -> Iterator[Incomplete]:
    """Identity files behind a link to a file whose content was not kept."""
    for path in (*OS_RELEASE, "etc/passwd", "etc/group"):
        resolved = rootfs.resolve(path)
        if resolved is not None and rootfs.files[resolved].entry.type is _FILE and rootfs.content(path) is None:
            yield Incomplete("file_unread", f"{path} points to {resolved[:200]}, which was not examined")


def _uncovered_systems(rootfs: Rootfs, coverage: Coverage | None) -> Iterator[Incomplete]:
    there = package_databases(rootfs)
    for database in there.foreign:
        amount = "packages" if database.packages is None else f"{database.packages} packages"
        yield Incomplete("unsupported_os", f"the image declares {there.os_id}, but {database.path} lists {amount}")
    if coverage is None:
        return
    # 90 %: engines skip packages without a version, so the counts need not be equal.
    if coverage.packages < there.listed * 9 // 10:
        yield Incomplete(
            "nothing_to_scan",
            f"the image lists {there.listed} packages, but the engine found {coverage.packages or 'none'}",
        )
    elif coverage.packages == 0:
        if any(database.packages is None for database in there.databases):
            yield Incomplete("nothing_to_scan", "the image has a package database, but the engine found no package")
        elif any(p.entry.type is _FILE and p.entry.mode & 0o111 for p in rootfs):
            yield ONLY_PROGRAMS
