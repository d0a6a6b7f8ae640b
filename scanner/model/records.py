"""Evidence as JSON and back, without Pydantic: for what this process wrote, or keeps under its own seal.

Importing Pydantic and building its validators takes longer than a scan whose result is known. The JSON is byte for byte
the one that ``report_adapter`` writes, because digests of evidence depend on it. ``reader`` validates nothing: never
use it for input.
"""

from __future__ import annotations

import builtins
import dataclasses
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from enum import Enum
from functools import cache
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import orjson

T = TypeVar("T")
Convert = Callable[[Any], Any]
_SAME = frozenset(f"{name}{end}" for name in ("bool", "float", "int", "str") for end in ("", " | None"))


def to_json(value: Any) -> bytes:
    """Return dataclasses as compact JSON. Raises TypeError for text or a number that has no form in JSON."""
    return orjson.dumps(value, _plain_value, orjson.OPT_UTC_Z)


def _plain_value(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"no JSON form of {type(value).__name__}")


def reader(kind: type[T]) -> Callable[[bytes], T]:
    """Return a function that reads what ``to_json`` wrote of a value of this type.

    It raises ValueError, KeyError or TypeError for anything else.
    """
    convert: Convert | None = _of(cast("Any", kind))
    return lambda data: convert(orjson.loads(data)) if convert else orjson.loads(data)


@cache
def _of(kind: Any) -> Convert | None:
    """Return what makes a value of this type from JSON's; None: it is the same."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _union(inner)
    if origin is tuple:
        return _tuple(inner)
    if origin is Literal:
        return _literal(inner)
    if origin is not None and issubclass(origin, Mapping):
        value = _of(inner[1])
        return None if value is None else lambda found: {name: value(item) for name, item in found.items()}
    if origin is frozenset or kind is frozenset:
        return frozenset
    if dataclasses.is_dataclass(kind):
        return _dataclass(cast("Any", kind))
    if not isinstance(kind, type):
        return None
    if issubclass(kind, Enum):
        return kind._value2member_map_.__getitem__
    if issubclass(kind, datetime):
        return datetime.fromisoformat
    if issubclass(kind, date):
        return date.fromisoformat
    if issubclass(kind, timedelta):
        return lambda seconds: timedelta(seconds=seconds)
    if issubclass(kind, str) and kind is not str:
        # Digests: their form was checked before they were written, and there is one in each package.
        return lambda text: str.__new__(kind, text)
    return None


def _literal(values: tuple[Any, ...]) -> Convert | None:
    members = {item.value: item for item in values if isinstance(item, Enum)}
    return members.__getitem__ if members else None


def _tuple(inner: tuple[Any, ...]) -> Convert:
    if len(inner) == 2 and inner[1] is Ellipsis:
        item = _of(inner[0])
        return tuple if item is None else lambda found: tuple(map(item, found))
    each = [_of(kind) or _unchanged for kind in inner]
    return lambda found: tuple(convert(item) for convert, item in zip(each, found, strict=True))


def _unchanged(value: Any) -> Any:
    return value


def _union(inner: tuple[Any, ...]) -> Convert | None:
    kinds = [kind for kind in inner if kind is not NoneType]
    if all(dataclasses.is_dataclass(kind) for kind in kinds) and len(kinds) > 1:
        # The alternatives differ in their ``kind``.
        makers = {kind.__dataclass_fields__["kind"].default: _dataclass(kind) for kind in kinds}
        return lambda found: None if found is None else makers[found["kind"]](found)
    converts = [convert for kind in kinds if (convert := _of(kind)) is not None]
    if not converts:
        return None
    (convert,) = converts
    return lambda found: None if found is None else convert(found)


def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of the fields that JSON may hold in another form. Evaluating a type takes as long as reading."""
    names = vars(sys.modules[kind.__module__])
    stated = {field.name: field.type for field in dataclasses.fields(kind) if field.type not in _SAME}
    found = {name: _type_of_name(text, names) for name, text in stated.items() if isinstance(text, str)}
    rest = {name: text for name, text in stated.items() if found.get(name) is None}
    others = get_type_hints(SimpleNamespace(__annotations__=rest), names) if rest else {}
    return {name: found.get(name) or others[name] for name in stated}


def _type_of_name(text: str, names: Mapping[str, Any]) -> Any:
    """Return the type that a usual annotation names: ``Kind``, ``Kind | None``, ``tuple[Kind, ...]``; else None."""
    bare = text.removesuffix(" | None")
    is_tuple = bare.startswith("tuple[")
    inner = bare.removeprefix("tuple[").removesuffix(", ...]") if is_tuple else bare
    found = names.get(inner, getattr(builtins, inner, None)) if inner.isidentifier() else None
    if not isinstance(found, type):
        return None
    kind = tuple[found, ...] if is_tuple else found  # type: ignore[valid-type]
    return kind if bare == text else Union[kind, None]  # noqa: UP007


@cache
def _dataclass(kind: Any) -> Convert:
    converts = [(name, convert) for name, hint in _hints(kind).items() if (convert := _of(hint)) is not None]

    def make(found: dict[str, Any]) -> Any:
        for name, convert in converts:
            found[name] = convert(found[name])
        return kind(**found)

    return make
