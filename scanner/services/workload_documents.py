"""The JSON form of a workload, for reports to a server and for the store.

``document`` serialises, ``workload`` parses and validates. Values of environment variables are removed, because they
may be secrets; the document says only whether a value looked like one. Secrets in command lines are replaced. It also
contains the place (file and line) of each field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, TypeGuard

import orjson
from pydantic import TypeAdapter, ValidationError

from scanner import __version__
from scanner.errors import UsageError
from scanner.model.secret_arguments import redact, without_secrets
from scanner.model.secret_variables import is_secret
from scanner.model.untrusted import clean_text
from scanner.model.validation import plain_message
from scanner.model.workload import Origin, Place, Variable, Workload
from scanner.workloads.base import NodeOrigin

MOST_BYTES = 64 << 10  # of one workload's document
_STDIN = "standard input"
_PLACES = "places"
_WITHOUT_PLACE = {"origin", "elsewhere", "source", "pointer", "labels"}
_MOST_ITEMS = 200  # of one field, with a place each


@dataclass(frozen=True)
class StoredOrigin(Origin):
    """The places of a stored workload, by field name. The key ``""`` is the container itself."""

    places: Mapping[str, Place]

    def place(self, *names: str) -> Place:
        """See ``Origin.place``."""
        # The most precise place first: the item of a list, then the field, then the container.
        for name in (*names, *(name.partition("/")[0] for name in names)):
            if name in self.places:
                return self.places[name]
        return self.places.get("", Place())


def document(workload: Workload) -> dict[str, Any]:
    """Return the workload as JSON values without defaults.

    Places in standard input are omitted: nobody can look them up, and a shifted line would count as a change.
    """
    told = replace(without_secrets(workload), environment=tuple(map(_without_value, workload.environment)))
    found = {
        each.name: _plain_value(value)
        for each in fields(told)
        if each.name not in ("origin", "elsewhere") and (value := getattr(told, each.name)) != each.default
    }
    if workload.origin is not None and workload.place().file != _STDIN:
        found[_PLACES] = dict(_places(workload))
    return found


def encode(found: Mapping[str, Any]) -> bytes:
    """Return the canonical bytes of a document, of which its digest is computed.

    Raises UsageError for values that JSON readers disagree about: integers of more than 64 bits, lone surrogates, and
    nesting deeper than 254 levels.
    """
    try:
        return orjson.dumps(found, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise UsageError(f"a workload cannot be stored: {clean_text(str(error), 100)}", reason="bad_workload") from None


def without_values(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the document without values of variables and secrets in command lines, in case an agent sends them: they
    must not be stored.
    """
    found = {**found, **dict(_redacted_members(found))}
    variables = found.get("environment")
    if not isinstance(variables, list) or not any(isinstance(v, dict) and v.get("value") for v in variables):
        return found
    return {**found, "environment": [_without_variable_value(v) if isinstance(v, dict) else v for v in variables]}


def _redacted_members(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the members with command lines. What is of another type is refused later, by ``workload``."""
    for name in ("command", "arguments", "healthcheck_test"):
        if _is_texts(words := found.get(name)):
            yield name, list(redact(words))
    if _is_texts(lines := found.get("processes")):
        yield "processes", [redact((line,))[0] for line in lines]
    probes = found.get("probes")
    if isinstance(probes, list):
        yield "probes", [_redacted_probe(each) if isinstance(each, dict) else each for each in probes]


def _redacted_probe(probe: Mapping[str, Any]) -> Mapping[str, Any]:
    told = {name: list(redact(words)) for name in ("command", "headers") if _is_texts(words := probe.get(name))}
    return {**probe, **told}


def _is_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _without_variable_value(variable: Mapping[str, Any]) -> dict[str, Any]:
    name, value = str(variable.get("name", "")), str(variable.get("value", ""))
    told = variable.get("withheld") or ("secret" if value and is_secret(name, value) else "plain")
    # Whether it looked like a secret is decided while the value is still known. Afterwards it cannot be known.
    return {**{key: item for key, item in variable.items() if key != "value"}, "withheld": told}


def workload(data: bytes) -> Workload:
    """Parse a document. Raises UsageError(reason="bad_workload") for anything that ``document`` cannot produce."""
    found = orjson.loads(data)
    places = found.pop(_PLACES, {})
    try:
        made = _workloads().validate_json(orjson.dumps(found), strict=True)
        known = _stored_places().validate_json(orjson.dumps(places), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"not a workload: {where}: {plain_message(first)}",
            reason="bad_workload",
            hint=f"this server is Dockwarden {__version__}, and reads documents of agents up to that version",
        ) from None
    environment = tuple(map(_without_value, made.environment))
    # The inventory of this server says what other environments run, not the sender of a document.
    return replace(made, environment=environment, elsewhere=None, origin=StoredOrigin(known))


def _without_value(variable: Variable) -> Variable:
    if variable.withheld:
        return replace(variable, value="")
    secret = bool(variable.value) and is_secret(variable.name, variable.value)
    return Variable(variable.name, "", variable.origin, "secret" if secret else "plain")


def _places(workload: Workload) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield field name and place. Fields with the container's place are omitted; the container has the name ``""``."""
    own = workload.place()
    yield "", _place(own)
    lists = {each.name: getattr(workload, each.name) for each in fields(workload)}
    lists["volumes"] = workload.pod.volumes if workload.pod else ()
    named = workload.origin.paths if isinstance(workload.origin, NodeOrigin) else ()
    for name in sorted({*lists, *named} - _WITHOUT_PLACE):
        found = workload.place(name)
        if found != own:
            yield name, _place(found)
        # A document with ten thousand mounts would otherwise get a place for each, which is larger than the document.
        value = lists.get(name)
        for number, item in enumerate(value[:_MOST_ITEMS] if isinstance(value, tuple) else ()):
            step = _step(name, number, item)
            place = workload.place(f"{name}/{step}", name)
            if place not in (own, found):
                yield f"{name}/{step}", _place(place)


def _step(field: str, number: int, item: Any) -> str:
    """What checks call an item of a field: by its name, where it has one."""
    if isinstance(item, Variable):
        return item.name
    if field in ("cap_add", "security_opt"):
        return re.split("[=:]", str(item), maxsplit=1)[0]
    return str(number)


def _place(place: Place) -> dict[str, Any]:
    return {each.name: value for each in fields(place) if (value := getattr(place, each.name)) != each.default}


def _plain_value(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        defaults = {each.name: each.default for each in fields(value)}
        return {
            name: _plain_value(item)
            for name, item in asdict(value).items()
            if defaults[name] is MISSING or item != defaults[name]
        }
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    return value


@lru_cache(maxsize=1)
def _workloads() -> TypeAdapter[Workload]:
    return TypeAdapter(Workload)


@lru_cache(maxsize=1)
def _stored_places() -> TypeAdapter[dict[str, Place]]:
    return TypeAdapter(dict[str, Place])
