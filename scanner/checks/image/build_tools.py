"""Compilers, build systems and package managers left in a runtime image (article: multi-stage builds)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scanner.checks.base import ALLOW, FilesCheck, ImageSubject
from scanner.model.filesystem import FileType, PlacedFile, Rootfs
from scanner.model.finding import Evidence, Outcome, Severity
from scanner.patterns import lazy

_TARGET = r"(?:[a-z0-9_]+-(?:[a-z0-9]+-)?linux-(?:gnu|musl)[a-z0-9]*-)?"
# With the prefix of a target and a version: x86_64-linux-gnu-gcc-12.
_COMPILER = lazy(
    _TARGET
    + r"(gcc|g\+\+|cc|c\+\+|gfortran|clang|clang\+\+|ld|as|gdb|lldb|make|gmake"
    + r"|cmake|ninja|meson|bazel|bison|flex|autoconf|automake|rustc|cargo"
    r"|javac|mvn|gradle|sbt|ghc|tsc|webpack|node-gyp|go|gofmt)(?:-\d+(?:\.\d+)*)?"
)
_MANAGER = lazy(
    r"(apt-get|dpkg|apk|yum|dnf|dnf5|microdnf|tdnf|zypper|rpm|pacman|opkg|pip|npm|yarn|pnpm|gem|composer|conda)\d?(?:\.\d+)?"
)
_DIRECTORIES = lazy(
    r"(?:usr/(?:local/)?)?s?bin/|usr/local/go/bin/|usr/lib/(?:go[^/]*|jvm/[^/]+|llvm[^/]*)/bin/|opt/(?:[^/]+/){1,3}bin/|root/\.cargo/bin/|usr/local/cargo/bin/"
)


class BuildTools(FilesCheck):
    """Compilers and package managers are not needed at run time and help an attacker. Use a multi-stage build."""

    id = "build-tools"
    title = "Build tools or package managers in the image"
    severity = Severity.MEDIUM
    remedy = "FROM golang:1.25 AS build … then FROM a minimal base and COPY --from=build /app/service /service"
    looks_at = "names of programs in bin directories: compilers, linkers, build systems, debuggers, package managers"
    cannot_see = "renamed tools; whether the image is intended for builds"
    cis = ("4.3",)
    dockle = ("CIS-DI-0003",)
    article = ("Image Management: Keep Images Small", "Security: Image Scanning")
    tags = ("build", "size")
    parameters = ALLOW

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        found: dict[str, Evidence] = {}
        for tool, kind, placed in _tools(rootfs):
            path = placed.entry.path
            if tool not in found or len(path) < len(found[tool].path):
                found[tool] = subject.evidence(
                    f"the {kind} {tool} is at /{path}", layer_index=placed.layer, path=path, name=tool
                )
        return self.judged([found[tool] for tool in sorted(found)], subject.parameters)

    def severity_of(self, evidence: Sequence[Evidence]) -> Severity | None:
        """See ``Check.severity_of``. A package manager alone is low, because most base images have one."""
        return Severity.LOW if all(_MANAGER.fullmatch(item.name) for item in evidence) else None


def _tools(rootfs: Rootfs) -> Iterator[tuple[str, str, PlacedFile]]:
    for path, placed in rootfs.files.items():
        if "bin/" not in path:
            continue
        directory, _, name = path.rpartition("/")
        compiler = _COMPILER.fullmatch(name)
        match = compiler or _MANAGER.fullmatch(name)
        if match is None or placed.entry.type is FileType.DIRECTORY or not _DIRECTORIES.fullmatch(directory + "/"):
            continue
        if placed.entry.type is FileType.SYMLINK or placed.entry.mode & 0o111:
            yield match[1], "build tool" if compiler else "package manager", placed
