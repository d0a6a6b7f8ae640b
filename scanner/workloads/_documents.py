"""A strict parser for YAML and JSON documents with the positions of values.

Documents are untrusted. libyaml refuses more than 1,000 levels; this module limits size, number of documents and
number of values after alias expansion (the "billion laughs" attack). Duplicate keys are refused: another parser may
use the other value, so that the audited document differs from the one that runs (as in CVE-2017-12635 of CouchDB).

JSON is parsed by Python's json module, which is faster and accepts escapes that libyaml refuses. Positions in JSON
are computed by libyaml when they are needed. The parser's tree is not kept: a stream of 10,000 manifests has
millions of its objects, and the garbage collector would visit all of them again and again. YAML's positions are
recorded in flat arrays while the values are built, so that no document is parsed twice.
"""

from __future__ import annotations

import json
import operator
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import yaml

from scanner.errors import UsageError
from scanner.model.untrusted import clean_text
from scanner.model.workload import Place
from scanner.patterns import lazy

MAX_BYTES = 64 << 20
MAX_DOCUMENTS = 100_000
MAX_VALUES = 5_000_000
_MAX_VALUES_PER_DOCUMENT = 500_000
_DEPTH = 200  # nesting; Python's own stack ends at about a thousand
_SMALL = 256 << 10

_NUL = "a NUL character"
# Escapes of NUL and of half surrogates, which databases refuse.
_SUSPICIOUS = lazy(r"\\u(?:0000|[dD][89a-fA-F])")
_SURROGATE = lazy("[\ud800-\udfff]")
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))
# Booleans in YAML 1.1 and for Kubernetes (sigs.k8s.io/yaml), but text in YAML 1.2.
_TRUE_11 = _TRUE | frozenset(("yes", "Yes", "YES", "on", "On", "ON", "y", "Y"))
_FALSE_11 = _FALSE | frozenset(("no", "No", "NO", "off", "Off", "OFF", "n", "N"))
_INTEGER = lazy(r"[-+]?(?:0|[1-9][0-9_]*|0o?[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+)")
_FLOAT = lazy(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_DIRECTIVE = lazy(r"^%", re.MULTILINE)
# A Helm template is not YAML before it is rendered.
_TEMPLATE = lazy(r"\{\{")
_BLANK = lazy(r"\s*")
_MOST_DIGITS = 9  # of an item's number
_MOST_BEFORE = 1000  # characters before a JSON value in its line


_MANY = 16  # children of one value, from which they are indexed: a List of 10,000 objects is not walked for each


class Positions:
    """The positions of a document's values in depth-first order, each value directly before its children.

    A member of a mapping has the position of its key. The order is that of ``Document.value``, so a walk down both
    finds a value without keys or nodes of its own.
    """

    __slots__ = ("_indexes", "_marks", "_sizes")

    def __init__(self) -> None:
        self._marks = array("Q")  # line and column in one number
        self._sizes = array("I")  # of the value with everything below it
        self._indexes: dict[int, dict[str | int, int]] = {}  # starts of the children of large values

    def start(self, mark: Any) -> int:
        """Record the position of a value. Returns its index, for ``end``, which a value with nothing below can omit."""
        index = len(self._sizes)
        self._marks.append(mark.line << 32 | mark.column)
        self._sizes.append(1)
        return index

    def end(self, index: int) -> None:
        """Record that everything since ``start`` is below the value."""
        self._sizes[index] = len(self._sizes) - index

    def at(self, index: int) -> tuple[int, int]:
        """Return line and column, counted from 0."""
        mark = self._marks[index]
        return mark >> 32, mark & 0xFFFFFFFF

    def walk(self, index: int, value: Any, steps: Sequence[str]) -> tuple[int, Any, Sequence[str]]:
        """Follow steps from ``value``, which is the one at ``index``.

        Returns index and value of the last one that exists, and the steps that lead to it.
        """
        for number, step in enumerate(steps):
            if isinstance(value, Override):
                value = value.value
            found = self._child(index, value, step)
            if found is None:
                return index, value, steps[:number]
            index, value = found, value[step if isinstance(value, dict) else int(step)]
        return index, value, steps

    def _child(self, index: int, value: Any, step: str) -> int | None:
        """Return the index of a member or an item of ``value``, which is the one at ``index``."""
        if isinstance(value, dict) and step in value:
            return self.member(index, value, step)
        if isinstance(value, list) and (number := item_number(step, len(value))) is not None:
            return self.item(index, value, number)
        return None

    def member(self, index: int, value: Mapping[str, Any], key: str) -> int:
        """Return the index of a member, which exists, of the mapping at ``index``."""
        if len(value) > _MANY:
            return self._indexed(index, value, key)
        start, sizes = index + 1, self._sizes
        for each in value:
            if each == key:
                break
            start += sizes[start]
        return start

    def item(self, index: int, value: Sequence[Any], number: int) -> int:
        """Return the index of an item, which exists, of the list at ``index``."""
        if len(value) > _MANY:
            return self._indexed(index, range(len(value)), number)
        start, sizes = index + 1, self._sizes
        for _ in range(number):
            start += sizes[start]
        return start

    def _indexed(self, index: int, keys: Iterable[Any], place: str | int) -> int:
        if index not in self._indexes:
            self._indexes[index] = dict(zip(keys, self._starts(index), strict=False))
        return self._indexes[index][place]

    def _starts(self, index: int) -> Iterator[int]:
        """Yield where the children of the value at ``index`` start."""
        start, end = index + 1, index + self._sizes[index]
        while start < end:
            yield start
            start += self._sizes[start]


@dataclass(frozen=True)
class Document:
    """One document of a file. ``value`` consists of dict, list, str, int, float, bool and None; keys are str.

    Its positions come from the first of ``positions``, ``composed`` and ``text`` that it has.
    """

    value: Any
    file: str = ""
    number: int = 0
    text: str = field(default="", repr=False, compare=False)  # whole lines; its positions are looked up when asked for
    first_line: int = field(default=0, compare=False)  # of the text within the file, counted from 0
    composed: yaml.Node | None = field(default=None, repr=False, compare=False)  # where the text alone is not enough
    positions: Positions | None = field(default=None, repr=False, compare=False)

    @property
    def node(self) -> yaml.Node | None:
        """Return libyaml's tree with the positions within the text."""
        if self.composed is not None or not self.text:
            return self.composed
        return _composed_small(self.text) if len(self.text) < _SMALL else self._composed_large

    @cached_property
    def _composed_large(self) -> yaml.Node | None:
        return _compose_yaml(self.text)

    def place(self, pointer: str) -> Place:
        """Return the position of the value at a JSON pointer, or of its nearest existing parent.

        The position of a mapping's member is that of its key.
        """
        if self.positions is not None:
            index, _, reached = self.positions.walk(0, self.value, steps(pointer))
            return self.recorded(index, "".join(f"/{escape_step(step)}" for step in reached))
        node, mark, reached = self.node, None, []
        mark = node.start_mark if node is not None else None
        for step in steps(pointer):
            found = _child(node, step)
            if found is None:
                break
            mark, node = found
            reached.append(step)
        return Place(
            self.file,
            self.number,
            "".join(f"/{escape_step(step)}" for step in reached),
            self.first_line + mark.line + 1 if mark is not None else None,
            mark.column + 1 if mark is not None else None,
        )

    def recorded(self, index: int, pointer: str) -> Place:
        """Return the position of the value that was recorded at ``index`` and has this pointer."""
        assert self.positions is not None
        line, column = self.positions.at(index)
        return Place(self.file, self.number, pointer, line + 1, column + 1)

    def error(self, message: str, pointer: str = "") -> UsageError:
        """Return an error with the position."""
        return UsageError(f"{self.place(pointer)}: {message}", reason="bad_workload")


def _compose_yaml(text: str) -> yaml.Node | None:
    # libyaml refuses tabs as indentation, which JSON allows. They stand between values only: in text they are escaped.
    if "\t" in text and text.lstrip()[:1] in ("{", "["):
        text = text.replace("\t", " ")
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError:
        return None  # JSON that is no YAML (a surrogate pair as escapes): read, but without positions


# The findings of one document are placed one after the other. So a few trees are enough, and a stream's are never all
# in memory; a large one goes with its document.
_composed_small = lru_cache(maxsize=8)(_compose_yaml)


def steps(pointer: str) -> Sequence[str]:
    """Return the steps of a JSON pointer (RFC 6901, section 4)."""
    if "~" not in pointer:
        return pointer.split("/")[1:]
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def item_number(step: str, count: int) -> int | None:
    """Return the number of an item in a list of ``count``. None: the step names no item.

    Steps can be names in the document, such as that of a variable, and ``int`` raises for thousands of digits.
    """
    if len(step) > _MOST_DIGITS or not step.isascii() or not step.isdigit():
        return None
    return int(step) if int(step) < count else None


def escape_step(step: str) -> str:
    """Escape a step of a JSON pointer (RFC 6901, section 3)."""
    if "~" not in step and "/" not in step:
        return step
    return step.replace("~", "~0").replace("/", "~1")


def parse(
    text: str | bytes, file: str = "", *, yaml_1_1: bool = False, compose_tags: bool = False
) -> tuple[Document, ...]:
    """Return the documents of a YAML stream or JSON text without empty ones.

    ``yaml_1_1``: yes, no, on and off are booleans. ``compose_tags``: ``!reset`` and ``!override`` of the Compose
    Specification become ``Reset`` and ``Override``. Raises UsageError with file, line and column. One invalid document
    refuses the whole file, so that no workload is silently skipped.
    """
    where = file or "the document"
    if isinstance(text, bytes):
        text = decoded(text, where)
    text = text.removeprefix("\ufeff")  # libyaml does not count a byte order mark, so every index would be one off
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line, column = text.count("\n", 0, error.start) + 1, error.start - text.rfind("\n", 0, error.start)
        raise UsageError(f"{where}:{line}:{column}: half of a surrogate pair", reason="bad_workload") from None
    if len(text) > MAX_BYTES:
        raise UsageError(f"{where}: larger than {MAX_BYTES >> 20} MiB", reason="bad_workload")
    if text.lstrip()[:1] in ("{", "["):
        found = _json(text, file)
        if found is not None:
            return found
    reader = _Reader(file, yaml_1_1, compose_tags)
    try:
        return tuple(reader.documents(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        # PyYAML says of an anchor that is used twice only "second occurrence"; what is wrong is in the context.
        problem = error.context if error.problem == "second occurrence" else error.problem or error.context
        raise _unreadable(text, where, line, column, problem or "not YAML") from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        problem = f"the character U+{error.character:04X} is not allowed"
        raise _unreadable(text, where, line, column, problem) from None
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not YAML: {clean_text(str(error), 200)}", reason="bad_workload") from None


def decoded(data: bytes, where: str) -> str:
    """Return UTF-8 as text, without a byte order mark. Raises UsageError with line and column."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start
    line, column = data.count(b"\n", 0, start) + 1, start - data.rfind(b"\n", 0, start)
    hint = "save it as UTF-8" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""  # byte order marks of UTF-16
    raise UsageError(f"{where}:{line}:{column}: not UTF-8 text", reason="bad_workload", hint=hint)


def _json(text: str, file: str, number: int = 0, first_line: int = 0) -> tuple[Document, ...] | None:
    """Parse JSON. None: not JSON, duplicate keys or too deep. The YAML parser then reports the position."""
    count = 0

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal count
        count += len(pairs)
        found = dict(pairs)
        # `json` would keep the last of two equal keys without a word. The reader that runs the workload may keep the
        # first.
        if len(found) != len(pairs) or count > _MAX_VALUES_PER_DOCUMENT:
            raise ValueError("duplicate keys, or too many")
        return found

    def no_constant(name: str) -> Any:
        # NaN and Infinity are no JSON (RFC 8259, section 6), and no limit can be compared with NaN.
        raise ValueError(name)

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        return _json_stream(text, file) if error.msg == "Extra data" and not number else None
    except (ValueError, RecursionError):
        return None
    document = Document(value, file, number, text, first_line)
    if _SUSPICIOUS.search(text):  # escapes that make what neither PostgreSQL nor UTF-8 can hold
        for pointer, said in _texts("", value):
            if "\0" in said:
                raise document.error(_NUL, pointer)
            if _SURROGATE.search(said):
                return None
    return (document,)


def _json_stream(text: str, file: str) -> tuple[Document, ...] | None:
    """Parse JSON values one after the other, as ``jq`` and the AWS command line print them and ``kubectl`` reads them.

    None: not such a stream. The YAML parser then reads it (``---`` between the values), or reports the position.
    """
    decoder, found, at, first_line = json.JSONDecoder(), list[Document](), 0, 0
    while at < len(text):
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        # Whole lines, so that columns are right: what stands before the value in its line becomes blank.
        before = at - text.rfind("\n", 0, at) - 1
        if before > _MOST_BEFORE or len(found) >= MAX_DOCUMENTS:
            return None
        own = " " * before + text[at:end]
        one = _json(own, file, len(found), first_line)
        if one is None:
            with suppress(yaml.YAMLError):
                list(_Reader(file, False, False).documents("\n" * first_line + own))  # names a duplicate key
            return None
        found += one
        following = _BLANK.match(text, end)
        after = following.end() if following is not None else end
        first_line += text.count("\n", at, after)
        at = after
    return tuple(found)


def _texts(pointer: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every text of a value, keys too, with its place."""
    if isinstance(value, str):
        yield pointer, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{pointer}/{escape_step(key)}", key
            yield from _texts(f"{pointer}/{escape_step(key)}", item)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(f"{pointer}/{number}", item)


def _unreadable(text: str, where: str, line: int, column: int, problem: str) -> UsageError:
    """Return the error for a syntax error. The usual cause is an unrendered template, which gets its own message."""
    lines = text.split("\n")
    near = lines[max(0, line - 2) : line + 1]
    if any(_TEMPLATE.search(each) for each in near):
        number = next(n for n in range(max(0, line - 2), line + 1) if _TEMPLATE.search(lines[n]))
        column = (_TEMPLATE.search(lines[number]) or re.match("", "")).start() + 1  # type: ignore[union-attr]
        return UsageError(
            f"{where}:{number + 1}:{column}: an unrendered template",
            reason="bad_workload",
            hint="render it first, for example: helm template CHART | dockwarden audit kubernetes:-",
        )
    return UsageError(f"{where}:{line}:{column}: not YAML: {clean_text(problem, 200)}", reason="bad_workload")


def _child(node: yaml.Node | None, step: str) -> tuple[Any, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == step:
                return key.start_mark, value
            if _is_merge(key):
                merged.extend(value.value if isinstance(value, yaml.SequenceNode) else [value])
        for other in merged:
            found = _child(other, step)
            if found is not None:
                return found
    if isinstance(node, yaml.SequenceNode) and (number := item_number(step, len(node.value))) is not None:
        found_node = node.value[number]
        return found_node.start_mark, found_node
    return None


def _is_merge(key: yaml.Node) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.value == "<<" and not key.style


@dataclass(frozen=True)
class Reset:
    """Compose's ``!reset``: removes the value of earlier files."""


@dataclass(frozen=True)
class Override:
    """Compose's ``!override``: replaces the value of earlier files instead of merging."""

    value: Any


_STANDARD = "tag:yaml.org,2002:"
_TEXT = f"{_STANDARD}str"
# "?": none of its own. Others change the value (``!!binary`` is decoded), so what is audited is not what runs.
_PLAIN_TAGS = frozenset(
    ("?", "!", _TEXT, *(f"{_STANDARD}{kind}" for kind in ("int", "float", "bool", "null", "map", "seq")))
)


class _Loader(yaml.CSafeLoader):
    """libyaml's parser without PyYAML's guess at each value's type, which costs more than parsing and is not used."""

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: tuple[bool, bool] | bool) -> str:
        """The tag of a node that has none of its own. A scalar tagged ``!`` is text (YAML 1.2, section 6.9.1)."""
        return _TEXT if kind is yaml.ScalarNode and isinstance(implicit, tuple) and not implicit[0] else "?"

    # Nothing is resolved by path. libyaml's wrapper calls both for each value: functions in C that do nothing else take
    # a tenth of the time of empty ones in Python.
    descend_resolver = operator.is_  # type: ignore[assignment]
    ascend_resolver = tuple  # type: ignore[assignment]


class _Reader:
    """Converts libyaml's nodes to values.

    Plain scalars are resolved by YAML 1.2's core schema, booleans optionally by YAML 1.1.
    """

    def __init__(self, file: str, yaml_1_1: bool, compose_tags: bool) -> None:
        self._file = file
        self._tags = ("!reset", "!override") if compose_tags else ()
        self._true = _TRUE_11 if yaml_1_1 else _TRUE
        self._false = _FALSE_11 if yaml_1_1 else _FALSE
        self._left = 0
        self._total = MAX_VALUES
        self._scalars: dict[str, Any] = {}
        self._positions: Positions | None = None  # None: the document has merge keys, whose members have another order

    def documents(self, text: str) -> Iterator[Document]:
        loader = _Loader(text)
        number = 0
        directives = _DIRECTIVE.search(text) is not None
        try:
            while loader.check_node():
                node = loader.get_node()
                assert node is not None  # check_node() returned True
                if number >= MAX_DOCUMENTS:
                    raise self._refused_node(node, f"more than {MAX_DOCUMENTS:,} documents")
                # Counted after aliases are expanded. Ten lines of YAML can stand for billions of values.
                self._left = min(_MAX_VALUES_PER_DOCUMENT, self._total)
                before = self._left
                value = self._root(node)
                self._total -= before - self._left
                if value is not None:
                    start, end = node.start_mark, node.end_mark
                    if self._positions is not None:
                        yield Document(value, self._file, number, positions=self._positions)
                    elif directives:  # %TAG stands outside the document's own lines
                        yield Document(value, self._file, number, composed=node)
                    else:
                        own = text[start.index - start.column : end.index]
                        yield Document(value, self._file, number, own, start.line)
                number += 1
        finally:
            loader.dispose()

    def _root(self, node: yaml.Node) -> Any:
        self._positions = Positions()
        return self._value(node, 0, node.start_mark)

    def _refused_node(self, node: yaml.Node, message: str) -> UsageError:
        mark = node.start_mark
        where = Place(self._file, line=mark.line + 1, column=mark.column + 1)
        return UsageError(f"{where}: {message}", reason="bad_workload")

    def _value(self, node: yaml.Node, depth: int, mark: Any) -> Any:
        """Return the value of a node. ``mark``: its position, for a member of a mapping that of its key."""
        self._left -= 1
        if self._left < 0:
            raise self._refused_node(node, "too many values: nested aliases, or a document that is too large")
        if depth > _DEPTH:
            raise self._refused_node(node, f"nested deeper than {_DEPTH} levels")
        positions = self._positions
        index = positions.start(mark) if positions is not None else 0
        tag = node.tag
        if tag not in _PLAIN_TAGS:
            value = self._tagged_value(node, depth)
        elif isinstance(node, yaml.ScalarNode):
            return self._scalar(node)  # nothing is below it
        else:
            value = self._plain_value(node, depth)
        if positions is not None:
            positions.end(index)
        return value

    def _plain_value(self, node: yaml.Node, depth: int) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, depth + 1, item.start_mark) for item in node.value]
        assert isinstance(node, yaml.MappingNode)  # libyaml composes no fourth kind
        return self._read_mapping(node, depth)

    def _tagged_value(self, node: yaml.Node, depth: int) -> Any:
        if node.tag not in self._tags:
            raise self._refused_node(node, f"unknown tag {clean_text(node.tag.replace(_STANDARD, '!!'), 80)}")
        return Reset() if node.tag == "!reset" else Override(self._plain_value(node, depth))

    def _read_mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._not_a_key(key)
            name = key.value
            if name == "<<" and not key.style:
                merged.extend(value.value if isinstance(value, yaml.SequenceNode) else [value])
                self._positions = None
                continue
            if "\0" in name:
                raise self._refused_node(key, _NUL)
            if name in own:
                raise self._refused_node(key, f"duplicate key {clean_text(name, 80)!r}")
            own[name] = self._value(value, depth + 1, key.start_mark)
        for other in merged:  # own keys win, then earlier mappings
            if not isinstance(other, yaml.MappingNode):
                raise self._refused_node(other, "<< needs a mapping or a list of mappings")
            for name, found in self._read_mapping(other, depth + 1).items():
                own.setdefault(name, found)
        return own

    def _not_a_key(self, key: yaml.Node) -> UsageError:
        if isinstance(key, yaml.MappingNode):  # YAML parses "{{ name }}" as a mapping with a mapping as key
            error = self._refused_node(key, "an unrendered template, or a key that is not text")
            error.hint = "render it first, for example: helm template CHART | dockwarden audit kubernetes:-"
            return error
        return self._refused_node(key, "a key must be text")

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        # A quoted scalar is always text: `"yes"` and `"0644"` must not become a boolean and a number.
        if node.style or node.tag == _TEXT:
            if "\0" in text:
                raise self._refused_node(node, _NUL)
            return text
        found = self._scalars.get(text, self)
        if found is self:
            found = self._resolve_scalar(text)
            # Manifests repeat few scalars many times. The bound keeps a hostile stream from filling the memory with
            # different ones.
            if len(self._scalars) < 10_000 and len(text) < 100:
                self._scalars[text] = found
        return found

    def _resolve_scalar(self, text: str) -> Any:
        if text in _NULLS:
            return None
        if text in self._true:
            return True
        if text in self._false:
            return False
        # Longer ones stay text: converting a number of many digits takes quadratic time.
        if _INTEGER.fullmatch(text) and len(text) < 40:
            return _integer(text)
        if len(text) < 100 and _FLOAT.fullmatch(text):
            return float(text)
        return text


def _integer(text: str) -> int | str:
    digits = text.replace("_", "")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    try:
        if digits.startswith(("0x", "0X")):
            return sign * int(digits, 16)
        if digits.startswith(("0b", "0B")):
            return sign * int(digits, 2)
        if digits.startswith(("0o", "0O")):
            return sign * int(digits[2:], 8)
        if len(digits) > 1 and digits.startswith("0"):
            return sign * int(digits, 8)  # octal for both Go parsers, as in 0644
        return sign * int(digits)
    except ValueError:
        return text
