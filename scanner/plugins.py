"""Discovery of plug-ins: one class per module of a package, without registration.

A plug-in package has a ``base.py`` that defines its contract. Each other public module has exactly one concrete
subclass of the contract; its ``id`` is the module's name in kebab case. Anything else fails at start: a check that
exists but is never run would be a security gap.
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
    """A plug-in package is invalid: a programming error, never a user's."""


def ids(room: str) -> tuple[str, ...]:
    """The sorted ids of a package's plug-ins, from its module names, without importing them."""
    package = importlib.util.find_spec(room)
    places = package.submodule_search_locations if package else None
    names = (info.name for info in pkgutil.iter_modules(places or []) if not info.ispkg)
    return tuple(sorted(name.replace("_", "-") for name in names if name != "base" and not name.startswith("_")))


def discover(room: str, contract: type[T]) -> Mapping[str, T]:
    """Return an instance of each plug-in of the package ``room``, by id, sorted.

    Modules named ``base`` or with a leading ``_`` are not plug-ins.

    Raises PluginError for a module without a plug-in or with several, a wrong id, or a missing docstring.
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
            raise PluginError(f"{module.__name__} must have exactly one {contract.__name__}, it has {len(classes)}")
        if not (module.__doc__ or "").strip():
            raise PluginError(f"{module.__name__} has no docstring")
        plugin = classes[0]()
        expected = info.name.replace("_", "-")
        if getattr(plugin, "id", None) != expected:
            raise PluginError(f"{module.__name__}: id must be {expected!r}, it is {getattr(plugin, 'id', None)!r}")
        found[expected] = plugin
    return MappingProxyType(dict(sorted(found.items())))
