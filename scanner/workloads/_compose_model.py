"""The merged model of Compose files: interpolation, ``include``, several files, ``extends``.

https://github.com/compose-spec/compose-spec/blob/main/13-merge.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scanner.errors import UsageError
from scanner.patterns import lazy
from scanner.workloads._compose_interpolation import InterpolationError, interpolate, needed_variable
from scanner.workloads._documents import Document, Override, Reset, escape_step, parse
from scanner.workloads.base import Files, Node

_MAX_DEPTH = 20
# Fields of a service whose empty value is a harmless default: what is required and not set must not look like it.
_DECISIVE = lazy(
    r"/services/[^/]+/(?:user|network_mode|pid|ipc|uts|userns_mode|cgroup|cap_add|cap_drop|security_opt|group_add)"
    r"(?:/|$)"
)
# Lists that a later file replaces. Other lists are appended to.
_REPLACED_LISTS = frozenset(("command", "entrypoint", "test"))
# Fields that may be a list of NAME=value or a mapping.
_MAPS = frozenset(("environment", "labels", "sysctls", "annotations", "extra_hosts", "args", "driver_opts", "options"))


def assemble(documents: Sequence[Document], files: Files, variables: Mapping[str, str]) -> Node:
    """Merge all documents in order and resolve ``include`` and ``extends``.

    Its values are Nodes that keep their document and pointer. Raises UsageError.
    """
    merged: Node | None = None
    for document in documents:
        node = _with_includes(_interpolate_document(document, variables), files, variables, 0)
        merged = node if merged is None else _merge(merged, node, "")
    if merged is None:
        raise UsageError("no Compose file was given", reason="bad_workload")
    services = merged.get("services").mapping()
    if services.value is None:
        raise merged.error("is not a Compose file: it has no services")
    resolver = _Extends(merged, files, variables)
    expanded = {
        name: resolver.service(name, node, ()) for name, node in services.members() if not isinstance(node.value, Reset)
    }
    if not expanded:
        raise services.error("is empty: nothing would be started")
    return _without_tags(
        Node.of(
            merged.document, "", {**merged.value, "services": Node.of(services.document, services.pointer, expanded)}
        )
    )


def _without_tags(node: Node) -> Node:
    """Return the node without ``!reset`` and ``!override`` of values that no earlier file has.

    Compose removes what ``!reset`` stands before, and keeps what ``!override`` does, also in a single file.
    """
    value = node.value
    if isinstance(value, Override):
        inner = value.value
        return _without_tags(inner if isinstance(inner, Node) else Node.of(node.document, node.pointer, inner))
    if isinstance(value, dict):
        value = {key: _without_tags(child) for key, child in node.members() if not isinstance(child.value, Reset)}
    elif isinstance(value, list):
        value = [_without_tags(child) for child in node.items() if not isinstance(child.value, Reset)]
    return Node.of(node.document, node.pointer, value)


def _interpolate_document(document: Document, variables: Mapping[str, str]) -> Node:
    def walk(value: Any, pointer: str) -> Node:
        if isinstance(value, str) and "$" in value:
            if _DECISIVE.match(pointer) and (name := needed_variable(value, variables)):
                raise document.error(f"needs the variable {name}: set it, or audit docker compose config", pointer)
            try:
                value = interpolate(value, variables)
            except InterpolationError as error:
                raise document.error(str(error), pointer) from None
        elif isinstance(value, dict):
            value = {key: walk(each, f"{pointer}/{escape_step(key)}") for key, each in value.items()}
        elif isinstance(value, list):
            value = [walk(each, f"{pointer}/{number}") for number, each in enumerate(value)]
        elif isinstance(value, Override):
            value = Override(walk(value.value, pointer))
        return Node.of(document, pointer, value)

    if not isinstance(document.value, dict):
        raise document.error("not a Compose file: a mapping is needed")
    return walk(document.value, "")


def _with_includes(node: Node, files: Files, variables: Mapping[str, str], depth: int) -> Node:
    """Merge the included files under the node, whose own values win."""
    merged: Node | None = None
    for entry in node.get("include").items():
        # A file can include itself, by way of others.
        if depth >= _MAX_DEPTH:
            raise entry.error("is nested too deeply")
        path = entry.get("path") if isinstance(entry.value, dict) else entry
        for name in path.texts() if isinstance(path.value, list) else (path.text() or "",):
            for document in _read_project(name, node, entry, files):
                inner = _with_includes(_interpolate_document(document, variables), files, variables, depth + 1)
                merged = inner if merged is None else _merge(merged, inner, "")
    return node if merged is None else _merge(merged, node, "")


def _read_project(name: str, near: Node, asking: Node, files: Files) -> Sequence[Document]:
    try:
        text = files.read(name, near.document.file)
    except UsageError as error:
        # With the place that names the file: the user has to mend that line, and not the missing file.
        refused = asking.error(f"cannot be read: {error}")
        refused.hint = error.hint
        raise refused from None
    return parse(text, name, compose_tags=True)


def _merge(base: Node, over: Node, key: str) -> Node:
    """Merge ``over`` (the later file) into ``base`` by the rules of the Compose Specification."""
    if isinstance(over.value, Override):
        value = over.value.value
        return value if isinstance(value, Node) else Node.of(over.document, over.pointer, value)
    if isinstance(over.value, Reset):
        return over  # removed at the end: a service can be reset as a whole
    # An empty member in a later file changes nothing. Only `!reset` removes a value.
    if over.value is None or isinstance(base.value, Override | Reset):
        return base if over.value is None else over
    if key in _MAPS:
        base, over = as_mapping(base), as_mapping(over)
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        merged = dict(base.members())
        for name, node in over.members():
            merged[name] = _merge(merged[name], node, name) if name in merged else node
        return Node.of(over.document, over.pointer, merged)
    if isinstance(base.value, list) and isinstance(over.value, list) and key not in _REPLACED_LISTS:
        return Node.of(over.document, over.pointer, _merged_lists(base.items(), over.items(), key))
    return over


def _merged_lists(base: list[Node], over: list[Node], key: str) -> list[Node]:
    identity = _identity(key)
    found = {identity(node): node for node in base}
    found.update({identity(node): node for node in over})
    return list(found.values())


def _identity(key: str) -> Callable[[Node], str]:
    """Return the merge key of list items: the target of mounts, the name of secrets, otherwise the whole item."""

    def volume(node: Node) -> str:
        if isinstance(node.value, dict):
            return node.get("target").text() or ""
        parts = (node.text() or "").split(":")
        return parts[1] if len(parts) > 1 else parts[0]

    def named(node: Node) -> str:
        if isinstance(node.value, dict):
            return node.get("target").text() or node.get("source").text() or ""
        return node.text() or ""

    def whole(node: Node) -> str:
        return repr(plain_value(node))

    return {"volumes": volume, "secrets": named, "configs": named, "devices": volume}.get(key, whole)


def plain_value(node: Node) -> Any:
    """Return the value without positions."""
    if isinstance(node.value, dict):
        return {key: plain_value(child) for key, child in node.members()}
    if isinstance(node.value, list):
        return [plain_value(child) for child in node.items()]
    return node.value


def as_mapping(node: Node) -> Node:
    """Return a list of ``NAME=value`` as a mapping. The value of a name alone is None. Mappings are unchanged."""
    if not isinstance(node.value, list):
        return node.mapping()
    found: dict[str, Node] = {}
    for item in node.items():
        text = item.text() or ""
        separator = "=" if "=" in text else ":"
        name, given, value = text.partition(separator)
        found[name] = Node.of(item.document, item.pointer, value if given else None)
    return Node.of(node.document, node.pointer, found)


class _Extends:
    """Resolves ``extends`` of services.

    https://github.com/compose-spec/compose-spec/blob/main/05-services.md#extends
    """

    def __init__(self, project: Node, files: Files, variables: Mapping[str, str]) -> None:
        self._project, self._files, self._variables = project, files, variables
        self._others: dict[str, Node] = {}

    def service(self, name: str, node: Node, on_the_way: tuple[str, ...], project: Node | None = None) -> Node:
        """Return a service with ``extends`` resolved. Raises UsageError for a cycle or an unknown service."""
        project = project or self._project
        extends = node.mapping().get("extends") if node.value is not None else node.get("extends")
        if extends.value is None or isinstance(extends.value, Reset):
            return node
        key = f"{node.document.file}\0{name}"
        # By file and name: the same service name in another file is another service.
        if key in on_the_way or len(on_the_way) >= _MAX_DEPTH:
            raise extends.error("is circular or too deep")
        is_text = isinstance(extends.value, str)
        other = extends.text() if is_text else extends.mapping().get("service").text()
        file = None if is_text else extends.get("file").text()
        if file is not None:
            project = self._file(file, extends)
        base = project.get("services").get(other or "")
        if base.value is None:
            raise extends.error(f"refers to the service {other!r}, which does not exist")
        expanded = self.service(other or "", base, (*on_the_way, key), project)
        # `extends` is resolved by now. Compose never inherits `depends_on`: the other service may be in another file.
        kept = {each: value for each, value in expanded.members() if each not in ("extends", "depends_on")}
        return _merge(Node.of(expanded.document, expanded.pointer, kept), node, "")

    def _file(self, name: str, extends: Node) -> Node:
        if name not in self._others:
            documents = _read_project(name, extends, extends, self._files)
            merged = _interpolate_document(documents[0], self._variables) if documents else None
            if merged is None:
                raise extends.error(f"refers to the file {name!r}, which is empty")
            for document in documents[1:]:
                merged = _merge(merged, _interpolate_document(document, self._variables), "")
            self._others[name] = merged
        return self._others[name]
