"""Dependencies installed after the source code was copied (article: layer caching matters)."""

from __future__ import annotations

from collections.abc import Iterator

from scanner.checks._history import Command, Instruction, evidence, history
from scanner.checks._package_managers import manager_of, verb
from scanner.checks.base import ImageCheck, ImageSubject
from scanner.model.filesystem import FileType, LayerFacts
from scanner.model.finding import Evidence, Outcome, Severity
from scanner.patterns import lazy

_INSTALLS = {
    "npm": ("npm", ("install", "i", "ci", "add")),
    "pnpm": ("npm", ("install", "i", "add")),
    "bun": ("npm", ("install", "add")),
    "yarn": ("npm", ("install", "add", "")),
    "pip": ("pip", ("install",)),
    "pip3": ("pip", ("install",)),
    "pipenv": ("pip", ("install", "sync")),
    "poetry": ("pip", ("install",)),
    "uv": ("pip", ("sync", "pip")),
    "bundle": ("gem", ("install", "")),
    "composer": ("composer", ("install",)),
    "go": ("go", ("mod", "get")),
    "cargo": ("cargo", ("fetch",)),
}
# Source files change with every commit, and invalidate the layers behind them.
_SOURCE = lazy(
    r"\.(?:py|js|jsx|ts|tsx|mjs|go|rs|java|kt|rb|php|cs|c|cc|cpp|h|hpp|scala|swift|ex|exs|vue|svelte|html|css|scss)$"
)
# Settings that have a source file's ending, and belong to the dependencies.
_MANIFEST = lazy(r"(?:^|/)(?:setup\.py|conftest\.py|[\w.-]*config\.(?:js|ts|mjs|cjs)|\.?\w+rc\.js)$")


class CacheOrder(ImageCheck):
    """If source code is copied first, every change of it reinstalls all dependencies.

    Builds are slow, and hosts pull the unchanged dependencies as a new layer with every release.
    """

    id = "cache-order"
    title = "Dependencies installed after the source code"
    severity = Severity.LOW
    remedy = "COPY package.json package-lock.json ./ then RUN npm ci, then COPY . ."
    looks_at = "the order of COPY, ADD and RUN in the history, and the files that COPY added"
    cannot_see = "other build stages; unknown base images"
    article = ("Image Management: Layer Caching Matters",)
    tags = ("build", "history", "size")

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        lines = history(subject)
        return lines.outcome(list(_late(subject, lines.instructions)))


def _late(subject: ImageSubject, instructions: tuple[Instruction, ...]) -> Iterator[Evidence]:
    copied: Instruction | None = None
    before: set[str] = set()
    for one in instructions:
        if one.name in ("COPY", "ADD") and copied is None and _brings_sources(subject, one):
            copied = one
        for command in one.commands:
            kind = _installs(command)
            if kind and copied is None:
                before.add(kind)
            # What was installed before the copy is in the cache already, and one report for each ecosystem is enough.
            elif kind and copied is not None and kind not in before:
                before.add(kind)
                text = f"{copied.name} {copied.text}"[:80]
                yield evidence(
                    subject, one, f"{' '.join(command.words)[:80]} runs after the source code was copied ({text})"
                )


def _installs(command: Command) -> str:
    """Return the ecosystem whose dependencies the command installs. Empty: none.

    Installing the project itself (``pip install .``) does not count: it needs the source code.
    """
    manager = manager_of(command)
    if manager is not None:
        return manager.name if verb(command, manager) in manager.install else ""
    name, operands = command.name, command.operands
    if name.startswith("python") and command.words[1:3] == ("-m", "pip"):
        name, operands = "pip", command.words[3:]
    kind, verbs = _INSTALLS.get(name, ("", ()))
    action = operands[0] if operands else ""
    if action not in verbs or (name == "go" and action == "mod" and "download" not in operands):
        return ""
    own = any(word in (".", "./") or word.startswith((".[", "./", "/")) for word in operands[1:])
    return "" if kind == "pip" and own and not command.has("-r", "--requirement") else kind


def _brings_sources(subject: ImageSubject, one: Instruction) -> bool:
    """Return whether a COPY added source code: by its files, or by its arguments if the layer is unreadable."""
    words = [word for word in one.text.split() if not word.startswith("--")]
    # BuildKit records absolute paths for copies from other stages, relative ones for the build context.
    sources = [word for word in words[:-1] if not word.startswith("/") and "://" not in word and word != "in"]
    if not sources:
        return False
    if subject.rootfs is None or one.layer is None:
        return any(word in (".", "./", "*", "./*") or word.startswith("dir:") for word in sources)
    return _holds_sources(subject.rootfs.layers[one.layer])


def _holds_sources(layer: LayerFacts) -> bool:
    found = 0
    for entry in layer.entries:
        if entry.type is FileType.FILE and "/node_modules/" not in entry.path and "-packages/" not in entry.path:
            found += bool(_SOURCE.search(entry.path)) and not _MANIFEST.search(entry.path)
            if entry.path.endswith(("etc/os-release", "etc/passwd")):
                return False  # a root file system
    return found > 0
