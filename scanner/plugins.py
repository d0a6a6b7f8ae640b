"""Discovery of plug-ins: one class per module of a package, without registration.

A plug-in package has a ``base.py`` that defines its contract. Each other public module has exactly one concrete
subclass of the contract; its ``id`` is the module's name in kebab case. Anything else fails at start: a check that
exists but is never run would be a security gap.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class PluginError(RuntimeError):
    """A plug-in package is invalid: a programming error, never a user's."""


def ids(room: str) -> tuple[str, ...]:
    """The sorted ids of a package's plug-ins, from its module names, without importing them."""
    package = importlib.util.find_spec(room)
    places = package.submodule_search_locations if package else None
    names = (info.name for info in pkgutil.iter_modules(places or []) if not info.ispkg)
    return tuple(sorted(name.replace("_", "-") for name in names if name != "base" and not name.startswith("_")))


def discover(room: str, contract: type[T] | Callable[[], type[T]]) -> Plugins[T]:
    """Return the plug-ins of the package ``room`` by id, sorted. Each is imported when it is first asked for.

    Modules named ``base`` or with a leading ``_`` are not plug-ins. Asking for one raises PluginError for a module
    without a plug-in or with several, a wrong id, or a missing docstring; ``Plugins.load`` asks for all. ``contract``:
    the base class, or a function that imports it: ids are often listed without one.
    """
    return Plugins(room, contract)


class Plugins(Mapping[str, T]):
    """The plug-ins of a package. Listing their ids imports none: a command uses few of them."""

    def __init__(self, room: str, contract: type[T] | Callable[[], type[T]]) -> None:
        self._room, self._contract = room, contract
        self._ids = dict.fromkeys(ids(room))
        self._loaded: dict[str, T] = {}

    def __getitem__(self, identifier: str) -> T:
        found = self._loaded.get(identifier)
        if found is None:
            if identifier not in self._ids:
                raise KeyError(identifier)
            # Two threads may both create one; both get the one that was entered first.
            found = self._loaded.setdefault(identifier, self._create(identifier))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._ids

    def load(self) -> None:
        """Import all plug-ins, so that an invalid one ends a server when it starts and not while it works."""
        for identifier in self._ids:
            self[identifier]

    def _create(self, identifier: str) -> T:
        module = importlib.import_module(f"{self._room}.{identifier.replace('-', '_')}")
        contract: Any = self._contract if isinstance(self._contract, type) else self._contract()
        classes = [
            value
            for value in vars(module).values()
            if isinstance(value, type)
            and issubclass(value, contract)
            and value.__module__ == module.__name__
            and not getattr(value, "__abstractmethods__", None)
        ]
        if len(classes) != 1:
            raise PluginError(f"{module.__name__} must have exactly one {contract.__name__}, it has {len(classes)}")
        if not (module.__doc__ or "").strip():
            raise PluginError(f"{module.__name__} has no docstring")
        plugin: T = classes[0]()
        if getattr(plugin, "id", None) != identifier:
            raise PluginError(f"{module.__name__}: id must be {identifier!r}, it is {getattr(plugin, 'id', None)!r}")
        return plugin
