"""The interface of workload sources, which convert documents or a running engine to workloads."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

from scanner.errors import UsageError
from scanner.files import read_whole
from scanner.lazy_dataclasses import dataclass
from scanner.model.workload import Origin, Place, Workload
from scanner.workloads._documents import (
    MAX_BYTES,
    Document,
    Positions,
    decoded,
    escape_step,
    item_number,
    parse,
    steps,
)
from scanner.workloads._quantities import MOST

_MAX_FILES = 10_000  # of one directory
_SUFFIXES = (".yaml", ".yml", ".json")


class Files(Protocol):
    """Reads files that a document refers to (``extends``, ``env_file``, ``include``)."""

    def read(self, name: str, beside: str) -> str:
        """Return the text of a file. ``name`` is relative to the file ``beside``. Raises UsageError."""


class NoFiles:
    """Refuses to read files. For documents that were sent to a server, whose files they must not read."""

    def read(self, name: str, beside: str) -> str:
        """See ``Files.read``."""
        raise UsageError(
            f"the document refers to the file {name!r}, which was not sent",
            reason="bad_workload",
            hint="send the merged document, for example the output of: docker compose config",
        )


class LocalFiles:
    """Reads files of this machine, for the command line: the user can read them anyway."""

    def read(self, name: str, beside: str) -> str:
        """See ``Files.read``."""
        # No restriction to a directory on purpose: Compose files refer to their parents, and the user reads their own
        # files.
        return read_file(Path(beside).parent / name)


class WorkloadSource(ABC):
    """A kind of workload definitions, such as Kubernetes manifests.

    ``id``: the part of an ``audit`` target before the colon. ``yaml_1_1``: the source's own tools parse booleans by
    YAML 1.1. ``compose_tags``: its documents may contain ``!reset`` and ``!override``. ``directories``: a target may be
    a directory of manifests, as with ``kubectl apply -f DIR``. ``targets``: pairs of target and description, in
    Markdown, for help texts and ``docs/workloads.md``; if empty, ``ID:FILE`` and the title are used.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    targets: ClassVar[tuple[tuple[str, str], ...]] = ()
    yaml_1_1: ClassVar[bool] = False
    compose_tags: ClassVar[bool] = False
    directories: ClassVar[bool] = False

    @abstractmethod
    def recognises(self, document: Document) -> bool:
        """Return whether a document looks like this source's. Must be fast and must not raise."""

    @abstractmethod
    def read(self, documents: Sequence[Document], files: Files) -> tuple[Workload, ...]:
        """Return the workloads of documents, in order. Documents may refer to each other.

        Raises UsageError with file, line and column for an invalid document or one of another source.
        """

    def parse(self, text: str | bytes, file: str = "", files: Files | None = None) -> tuple[Workload, ...]:
        """Return the workloads of a text. Raises UsageError as ``read``, and for a text without documents."""
        return self.read(self.documents(text, file), files or NoFiles())

    def documents(self, text: str | bytes, file: str = "") -> tuple[Document, ...]:
        """Parse a text like this source's own tools. Raises UsageError, also for a text without documents."""
        found = parse(text, file, yaml_1_1=self.yaml_1_1, compose_tags=self.compose_tags)
        if not found:
            raise UsageError(f"{file or 'the document'}: it contains no document", reason="bad_workload")
        return found

    def load(self, target: str, stdin: Callable[[], bytes]) -> tuple[Workload, ...]:
        """Return the workloads of an ``audit`` target: FILE, FILE,FILE, DIR, or ``-`` for standard input.

        Raises UsageError, also for an empty directory.
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
        """Return the running workloads. Raises UsageError if the source has no engine."""
        raise UsageError(f"{self.id} needs a file: write {self.id}:FILE")


def read_file(path: Path) -> str:
    """Return the text of a file. Raises UsageError with its name."""
    return decoded(read_whole(path, MAX_BYTES, reason="bad_workload"), str(path))


def read_texts(
    target: str, stdin: Callable[[], bytes], *, directories: bool = False
) -> Sequence[tuple[str, str | bytes]]:
    """Return name and text of each file of a target. Raises UsageError."""
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
    """Yield path and text of the manifests in a directory. Limited, because / or /tmp may be given by mistake."""
    inside: list[Path] = []
    for entries, (folder, _, names) in enumerate(os.walk(directory)):
        inside += (Path(folder, name) for name in names if name.endswith(_SUFFIXES))
        if entries > _MAX_FILES or len(inside) > _MAX_FILES:
            what = f"more than {_MAX_FILES:,} files or directories"
            raise UsageError(f"{directory}: {what}", reason="bad_workload", hint="name a directory of manifests")
    if not inside:
        raise UsageError(f"{directory}: no {', '.join(_SUFFIXES)} file found", reason="bad_workload")
    total = 0
    for path in sorted(inside):
        if not path.is_file():  # a pipe or a dangling link among the manifests
            continue
        text = read_file(path)
        # The files together have the limit of one file: they are parsed as one stream, in memory.
        total += len(text)
        if total > MAX_BYTES:
            raise UsageError(f"{directory}: more than {MAX_BYTES >> 20} MiB of manifests", reason="bad_workload")
        yield str(path), text


@dataclass(frozen=True, slots=True)
class NodeOrigin(Origin):
    """Positions of a workload's fields in its documents.

    ``paths``: for each field, the paths where it may be set, by precedence. ``securityContext/privileged`` starts at
    ``base`` (the container), ``pod:hostNetwork`` at the node ``pod`` of ``roots``.
    """

    base: Node
    paths: Mapping[str, tuple[str, ...]]
    roots: Mapping[str, Node]
    _starts: dict[str, _Start | None] = field(default_factory=dict, compare=False, repr=False)

    def place(self, *names: str) -> Place:
        """See ``Origin.place``."""
        for name in names:
            field, _, rest = name.partition("/")
            for path in self.paths.get(field, ()):
                root, route = _route(path, rest)
                start = self._start(root)
                if start is not None:
                    found = start.place(route)
                else:
                    node = self._node(root, route)
                    found = node.document.place(node.pointer) if node is not None else None
                if found is not None:
                    return found
        return self.base.document.place(self.base.pointer)

    def _start(self, root: str) -> _Start | None:
        if root not in self._starts:
            self._starts[root] = _Start.of(self.roots[root] if root else self.base)
        return self._starts[root]

    def _node(self, root: str, route: Iterable[str]) -> Node | None:
        node = self.roots[root] if root else self.base
        for step in route:
            found = node.child(step) or _item_called(node, step)
            if found is None:
                return None
            node = found
        return node


@lru_cache(maxsize=1024)
def _route(path: str, rest: str) -> tuple[str, tuple[str, ...]]:
    """Return the root (empty: the container) and the steps of a path, and of what the name adds to it."""
    root, _, inside = path.rpartition(":")
    return root, tuple(filter(None, [*inside.split("/"), *rest.split("/")]))


@dataclass(frozen=True, slots=True)
class _Start:
    """A value whose positions were recorded. Its members are found without a Node for each: most findings are."""

    document: Document
    positions: Positions
    pointer: str
    index: int
    value: Any

    @classmethod
    def of(cls, node: Node) -> _Start | None:
        """Return the start of a node. None: its value was made from several, so each has its own document."""
        positions = node.document.positions
        if positions is None or node.value is None:
            return None
        index, value, _ = positions.walk(0, node.document.value, steps(node.pointer))
        return cls(node.document, positions, node.pointer, index, value) if value is node.value else None

    def place(self, route: Sequence[str]) -> Place | None:
        """Return the position of a value below it, or None if it does not exist."""
        value, index, pointer = self.value, self.index, self.pointer
        for step in route:
            if isinstance(value, dict) and step in value:
                index = self.positions.member(index, value, step)
                value, pointer = value[step], f"{pointer}/{escape_step(step)}"
            elif isinstance(value, list):
                number = item_number(step, len(value))
                if number is None:
                    number = _number_called(value, step)
                if number is None:
                    return None
                index = self.positions.item(index, value, number)
                value, pointer = value[number], f"{pointer}/{number}"
            else:
                return None
        return self.document.recorded(index, pointer)


_MOST_CALLED = 1000  # items of a list that are looked through for a name


def _item_called(node: Node, name: str) -> Node | None:
    """Return the item of a list that sets ``name``; see ``_number_called``."""
    if not isinstance(node.value, list):
        return None
    items = node.items()
    number = _number_called([item.value for item in items], name)
    return None if number is None else items[number]


def _number_called(values: Sequence[Any], name: str) -> int | None:
    """Return the number of the item that sets ``name``: ``NAME=value``, ``name:value``, ``NAME``, or a mapping with
    that name.
    """
    if len(values) > _MOST_CALLED:
        return None
    for number, value in enumerate(values):
        found = value.get("name") if isinstance(value, dict) else value
        if isinstance(found, str) and re.split("[=:]", found, maxsplit=1)[0].removeprefix("CAP_") == name:
            return number
    return None


class Node:
    """A value of a document with its JSON pointer and typed accessors.

    Accessors raise UsageError with the position of a value of the wrong type, so an invalid document is refused instead
    of misread. A missing value is a node with the value None.
    """

    __slots__ = ("_parent", "_pointer", "_step", "document", "value")
    _parent: Node
    _pointer: str | None  # None: derived from the parent on demand, which few members need
    _step: str

    def __init__(self, document: Document, pointer: str = "", value: Any = None) -> None:
        self.document = document
        self._pointer = pointer
        self.value = document.value if not pointer and value is None else value

    @property
    def pointer(self) -> str:
        """The JSON pointer of the value within its document."""
        if self._pointer is None:
            self._pointer = f"{self._parent.pointer}/{escape_step(self._step)}"
        return self._pointer

    def get(self, key: str) -> Node:
        """Return a member of a mapping, or a missing value of a missing one. Raises UsageError for other types.

        Values that were merged from several documents are Nodes themselves and keep their document.
        """
        own = self.value
        if isinstance(own, dict):
            value = own.get(key)
        elif own is None:
            value = None
        else:
            raise self.error("must be a mapping")
        if isinstance(value, Node):
            return value
        # ``_member``, written out: reading a workload asks for some sixty members, of which it has ten.
        node = _new(Node)
        node.document, node.value = self.document, value
        node._parent, node._step, node._pointer = self, key, None
        return node

    def _member(self, step: str, value: Any) -> Node:
        node = Node.__new__(Node)
        node.document, node.value = self.document, value
        node._parent, node._step, node._pointer = self, step, None
        return node

    def child(self, step: str) -> Node | None:
        """Return the member or item for a step of a JSON pointer, or None."""
        if isinstance(self.value, dict) and step in self.value:
            return self.get(step)
        if isinstance(self.value, list) and (number := item_number(step, len(self.value))) is not None:
            value = self.value[number]
            return value if isinstance(value, Node) else self._member(step, value)
        return None

    @classmethod
    def of(cls, document: Document, pointer: str, value: Any) -> Node:
        """Return a node for a value that was looked up before."""
        node = cls.__new__(cls)
        node.document, node._pointer, node.value = document, pointer, value
        return node

    def at(self, *keys: str) -> Node:
        """Return a nested member."""
        node = self
        for key in keys:
            node = node.mapping().get(key) if node.value is not None else node.get(key)
        return node

    def mapping(self) -> Node:
        """Return this node if its value is a mapping or missing. Raises UsageError otherwise."""
        if self.value is not None and not isinstance(self.value, dict):
            raise self.error("must be a mapping")
        return self

    def members(self) -> list[tuple[str, Node]]:
        """Return the members of a mapping, in order. Empty if missing."""
        return [(key, self.get(key)) for key in (self.mapping().value or {})]

    def items(self) -> list[Node]:
        """Return the items of a list. Empty if missing. Raises UsageError for other types."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            raise self.error("must be a list")
        return [value if isinstance(value, Node) else self._member(str(i), value) for i, value in enumerate(self.value)]

    def text(self) -> str | None:
        """Return a text, or a number or boolean as text. None if missing."""
        if self.value is None or isinstance(self.value, str):
            return self.value
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        if isinstance(self.value, int | float):
            return str(self.value)
        raise self.error("must be text")

    def string_of(self, key: str) -> str | None:
        """Return ``get(key).string()`` without a node for it: a workload has sixty members, of which few are set."""
        own = self.value
        value = own.get(key) if isinstance(own, dict) else own
        return value if value is None or (isinstance(value, str) and own is not value) else self.get(key).string()

    def boolean_of(self, key: str) -> bool | None:
        """Return ``get(key).boolean()``. See ``string_of``."""
        own = self.value
        value = own.get(key) if isinstance(own, dict) else own
        return value if value is None or (isinstance(value, bool) and own is not value) else self.get(key).boolean()

    def integer_of(self, key: str) -> int | None:
        """Return ``get(key).integer()``. See ``string_of``."""
        own = self.value
        return None if own is None or (isinstance(own, dict) and own.get(key) is None) else self.get(key).integer()

    def texts(self) -> tuple[str, ...]:
        """Return a list of texts. Empty if missing."""
        return tuple(item.text() or "" for item in self.items())

    def string(self) -> str | None:
        """Return a text, or None if missing. Raises UsageError for a number or a boolean.

        The runtime refuses these where it wants text, and as text they are something else: 1.10 is 1.1, no is false.
        """
        if self.value is not None and not isinstance(self.value, str):
            scalar = isinstance(self.value, int | float)
            raise self.error(f"must be text{': write it in quotes' if scalar else ''}")
        return self.value

    def strings(self) -> tuple[str, ...]:
        """Return a list of texts, each as ``string``. Empty if missing."""
        return tuple(item.string() or "" for item in self.items())

    def boolean(self) -> bool | None:
        """Return a boolean, or None if missing."""
        if self.value is None or isinstance(self.value, bool):
            return self.value
        raise self.error("must be true or false")

    def integer(self) -> int | None:
        """Return an integer, or None if missing."""
        value = self.value
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        # `True` is an int in Python. `replicas: yes` is a mistake, and not one replica.
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error("must be a whole number")
        if abs(value) > MOST:
            raise self.error("must be a whole number of at most 64 bits")
        return value

    def number(self) -> float | None:
        """Return a number, or None if missing."""
        if self.value is None:
            return None
        if not isinstance(self.value, int | float) or isinstance(self.value, bool):
            raise self.error("must be a number")
        if not abs(self.value) <= MOST:  # true for NaN as well
            raise self.error("must be a number of at most 64 bits")
        return float(self.value)

    def error(self, message: str) -> UsageError:
        """Return an error with this node's position: ``web.yaml:12:7: spec.containers must be a list``."""
        path = ".".join(part.replace("~1", "/").replace("~0", "~") for part in self.pointer.split("/")[1:])
        return self.document.error(f"{path or 'the document'} {message}", self.pointer)


_new = Node.__new__


def targets_of(sources: Iterable[WorkloadSource]) -> tuple[tuple[str, str], ...]:
    """Return every target that ``audit`` accepts, with its description."""
    found = [target for each in sources for target in each.targets or ((f"{each.id}:FILE", each.title),)]
    found.append(("dockerfile:FILE", "Dockerfiles, by the image checks that need no files"))
    return (*found, ("FILE", "any of these documents, detected from its content, or a Dockerfile by its name"))


def target_table(sources: Iterable[WorkloadSource]) -> str:
    """Return the table of targets for ``docs/workloads.md``, in Markdown."""
    rows = (f"| `{name}` | {text} |" for name, text in targets_of(sources))
    return "\n".join(
        ("| target | reads |", "|---|---|", *(row.replace("FILE|DIR|-", "FILE\\|DIR\\|-") for row in rows))
    )
