"""Files of the development environment (Dockle DKL-LI-0003)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from scanner.checks._remedy import run
from scanner.checks.base import ALLOW, FilesCheck, ImageSubject
from scanner.model.filesystem import FileType, PlacedFile, Rootfs
from scanner.model.finding import Evidence, Outcome, Severity
from scanner.patterns import lazy

_REPOSITORY, _CREDENTIALS, _TRACES = "version control data", "cloud credentials", "a command history"
_DIRECTORIES = {
    ".git": _REPOSITORY,
    ".svn": _REPOSITORY,
    ".hg": _REPOSITORY,
    ".aws": _CREDENTIALS,
    ".azure": _CREDENTIALS,
    ".gcp": _CREDENTIALS,
    ".terraform": _CREDENTIALS,
    ".vscode": "an editor's settings",
    ".idea": "an editor's settings",
    ".cache": "a cache",
    ".npm": "a cache",
}
_FILES = {
    r"Dockerfile(?:\..+)?|(?:docker-)?compose(?:\..+)?\.ya?ml|\.dockerignore": "build instructions",
    r"\.DS_Store|Thumbs\.db|desktop\.ini": "a file manager's metadata",
    r"\.vimrc|\.[^/]+\.sw[op]": "an editor's files",
    r"\.(?:ba|z|fi)?sh_history|\.(?:python|node_repl|my|psql|mysql|irb|rediscli)_?history|\.lesshst|\.viminfo": _TRACES,
    r"npm-debug\.log|yarn-error\.log|core\.\d+": "a crash log",
}
_NAME = lazy("|".join(f"({pattern})" for pattern in _FILES))
# Installed packages contain such files legitimately.
_PACKAGES = lazy(
    r"(?:^|/)(?:node_modules|vendor|(?:site|dist)-packages|gems|pkg/mod)/|^(?:usr/(?:share|lib|local/lib|src)|var/lib|etc/skel|opt/[^/]+/lib)/"
)


class LeftoverFiles(FilesCheck):
    """A git repository reveals source code and deleted secrets; histories and caches reveal who built it, and how."""

    id = "leftover-files"
    title = "Development files in the image"
    severity = Severity.LOW
    remedy = "add .git, .cache and similar paths to .dockerignore"
    looks_at = "names of files and non-empty directories that a container sees, outside of installed packages"
    cannot_see = "development files with other names"
    dockle = ("DKL-LI-0003",)
    article = ("Image Management: Keep Images Small",)
    tags = ("files", "size")
    parameters = ALLOW

    def examine_files(self, subject: ImageSubject, rootfs: Rootfs) -> Outcome:
        """See ``FilesCheck.examine_files``."""
        return self.judged(self._leftover_evidence(subject, rootfs), subject.parameters)

    def _leftover_evidence(self, subject: ImageSubject, rootfs: Rootfs) -> Iterator[Evidence]:
        directories: dict[str, PlacedFile] = {}
        sizes: Counter[str] = Counter()
        for path, top, placed in sorted(_development_files(rootfs)):
            if top:
                directories.setdefault(top, placed)
                sizes[top] += placed.entry.size
            elif match := _NAME.fullmatch(path.rpartition("/")[2]):
                what = tuple(_FILES.values())[(match.lastindex or 1) - 1]
                yield subject.evidence(f"/{path} is {what}", layer_index=placed.layer, path=path, name=what)
        for top, placed in directories.items():
            what = _DIRECTORIES[top.rpartition("/")[2]]
            message = f"/{top} contains {what} ({sizes[top] / 1e6:.1f} MB)"
            yield subject.evidence(message, layer_index=placed.layer, path=top, name=what)

    def severity_of(self, evidence: Sequence[Evidence]) -> Severity | None:
        """See ``Check.severity_of``."""
        revealing = {_REPOSITORY, _CREDENTIALS, _TRACES}
        return Severity.MEDIUM if any(item.name in revealing for item in evidence) else None

    def remedy_for(self, evidence: Sequence[Evidence]) -> str:
        """See ``Check.remedy_for``."""
        return run("rm -rf", (item.path and f"/{item.path}" for item in evidence))


def _development_files(rootfs: Rootfs) -> Iterator[tuple[str, str, PlacedFile]]:
    """Yield files outside of packages with their development directory; without one (empty) those with such a name."""
    known: dict[str, str | None] = {}
    file = FileType.FILE
    for path, placed in rootfs.files.items():
        if placed.entry.type is not file:
            continue
        directory, _, name = path.rpartition("/")
        # A directory is looked at once for all of its files.
        top = known[directory] if directory in known else known.setdefault(directory, _directory(directory))
        if top or (top is not None and _NAME.fullmatch(name)):
            yield path, top, placed


def _directory(directory: str) -> str | None:
    """Return the topmost development directory at or above a directory. Empty: none; None: it is of a package."""
    if _PACKAGES.search(f"{directory}/") is not None:
        return None
    parts = directory.split("/")
    return next(("/".join(parts[: n + 1]) for n, part in enumerate(parts) if part in _DIRECTORIES), "")
