"""``dataclass`` as the standard library has it, except that a class gets its methods when it is first used.

The standard decorator writes and compiles up to six functions for each class. A command imports a hundred classes and
creates objects of half of them, so a third of its start went into functions that were never called. Here a class gets
stand-ins; the first call of one runs the standard decorator and puts the real functions in their place.

Objects of frozen classes with slots are also created faster: an audit of 10,000 workloads makes a million of them.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from inspect import get_annotations
from threading import RLock
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

_T = TypeVar("_T")

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(
        cls: type | None = None,
        /,
        *,
        eq: bool = True,
        order: bool = False,
        frozen: bool = False,
        kw_only: bool = False,
        slots: bool = False,
    ) -> Any:
        """Return the class as a dataclass. Type checkers see ``dataclasses.dataclass`` itself."""
        options = {"eq": eq, "order": order, "frozen": frozen, "kw_only": kw_only}

        def decorate(cls: type) -> type:
            return _lazy_class(cls, options, slots)

        return decorate if cls is None else decorate(cls)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def record(cls: type[_T]) -> type[_T]:
    """Return the class as a dataclass with slots that only type checkers take for frozen.

    A really frozen class sets each field by a call, so creating an object takes more than twice as long. That counts
    for what an image has a hundred thousand of, and for nothing else.
    """
    return _lazy_class(cls, {"eq": True, "order": False, "frozen": False, "kw_only": False}, slots=True)


# Held across a fork: a thread that is completing a class does not exist in the child, and could not release it.
_completing = RLock()
os.register_at_fork(before=_completing.acquire, after_in_parent=_completing.release, after_in_child=_completing.release)
_CREATION = ("__dataclass_fields__", "__match_args__", "__init__")
_ATTRIBUTES = ("__dataclass_fields__", "__dataclass_params__", "__match_args__")
# They belong to the former class.
_NOT_COPIED = frozenset({"__dict__", "__weakref__"})
_ORDER = ("__lt__", "__le__", "__gt__", "__ge__")


def _lazy_class(cls: type, options: dict[str, bool], slots: bool) -> type:
    body = {name: value for name, value in vars(cls).items() if name not in _NOT_COPIED}
    if body.get("__hash__", ...) is None and "__eq__" in body:
        del body["__hash__"]  # written by Python because of ``__eq__``, not by the class
    types = _field_types(cls)
    made = _with_slots(cls, body, tuple(types), options["frozen"]) if slots else _without_defaults(cls, tuple(types))
    recipe = _Recipe(made, body, types, options)
    for name in _methods(options):
        if name not in body:
            setattr(made, name, _stand_in(recipe, name))
    if options["eq"] and not options["frozen"] and "__hash__" not in body:
        made.__hash__ = None  # type: ignore[assignment]
    for name in _ATTRIBUTES:
        if name not in body:
            setattr(made, name, _Attribute(recipe, name))
    if options["frozen"]:
        _freeze(made, frozenset(types))
    return made


def _field_types(cls: type) -> dict[str, Any]:
    """Return the annotations of the fields that the class itself has. Raises TypeError for other kinds of them."""
    found = {}
    for name, kind in get_annotations(cls).items():
        text = kind if isinstance(kind, str) else repr(kind)
        if "InitVar" in text or "KW_ONLY" in text:
            raise TypeError(f"{cls.__name__}.{name} is a kind of field that is unknown here")
        if "ClassVar" not in text:
            found[name] = kind
    return found


def _methods(options: dict[str, bool]) -> tuple[str, ...]:
    equal = ("__eq__", "__hash__") if options["eq"] and options["frozen"] else ("__eq__",) if options["eq"] else ()
    return ("__init__", "__repr__", *equal, *(_ORDER if options["order"] else ()))


def _without_defaults(cls: type, names: tuple[str, ...]) -> type:
    """Replace each ``field(...)`` of the class by its default, as the standard decorator does."""
    for name in names:
        value = vars(cls).get(name)
        if isinstance(value, dataclasses.Field):
            if value.default is dataclasses.MISSING:
                delattr(cls, name)
            else:
                setattr(cls, name, value.default)
    return cls


def _with_slots(cls: type, body: dict[str, Any], names: tuple[str, ...], frozen: bool) -> type:
    """Return the class again with slots, which a class can get only when it is made."""
    inherited = {name for base in cls.__mro__[1:-1] for name in getattr(base, "__slots__", ())}
    slotted = {name: value for name, value in body.items() if name not in names}
    slotted["__slots__"] = tuple(name for name in names if name not in inherited)
    if frozen:  # pickle would set attributes, which the class refuses
        slotted = {"__getstate__": _state, "__setstate__": _set_state, **slotted}
    made: type = type(cls)(cls.__name__, cls.__bases__, slotted)
    made.__qualname__ = cls.__qualname__
    return made


def _state(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)


def _freeze(cls: type[Any], names: frozenset[str]) -> None:
    def set_attribute(self: Any, name: str, value: Any) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def delete_attribute(self: Any, name: str) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    for name, method in (("__setattr__", set_attribute), ("__delattr__", delete_attribute)):
        if name in vars(cls):
            raise TypeError(f"{cls.__name__} is frozen and cannot have a {name} of its own")
        setattr(cls, name, method)


class _Recipe:
    """What a class is completed from, once in two steps: what creates objects, and what prints and compares them.

    Most objects are never printed, compared or hashed.
    """

    def __init__(self, cls: type, body: dict[str, Any], types: dict[str, Any], options: dict[str, bool]) -> None:
        self.cls, self._body, self._types, self._options = cls, body, types, options
        slotted = all(isinstance(getattr(cls, name, None), MemberDescriptorType) for name in types)
        self._sets_slots = options["frozen"] and slotted and "__init__" not in body
        self._done: set[bool] = set()

    def complete(self, name: str) -> None:
        """Run the standard decorator on a twin of the class, and give the class what it made.

        A twin, because other threads may use the class meanwhile, and because slots exclude defaults.
        """
        creates = name in _CREATION
        with _completing:
            if creates in self._done:
                return
            cls, options = self.cls, dict(self._options)
            if creates:
                options |= {"repr": False, "eq": False, "order": False}
                if self._sets_slots:
                    options["init"] = False
            # Without a docstring the decorator would write the signature, and it searches each annotation that is text
            # for class variables three times. Both take longer than the rest.
            plain = {"__doc__": cls.__doc__ or "-", "__annotations__": dict.fromkeys(self._types, object)}
            twin: Any = type(cls)(cls.__name__, cls.__bases__, {**self._body, **plain})
            twin.__qualname__ = cls.__qualname__
            dataclasses.dataclass(**options)(twin)
            for field in dataclasses.fields(twin):
                field.type = self._types.get(field.name, field.type)
            if creates and "__init__" not in self._body:
                if self._sets_slots:
                    twin.__init__ = _slot_init(cls, dataclasses.fields(twin))
                stated = twin.__init__.__annotations__
                stated |= {name: kind for name, kind in self._types.items() if name in stated}
            # ``__init__`` last: a thread that can call it must find the rest.
            for made in _CREATION if creates else ("__dataclass_params__", *_methods(self._options)[1:]):
                if made not in self._body:
                    setattr(cls, made, vars(twin)[made])
            self._done.add(creates)


class _Factory:
    """Stands for the result of a default factory in a signature, as in the standard library."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


def _slot_init(cls: type, fields: Sequence[dataclasses.Field[Any]]) -> Callable[..., None]:
    """Return an ``__init__`` that writes into the slots.

    The standard one of a frozen class looks up each slot by its name (``object.__setattr__``), which takes half as long
    again.
    """
    known: dict[str, Any] = {"_factory": _FACTORY, "_set": object.__setattr__}
    positional, named, body = ["self"], list[str](), list[str]()
    for number, each in enumerate(fields):
        parameter, value = each.name, each.name
        if not each.init:
            continue  # ``__post_init__`` sets it
        if each.default_factory is not dataclasses.MISSING:
            known[f"_make{number}"] = each.default_factory
            parameter, value = f"{each.name}=_factory", f"_make{number}() if {each.name} is _factory else {each.name}"
        elif each.default is not dataclasses.MISSING:
            known[f"_default{number}"] = each.default
            parameter = f"{each.name}=_default{number}"
        (named if each.kw_only else positional).append(parameter)
        slot = getattr(cls, each.name, None)
        if isinstance(slot, MemberDescriptorType):
            known[f"_set{number}"] = slot.__set__
            body.append(f"_set{number}(self, {value})")
        else:  # of a base without slots
            body.append(f"_set(self, {each.name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join([*positional, *(["*", *named] if named else [])])
    made: dict[str, Any] = {}
    exec(  # noqa: S102 - as the standard library does; the text has the names of fields alone
        f"def create({', '.join(known)}):\n def __init__({parameters}):\n  "
        + "\n  ".join(body or ["pass"])
        + "\n return __init__",
        vars(sys.modules[cls.__module__]),
        made,
    )
    init: Callable[..., None] = made["create"](**known)
    init.__annotations__ = {each.name: each.type for each in fields if each.init} | {"return": None}
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _stand_in(recipe: _Recipe, name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **more: Any) -> Any:
        recipe.complete(name)
        return getattr(recipe.cls, name)(self, *args, **more)

    return method


class _Attribute:
    """Stands for an attribute of a class. The first access completes the class."""

    def __init__(self, recipe: _Recipe, name: str) -> None:
        self._recipe, self._name = recipe, name

    def __get__(self, instance: object, owner: type) -> Any:
        self._recipe.complete(self._name)
        return vars(self._recipe.cls)[self._name]
