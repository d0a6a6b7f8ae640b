"""Discovery of plug-ins: one class per module of a room, found by looking, never registered by hand.

A room is a package with a ``base.py`` that defines its contract. Every other public module of the package holds
exactly one concrete subclass of the contract, whose ``id`` is the module's name in kebab case. Anything else fails
loudly at start-up: a plug-in that exists but is silently never used would be a hole.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

T = TypeVar("T")


class PluginError(RuntimeError):
    """A plug-in room is built wrongly. A programmer's mistake, never a user's."""


def ids(room: str) -> tuple[str, ...]:
    """The ids of a room's plug-ins, sorted, by the names of its modules: nothing of the room is imported."""
    package = importlib.util.find_spec(room)
    places = package.submodule_search_locations if package else None
    names = (info.name for info in pkgutil.iter_modules(places or []) if not info.ispkg)
    return tuple(sorted(name.replace("_", "-") for name in names if name != "base" and not name.startswith("_")))


def discover(room: str, contract: type[T]) -> Mapping[str, T]:
    """Instances of every plug-in of the package ``room``, by id, sorted.

    Modules named ``base`` or with a leading ``_`` are not plug-ins.

    Raises PluginError for a module with no or several plug-ins, an id that is not the module's name, or a missing
    docstring.
    """
    package = importlib.import_module(room)
    found: dict[str, T] = {}
    for info in pkgutil.iter_modules(package.__path__):
        if info.name == "base" or info.name.startswith("_") or info.ispkg:
            continue
        module = importlib.import_module(f"{room}.{info.name}")
        classes = [
            value
            for value in vars(module).values()
            if inspect.isclass(value)
            and issubclass(value, contract)
            and value.__module__ == module.__name__
            and not inspect.isabstract(value)
        ]
        if len(classes) != 1:
            raise PluginError(f"{module.__name__} must hold exactly one {contract.__name__}, it holds {len(classes)}")
        if not (module.__doc__ or "").strip():
            raise PluginError(f"{module.__name__} has no docstring")
        plugin = classes[0]()
        expected = info.name.replace("_", "-")
        if getattr(plugin, "id", None) != expected:
            raise PluginError(f"{module.__name__}: id must be {expected!r}, it is {getattr(plugin, 'id', None)!r}")
        found[expected] = plugin
    return MappingProxyType(dict(sorted(found.items())))
