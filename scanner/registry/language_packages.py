"""Files by which package managers of languages record an installed package, to tell which of them an engine missed.

An engine skips a record that it cannot parse, and says nothing: a vulnerable package whose ``package.json`` begins with
a byte order mark is not in its answer, although Node.js loads it. So every record that the engine did not list is a
gap, unless our own reading shows that it records no package, or that no runtime would load it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import islice
from typing import Any, Final

from scanner.model.filesystem import FileType, PackageRecord, PlacedFile, Rootfs
from scanner.model.finding import Component
from scanner.model.untrusted import clean_text
from scanner.patterns import lazy
from scanner.registry.places import APK

LARGEST: Final = 1 << 20  # bytes of a record that is held in memory
_BOM = b"\xef\xbb\xbf"
_WITH_BOM, _INVALID = "begins with a byte order mark", "is not valid JSON"
_OTHER_FORM, _DEPENDENCIES = "has members of another form", ("dependencies", "optionalDependencies", "devDependencies")
_ARCHIVES = (".jar", ".war", ".ear", ".par", ".JAR", ".WAR", ".EAR", ".PAR")
_NESTED = 16  # archives in one another; applications have three or four
_END_OF_ARCHIVE = lazy(r"\.(?:[jwep]ar|[JWEP]AR)(?=[/:])")
# Archives of Java for Jenkins, NiFi and Karaf. No engine opens them.
_UNOPENED = (".hpi", ".jpi", ".nar", ".kar")
_PYTHON = (".dist-info/METADATA", ".egg-info/PKG-INFO", ".egg-info/METADATA", "/EGG-INFO/PKG-INFO", ".egg-info", ".egg")
# Which files are records, by the end of their path with a slash before it. Compared with ``Required`` of Trivy's
# analyzers: https://github.com/aquasecurity/trivy/tree/main/pkg/fanal/analyzer/language. Lock files are none: they say
# what would be installed, and engines do not read them in an image.
_LANGUAGES: Final = {
    "/package.json": "Node.js",
    "/composer/installed.json": "PHP",
    "/packages.lock.json": ".NET",
    "/packages.config": ".NET",
    "/Manifest.toml": "Julia",
    ".deps.json": ".NET",
    ".gemspec": "Ruby",
    **dict.fromkeys(_PYTHON, "Python"),
    **dict.fromkeys((*_ARCHIVES, *_UNOPENED), "Java"),
    # No engine reads these.
    ".pex": "Python",
    ".pyz": "Python",
    ".app": "Erlang",
    "/.packlist": "Perl",
    "/Meta/package.rds": "R",
    "/rock_manifest": "Lua",
}
_ENDS: Final = tuple(_LANGUAGES)
# Of records, after the last dot of their names; a name without one is its own. Nearly all files are decided by them.
EXTENSIONS: Final = frozenset(end.rpartition("/")[2].rpartition(".")[2] for end in _ENDS)
_ENDS_AS_BYTES: Final = tuple(end.encode() for end in _ENDS)
_GEMSPEC = ".gemspec"
# In which directory a file of this extension is a record; elsewhere it may be anything.
_WITHIN = {"gemspec": "/specifications/", "app": "/ebin/", "packlist": "/auto/"}
# Of Erlang and Elixir themselves, whose libraries are part of the runtime.
_OF_RUNTIME = ("/erlang/lib/", "/elixir/lib/")
_PACKAGE_JSON = "package.json"
# What pip writes beside METADATA.
_COMPANIONS = ("/RECORD", "/WHEEL", "/top_level.txt")
_EXAMINED = EXTENSIONS | {"RECORD", "WHEEL", "txt"}
_LONGEST = 256  # characters of a name or version that are kept; npm and PyPI take none that is longer
_NODE_NAME = lazy(r"(?:@[A-Za-z0-9._-]+/)?[A-Za-z0-9._-]+")
# After the first node_modules: directories of packages only, with those in which pnpm and yarn keep all versions.
_INSTALLED = lazy(r"(?:(?:[@.][^/]+/[^/]+|[^/@.][^/]*)/node_modules/)*(?:@[^/]+/)?[^/@.][^/]*")
_CODE = (".js", ".cjs", ".mjs", ".node")
_LONGEST_PATH = 4096  # PATH_MAX of Linux
_HEAD = 1 << 16  # bytes of Python's metadata in which name and version are
_PYTHON_NAME, _PYTHON_VERSION = (lazy(rb"(?im)^%s[ \t]*:[ \t]*([^\r\n]*)" % key) for key in (b"name", b"version"))
# What an archive with packages holds: Maven's record, or the directories for the archives of an application.
_IN_ARCHIVE = (b"/pom.properties", b"-INF/lib/")
_OVERLAP = max(map(len, _IN_ARCHIVE)) - 1
# Where distributions put the packages of languages. Packages of others are in /opt or in directories of their own.
_OF_DISTRIBUTION, _NOT_OF_DISTRIBUTION = ("usr/", "var/lib/gems/", "opt/rh/"), "usr/local/"
_RUNTIME_PARTS = ("runtime", "runtimeTargets", "native")
_UNKNOWN = PackageRecord(holds=True)


def is_record(path: str, name: str) -> bool:
    """Return whether the file records an installed package. ``name`` is the last part of the path."""
    extension = name.rpartition(".")[2]
    if extension not in EXTENSIONS:
        return False
    full = f"/{path}"
    if not full.endswith(_ENDS) or _WITHIN.get(extension, "/") not in full:
        return False
    return extension != "app" or not any(directory in full for directory in _OF_RUNTIME)


def is_readable(name: str) -> bool:
    """Return whether `read_record` looks at the content of a record."""
    return name.endswith(_READABLE)


def read_record(path: str, data: bytes | memoryview) -> PackageRecord:
    """Return what a record says. Never raises."""
    read = next((read for end, read in _READERS.items() if path.endswith(end)), None)
    return read(data) if read is not None else _UNKNOWN


class ArchiveReader:
    """Reads an archive of Java in pieces."""

    def __init__(self) -> None:
        self._last, self._holds, self._hash = b"", False, hashlib.blake2b(digest_size=16)

    def feed(self, data: memoryview, /) -> None:
        """Read the next bytes."""
        self._hash.update(data)
        if not self._holds:
            piece = self._last + bytes(data)
            self._holds = any(mark in piece for mark in _IN_ARCHIVE)
            self._last = piece[-_OVERLAP:]

    def record(self) -> PackageRecord:
        """End the archive."""
        return PackageRecord(self._hash.hexdigest(), holds=self._holds)


def is_archive(name: str) -> bool:
    """Return whether the file is an archive of Java, by its name."""
    return name.endswith((*_ARCHIVES, *_UNOPENED))


def recorded_files(listing: bytes) -> Iterator[str]:
    """Yield the records in dpkg's list of a package's files with their sums (deb-md5sums(5))."""
    if any(end in listing for end in _ENDS_AS_BYTES):
        for line in listing.splitlines():
            if line.endswith(_ENDS_AS_BYTES):
                yield line.partition(b"  ")[2].decode("utf-8", "surrogateescape").removeprefix("/")


def _archive(data: bytes | memoryview) -> PackageRecord:
    """The names of files stand in an archive uncompressed."""
    reader = ArchiveReader()
    reader.feed(memoryview(data))
    return reader.record()


def _document(mark: bytes) -> Callable[[bytes | memoryview], PackageRecord]:
    """Return the reader of a record of many packages, which are there if ``mark`` is."""

    def read(data: bytes | memoryview) -> PackageRecord:
        plain = bytes(data)
        problem = _WITH_BOM if plain.startswith(_BOM) else ""
        return PackageRecord(_digest(plain), problem, holds=mark in plain)

    return read


def _digest(data: bytes | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _python(data: bytes | memoryview) -> PackageRecord:
    head = bytes(data[:_HEAD])
    found = (pattern.search(head) for pattern in (_PYTHON_NAME, _PYTHON_VERSION))
    name, version = (match[1].decode("utf-8", "replace").strip() if match else "" for match in found)
    return PackageRecord(_identity(name, version), holds=True)


def _identity(name: str, version: str) -> str:
    return f"{_kept(name.lower())}@{_kept(version)}"


def _kept(text: str) -> str:
    """The text, or the digest of a long one: a layer can have a million records of a megabyte each.

    Half a surrogate pair, which JSON can contain, could not be stored.
    """
    plain = text.encode("utf-8", "replace")
    return _digest(plain) if len(text) > _LONGEST else plain.decode()


def _json(data: bytes | memoryview) -> tuple[Any, str]:
    """Return a document as runtimes read it, and what is wrong with it. Raises ValueError for one that they refuse.

    Node.js and .NET skip a byte order mark, and replace bytes that are not UTF-8.
    """
    import orjson

    try:
        return orjson.loads(data), ""
    except orjson.JSONDecodeError:
        import json

        plain = bytes(data)
        text = plain.removeprefix(_BOM).decode("utf-8", "replace")
        try:
            return json.loads(text, parse_constant=_refuse), _WITH_BOM if plain.startswith(_BOM) else ""
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _package_json(data: bytes | memoryview) -> PackageRecord:
    try:
        document, problem = _json(data)
    except ValueError:
        return PackageRecord(problem=_INVALID)
    if not isinstance(document, dict):
        return PackageRecord(problem=problem)
    name, version = document.get("name"), document.get("version")
    if not (name and version):
        return PackageRecord(problem=problem)
    plain = isinstance(name, str) and isinstance(version, str)
    if not plain or not all(_is_list_of_packages(document.get(member)) for member in _DEPENDENCIES):
        problem = problem or _OTHER_FORM
    return PackageRecord(_identity(name, version) if plain else "", problem, holds=True)


def _is_list_of_packages(value: object) -> bool:
    """Engines refuse another form. Node.js does not look at it."""
    return value is None or (isinstance(value, dict) and all(isinstance(v, str | None) for v in value.values()))


def _deps_json(data: bytes | memoryview) -> PackageRecord:
    """The libraries of a .NET application. Engines leave out those of which nothing is needed to run.

    https://github.com/dotnet/sdk/blob/main/documentation/specs/runtime-configuration-file.md
    """
    try:
        document, problem = _json(data)
    except ValueError:
        return PackageRecord(_digest(data), _INVALID, holds=True)
    try:
        target = (document.get("targets") or {}).get((document.get("runtimeTarget") or {}).get("name")) or {}
        holds = any(
            str(library.get("type")).lower() in ("package", "runtimepack")
            and (key not in target or any(target[key].get(part) for part in _RUNTIME_PARTS))
            for key, library in (document.get("libraries") or {}).items()
        )
    except (AttributeError, TypeError):  # of another form: it may hold anything
        holds = True
    return PackageRecord(_digest(data), problem, holds)


_READERS: Final[Mapping[str, Callable[[bytes | memoryview], PackageRecord]]] = {
    _PACKAGE_JSON: _package_json,
    "METADATA": _python,
    "PKG-INFO": _python,
    ".egg-info": _python,
    ".deps.json": _deps_json,
    "installed.json": _document(b'"name"'),
    "packages.lock.json": _document(b'"resolved"'),
    "packages.config": _document(b"<package "),
    "Manifest.toml": _document(b"[["),
    **dict.fromkeys((*_ARCHIVES, *_UNOPENED), _archive),
}
_READABLE: Final = tuple(_READERS)


def unread_records(rootfs: Rootfs, components: Iterable[Component]) -> Iterator[str]:
    """Yield the records of packages that an engine did not list, each with what is wrong with it, if that is known.

    ``components``: what the engine read from files of the image.
    """
    read = _Read(rootfs, components)
    code: set[str] | None = None
    for path, placed in rootfs.files.items():
        name = path.rpartition("/")[2]
        if name.rpartition(".")[2] not in _EXAMINED:
            continue
        if not is_record(path, name):
            if path.endswith(_COMPANIONS) and _lacks_metadata(path, rootfs):
                yield f"{path.rpartition('/')[0]} (Python, without METADATA)"
            continue
        if placed.entry.type is FileType.DIRECTORY or read.has(path, placed):
            continue
        record = _record(rootfs, path, placed)
        if name == _PACKAGE_JSON and record is not None and not record.holds and code is None:
            code = _directories_of_code(rootfs)
        if record is None or not _counts(path, name, record, code or set()):
            continue
        remark = f", {record.problem}" if record.problem else ""
        if read.is_owned(path):
            if path.startswith(_OF_DISTRIBUTION) and not path.startswith(_NOT_OF_DISTRIBUTION):
                continue
            remark = ", in a package of the distribution's package manager"
        yield f"{path} ({_language(path)}{remark})"


def _language(path: str) -> str:
    return next(language for end, language in _LANGUAGES.items() if f"/{path}".endswith(end))


def _counts(path: str, name: str, record: PackageRecord, code: Set[str]) -> bool:
    """Return whether a record that was not listed may belong to an installed package.

    The tests of packages hold broken package.json files, and packages have one without a version for each of their
    parts. One without a version counts where package managers install packages, if code is beside it. Node.js refuses
    most code beside a broken one, but not all: the same rule.
    """
    if name != _PACKAGE_JSON:
        return record.holds
    _, inside, after = f"/{path}".partition("/node_modules/")
    directory = path.removesuffix(f"/{name}")
    if inside and _INSTALLED.fullmatch(after.removesuffix(f"/{name}")):
        return record.holds or directory in code
    if not record.holds or inside:
        return record.holds
    # An application has one as well, which not every engine lists. Its name may be any text. No package has such a
    # name, so no advisory can be about it.
    named = not record.identity or _NODE_NAME.fullmatch(record.identity.rpartition("@")[0]) is not None
    return named and (bool(record.problem) or record == _UNKNOWN)


def _record(rootfs: Rootfs, path: str, placed: PlacedFile) -> PackageRecord | None:
    """What is known of a record. None: nothing is there that a runtime could read."""
    if placed.entry.type is FileType.FILE:
        layer, origin = placed.origin or (placed.layer, path)
        # Not read: links to files with other names, files that were too large, kinds whose name says enough.
        return rootfs.layers[layer].records.get(origin, _UNKNOWN)
    found = rootfs.resolve(path) if placed.entry.type is FileType.SYMLINK else None
    if found is None or rootfs.files[found].entry.type is not FileType.FILE:
        return None
    # A record is looked at under its own name. Engines do not follow links to others.
    return None if is_record(found, found.rpartition("/")[2]) else _UNKNOWN


def _lacks_metadata(path: str, rootfs: Rootfs) -> bool:
    """Whether METADATA is missing, without which Python loads a package as well. True for one file of a directory."""
    directory = path.rpartition("/")[0]
    if not directory.endswith(".dist-info") or f"{directory}/METADATA" in rootfs.files:
        return False
    return path == next(f"{directory}{name}" for name in _COMPANIONS if f"{directory}{name}" in rootfs.files)


def _directories_of_code(rootfs: Rootfs) -> set[str]:
    """All directories that hold code of Node.js, at any depth."""
    found: set[str] = set()
    for path in rootfs.files:
        if path.endswith(_CODE):
            directory = path.rpartition("/")[0]
            while directory and directory not in found:
                found.add(directory)
                directory = directory.rpartition("/")[0]
    return found


class _Read:
    """What an engine read: the files from which it took packages, by layer and path."""

    def __init__(self, rootfs: Rootfs, components: Iterable[Component]) -> None:
        self._rootfs = rootfs
        self._owned: set[str] | None = None
        layers: dict[object, list[int]] = {}
        for index, layer in enumerate(rootfs.layers):
            layers.setdefault(layer.diff_id, []).append(index)
        self._contents: set[tuple[int, str]] = set()
        self._anywhere: set[str] = set()  # of which the engine does not say in which layer they were
        self._identities: dict[str, set[str]] = {}  # of the packages and records that were read at a path
        self._names: dict[str, frozenset[str]] = {}  # of the packages of Python, by their directory
        for component in components:
            path = _outermost(component.path.strip("/"), rootfs)
            identities = self._identities.setdefault(path, {_identity(component.name, component.version)})
            identities.add(_identity(component.name, component.version))
            if component.layer is None:
                self._anywhere.add(path)
            for index in layers.get(component.layer, ()):
                self._contents.add((index, path))
                if (record := rootfs.layers[index].records.get(path)) is not None:
                    identities.add(record.identity)

    def has(self, path: str, placed: PlacedFile) -> bool:
        """Return whether the engine read this content, or another one of the same path that says the same.

        Trivy names the first layer in which a path has this package, and keeps the package of a lower layer if it
        cannot read what a later one has there.
        """
        layer, origin = placed.origin or (placed.layer, path)
        # Two names that are not UTF-8 may look alike in a report.
        if (shown := _shown(origin)) == origin and ((layer, origin) in self._contents or origin in self._anywhere):
            return True
        known = self._identities.get(shown)
        if known is None:
            return self._has_site(path)
        record = self._rootfs.layers[layer].records.get(origin)
        if record is None or path.endswith(_GEMSPEC):
            return path.endswith(_GEMSPEC)  # the name of a gem's specification contains its version
        return bool(record.identity) and record.identity in known

    def _has_site(self, path: str) -> bool:
        """Clair names only the directory in which a package of Python is."""
        if not path.endswith(_PYTHON):
            return False
        metadata = path if path.endswith((".egg", ".egg-info")) else path.rpartition("/")[0]
        site, _, name = metadata.rpartition("/")
        if site not in self._names:
            known = self._identities.get(site, ())
            self._names[site] = frozenset(_plain_name(each.partition("@")[0]) for each in known)
        return _plain_name(name.partition("-")[0].removesuffix(".egg")) in self._names[site]

    def is_owned(self, path: str) -> bool:
        """Return whether the distribution's package database lists the file. Engines leave those out, because the
        distribution's advisories are about them.
        """
        if self._owned is None:
            self._owned = {owned for layer in self._rootfs.layers for owned in layer.owned_records}
            for database in APK:
                found = _apk_files(self._rootfs.content(database) or b"")
                # Only what is there: the database writes a directory once, and it could have a megabyte.
                self._owned.update(path for path in found if path in self._rootfs.files)
        return path in self._owned


def _plain_name(name: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/"""
    return name.lower().replace("_", "-").replace(".", "-")


def _shown(path: str) -> str:
    """A path as a report contains it."""
    if path.isascii() and path.isprintable():
        return path
    return clean_text(path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), len(path))


def _outermost(path: str, rootfs: Rootfs) -> str:
    """The file that holds the archive at ``path``: ``app.war/WEB-INF/lib/x.jar`` is in ``app.war``. Clair writes a
    colon instead of the first slash.
    """
    if not path.endswith(_ARCHIVES) or path in rootfs.files:
        return path
    # The longest that exists: a file may be named "a.jar:b.war", and is not the file "a.jar". Bounded: the names in an
    # archive are free, and one path could have hundreds of archives.
    ends = sorted((found.end() for found in islice(_END_OF_ARCHIVE.finditer(path), _NESTED)), reverse=True)
    return next((path[:end] for end in ends if path[:end] in rootfs.files), path)


def _apk_files(database: bytes) -> Iterator[str]:
    """The records in apk's database: lines ``F:`` with a directory, then ``R:`` with each of its files."""
    directory = ""
    for line in database.splitlines():
        if line.startswith(b"F:"):
            directory = line[2:].decode("utf-8", "surrogateescape")
        elif line.startswith(b"R:"):
            name = line[2:].decode("utf-8", "surrogateescape")
            if name.rpartition(".")[2] not in EXTENSIONS or len(directory) > _LONGEST_PATH:
                continue
            path = f"{directory}/{name}" if directory else name
            if is_record(path, name):
                yield path
