"""The contract of a workload source: documents (or a running engine) in, workloads out."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from scanner.errors import UsageError
from scanner.files import read_whole
from scanner.model.workload import Origin, Place, Workload
from scanner.workloads._documents import MAX_BYTES, Document, escaped, parse

_MAX_FILES = 10_000
_SUFFIXES = (".yaml", ".yml", ".json")


class Files(Protocol):
    """Reads the further files that a document names (``extends``, ``env_file``, ``include``)."""

    def read(self, name: str, beside: str) -> str:
        """The text of a file, its name taken relative to the file ``beside``. Raises UsageError."""


class NoFiles:
    """Where a document arrives alone, as at a server: it must not name other files, and nothing here opens them."""

    def read(self, name: str, beside: str) -> str:
        """See ``Files.read``."""
        raise UsageError(
            f"the document names the file {name!r}, which was not sent with it",
            reason="bad_workload",
            hint="send the merged document, for example the output of: docker compose config",
        )


class LocalFiles:
    """Files of this machine, for the command line: a user audits files that the user can read anyway."""

    def read(self, name: str, beside: str) -> str:
        """See ``Files.read``."""
        return read_file(Path(beside).parent / name)


class WorkloadSource(ABC):
    """A way to run containers. ``id`` is what ``audit`` takes before the colon.

    ``yaml_1_1`` says how the source's own tools read plain scalars; ``compose_tags`` whether its documents have them.
    ``directories``: a directory of manifests may be named, as with ``kubectl apply -f DIR``.
    ``targets`` are pairs of what ``audit`` takes and what is read, in Markdown, for help texts and
    ``docs/workloads.md``; none: ``ID:FILE`` and the title.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    targets: ClassVar[tuple[tuple[str, str], ...]] = ()
    yaml_1_1: ClassVar[bool] = False
    compose_tags: ClassVar[bool] = False
    directories: ClassVar[bool] = False

    @abstractmethod
    def recognises(self, document: Document) -> bool:
        """Whether a document looks like this source's. Cheap, and never raises."""

    @abstractmethod
    def read(self, documents: Sequence[Document], files: Files) -> tuple[Workload, ...]:
        """The workloads of documents of this source, in order; several documents belong together.

        Raises UsageError with file, line and column for a document that is none of this source's, or that is broken.
        """

    def parse(self, text: str | bytes, file: str = "", files: Files | None = None) -> tuple[Workload, ...]:
        """The workloads of one text. Raises UsageError as ``read`` does, also for a text without any document."""
        return self.read(self.documents(text, file), files or NoFiles())

    def documents(self, text: str | bytes, file: str = "") -> tuple[Document, ...]:
        """The documents of one text, read as this source's own tools read them.

        Raises UsageError; never returns none.
        """
        found = parse(text, file, yaml_1_1=self.yaml_1_1, compose_tags=self.compose_tags)
        if not found:
            raise UsageError(f"{file or 'the document'}: there is no document in it", reason="bad_workload")
        return found

    def load(self, target: str, stdin: Callable[[], bytes]) -> tuple[Workload, ...]:
        """The workloads of what ``audit`` was given after the colon: FILE, FILE,FILE, DIR, or ``-`` for standard input.

        Raises UsageError; also where there is nothing to read.
        """
        return self.read(
            [
                document
                for name, text in read_texts(target, stdin, directories=self.directories)
                for document in self.documents(text, name)
            ],
            LocalFiles(),
        )

    def running(self) -> tuple[Workload, ...]:
        """What runs now, where the source has an engine to ask. Raises UsageError where it has none."""
        raise UsageError(f"{self.id} takes a file: {self.id}:FILE")


def read_file(path: Path) -> str:
    """The text of a file. Raises UsageError naming it."""
    try:
        return read_whole(path, MAX_BYTES, reason="bad_workload").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})", reason="bad_workload") from None


def read_texts(
    target: str, stdin: Callable[[], bytes], *, directories: bool = False
) -> Sequence[tuple[str, str | bytes]]:
    """What a target names: file name and text of each. Raises UsageError."""
    if target == "-":
        return [("standard input", stdin())]
    found: list[tuple[str, str | bytes]] = []
    for name in target.split(","):
        path = Path(name)
        if path.is_dir() and directories:
            found.extend(_read_directory(path))
        else:
            found.append((name, read_file(path)))
    return found


def _read_directory(directory: Path) -> Iterator[tuple[str, str]]:
    """The manifests in a directory, by path. Bounded: somebody may name /tmp or / by mistake."""
    inside: list[Path] = []
    for entries, (folder, _, names) in enumerate(os.walk(directory)):
        inside += (Path(folder, name) for name in names if name.endswith(_SUFFIXES))
        if entries > _MAX_FILES or len(inside) > _MAX_FILES:
            what = f"more than {_MAX_FILES:,} files or directories"
            raise UsageError(f"{directory}: {what}", reason="bad_workload", hint="name a directory of manifests")
    if not inside:
        raise UsageError(f"{directory}: no {', '.join(_SUFFIXES)} file in it", reason="bad_workload")
    total = 0
    for path in sorted(inside):
        if not path.is_file():  # a pipe or a dangling link among the manifests
            continue
        text = read_file(path)
        total += len(text)
        if total > MAX_BYTES:
            raise UsageError(f"{directory}: more than {MAX_BYTES >> 20} MiB of manifests", reason="bad_workload")
        yield str(path), text


@dataclass(frozen=True)
class NodeOrigin(Origin):
    """Places by paths from a container's node, or from another node of its documents.

    ``paths`` maps a field of the workload to the paths at which it may be said, the most telling first:
    ``securityContext/privileged`` from the container, ``pod:hostNetwork`` from the node that ``roots`` names
    ``pod``.
    """

    base: Node
    paths: Mapping[str, tuple[str, ...]]
    roots: Mapping[str, Node]

    def place(self, *names: str) -> Place:
        """See ``Origin.place``."""
        for name in names:
            field, _, rest = name.partition("/")
            for path in self.paths.get(field, ()):
                found = self._node(path, rest)
                if found is not None:
                    return found.document.place(found.pointer)
        return self.base.document.place(self.base.pointer)

    def _node(self, path: str, rest: str) -> Node | None:
        root, colon, inside = path.partition(":")
        node = self.roots[root] if colon else self.base
        for step in filter(None, [*(inside if colon else path).split("/"), *rest.split("/")]):
            found = node.child(step)
            if found is None:
                return None
            node = found
        return node


class Node:
    """A value of a document with its pointer: typed access that names the place of what has the wrong type.

    Sources read through this, so a broken document is refused at its line instead of being misread.
    """

    __slots__ = ("document", "pointer", "value")

    def __init__(self, document: Document, pointer: str = "", value: Any = None) -> None:
        self.document = document
        self.pointer = pointer
        self.value = document.value if not pointer and value is None else value

    def get(self, key: str) -> Node:
        """A member of a mapping; a node whose value is None where it is missing.

        A value that was merged from several documents is a Node itself, which knows the document that it came from.
        """
        value = self.value.get(key) if isinstance(self.value, dict) else None
        return value if isinstance(value, Node) else Node.of(self.document, f"{self.pointer}/{escaped(key)}", value)

    def child(self, step: str) -> Node | None:
        """The member or item that one step of a JSON pointer names; None where there is none."""
        if isinstance(self.value, dict) and step in self.value:
            return self.get(step)
        if isinstance(self.value, list) and step.isascii() and step.isdigit() and int(step) < len(self.value):
            return self.items()[int(step)]
        return None

    @classmethod
    def of(cls, document: Document, pointer: str, value: Any) -> Node:
        """A node for a value that was already looked up."""
        node = cls.__new__(cls)
        node.document, node.pointer, node.value = document, pointer, value
        return node

    def at(self, *keys: str) -> Node:
        """A member of a member …"""
        node = self
        for key in keys:
            node = node.mapping().get(key) if node.value is not None else node.get(key)
        return node

    def mapping(self) -> Node:
        """This node, whose value is a mapping or None. Raises UsageError otherwise."""
        if self.value is not None and not isinstance(self.value, dict):
            raise self.error("must be a mapping")
        return self

    def members(self) -> list[tuple[str, Node]]:
        """The members of a mapping, in order; none where it is missing."""
        return [(key, self.get(key)) for key in (self.mapping().value or {})]

    def items(self) -> list[Node]:
        """The items of a list; none where it is missing. Raises UsageError for anything else."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            raise self.error("must be a list")
        return [
            value if isinstance(value, Node) else Node.of(self.document, f"{self.pointer}/{i}", value)
            for i, value in enumerate(self.value)
        ]

    def text(self) -> str | None:
        """A text, or a number as text; None where it is missing."""
        if self.value is None or isinstance(self.value, str):
            return self.value
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        if isinstance(self.value, int | float):
            return str(self.value)
        raise self.error("must be text")

    def texts(self) -> tuple[str, ...]:
        """A list of texts; empty where it is missing."""
        return tuple(item.text() or "" for item in self.items())

    def boolean(self) -> bool | None:
        """A boolean, or None where it is missing."""
        if self.value is None or isinstance(self.value, bool):
            return self.value
        raise self.error("must be true or false")

    def integer(self) -> int | None:
        """A whole number, or None where it is missing."""
        if self.value is None or (isinstance(self.value, int) and not isinstance(self.value, bool)):
            return self.value
        if isinstance(self.value, float) and self.value.is_integer():
            return int(self.value)
        raise self.error("must be a whole number")

    def number(self) -> float | None:
        """A number, or None where it is missing."""
        if self.value is None or (isinstance(self.value, int | float) and not isinstance(self.value, bool)):
            return None if self.value is None else float(self.value)
        raise self.error("must be a number")

    def error(self, message: str) -> UsageError:
        """An error at this node's place: ``web.yaml:12:7: spec.containers must be a list``."""
        path = ".".join(part.replace("~1", "/").replace("~0", "~") for part in self.pointer.split("/")[1:])
        return self.document.error(f"{path or 'the document'} {message}", self.pointer)


def targets_of(sources: Iterable[WorkloadSource]) -> tuple[tuple[str, str], ...]:
    """Every target that ``audit`` takes, and what is read."""
    found = [target for each in sources for target in each.targets or ((f"{each.id}:FILE", each.title),)]
    return (*found, ("FILE", "any of these documents, recognised from its content"))


def target_table(sources: Iterable[WorkloadSource]) -> str:
    """The table of targets for ``docs/workloads.md``."""
    rows = (f"| `{name}` | {text} |" for name, text in targets_of(sources))
    return "\n".join(
        ("| target | reads |", "|---|---|", *(row.replace("FILE|DIR|-", "FILE\\|DIR\\|-") for row in rows))
    )
