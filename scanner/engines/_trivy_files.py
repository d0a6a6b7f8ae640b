"""Which files of an image Trivy reads, so that others need not be stored for it.

Trivy asks each analyzer whether it requires a file, by its path and its mode. The rules here are the other way round:
everything is read except files with an extension that no analyzer knows, where no analyzer looks at all files of a
directory. A kind of file that is unknown here is therefore read.

Compared with ``Required`` of all analyzers below ``pkg/fanal/analyzer`` that run with ``--scanners vuln``:
https://github.com/aquasecurity/trivy/tree/main/pkg/fanal/analyzer. Those that search for secrets, misconfiguration and
texts of licences read all files, and are off.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from scanner.model.filesystem import FileEntry
from scanner.patterns import lazy
from scanner.registry.excerpts import EngineFiles, Part

# Whose reading of files was compared with ours. Another version gets every file.
VERSIONS: Final = frozenset({"0.76.0"})

# Source code, its maps and compiled forms, translations, pictures, fonts, data, compressed texts, libraries. Numbers:
# versions of libraries, and sections of manuals.
_UNREAD = frozenset(
    (
        *("js", "cjs", "mjs", "jsx", "ts", "cts", "mts", "tsx", "map", "flow", "coffee", "css", "scss", "sass", "less"),
        *("html", "htm", "py", "pyc", "pyd", "pyi", "pyo", "pyx", "pxd", "c", "cc", "cpp", "cxx", "h", "hh", "hpp"),
        *("hxx", "cu", "cuh", "f", "f90", "pl", "pm", "pod", "al", "rst", "md", "markdown", "mo", "po", "pot", "png"),
        *("gif", "jpg", "jpeg", "svg", "ico", "bmp", "ttf", "otf", "woff", "woff2", "eot", "pdf", "gz", "xz", "bz2"),
        *("zst", "dat", "npy", "npz", "csv", "parquet", "a", "la", "o", "so"),
    )
)
# Names without an extension, or with one of the above, which an analyzer knows; licences that metadata can name.
_READ = frozenset(("METADATA", "PKG-INFO", "copyright", "installed", "status", "available", "Packages"))
_LICENCE, _RELEASE = ("license", "licence"), "-release"
# Directories in which an analyzer reads every file, or by a pattern without an end (``*.gemspec*``).
_READ_DIRECTORY = lazy(
    r"\.dist-info|\.egg-info|EGG-INFO|(?:^|/)(?:conda-meta|specifications|rpm|rpmmanifest|apk|bottlerocket)/"
    r"|^(?:etc|root/buildinfo|usr/share/buildinfo|usr/lib/sysimage|var/lib)/"
)
_INDEX = lazy(r"var/lib/apt/lists/[^/]+_(?:Packages|Sources|Translation-\w+)")
_INDICES = "var/lib/apt/lists/"
_EXECUTABLE = 0o111
# Globals, which are found faster than members of an enumeration: each entry of an image passes here.
_NOTHING, _ALL, _PROGRAM = Part.NOTHING, Part.ALL, Part.PROGRAM


def _part(entry: FileEntry) -> Part:
    path = entry.path
    directory, _, name = path.rpartition("/")
    _, dot, extension = name.rpartition(".")
    executable = entry.mode & _EXECUTABLE
    if not (extension in _UNREAD or extension.isdecimal() if dot else executable):
        # ``apt-get update`` leaves a tenth of an image there. Executable ones may be programs: apt never writes such.
        index = not executable and path.startswith(_INDICES) and _INDEX.fullmatch(path)
        return _NOTHING if index else _ALL
    if name in _READ or name.endswith(_RELEASE) or name.lower().startswith(_LICENCE) or _reads_all_of(directory):
        return _ALL
    # The analyzers of Go and Rust look into whatever can be executed, whatever its name is.
    return _PROGRAM if executable else _NOTHING


@lru_cache(maxsize=256)  # archives are in the order of their directories
def _reads_all_of(directory: str) -> bool:
    return _READ_DIRECTORY.search(f"{directory}/") is not None


# Go finds its build information by these bytes (``debug/buildinfo``). cargo-auditable adds a section: the last name is
# that of its first release, rust-audit 0.1.0, which Trivy still reads.
FILES: Final = EngineFiles("trivy-files-2", _part, (b"Go buildinf:", b".dep-v0", b".rust-deps-v0"))
