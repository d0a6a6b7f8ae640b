"""Pydantic's errors in words for a person who writes YAML or JSON and does not know Python's types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scanner.patterns import lazy

_MEMBER = lazy(r"<[A-Za-z_.]+: ('[^']*')>")  # how Python shows a member of an enum: <Verdict.DENY: 'deny'>
# Pydantic's words, which are turned into ours.
_SHOULD = lazy(r"^(Input|String|List|Tuple|Set|Dictionary|Value) should ")
_LONGEST_PATTERN = 120  # the pattern of an image reference has 600 characters: nobody reads that in an error
_MESSAGES: Mapping[str, str] = {
    "missing": "is missing",
    "extra_forbidden": "unknown field",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "uuid_parsing": "must be an id (a UUID)",
    "uuid_type": "must be an id (a UUID)",
    "string_type": "must be a string",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "frozen_set_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "dataclass_type": "must be a mapping",
}


def plain_message(error: Mapping[str, Any]) -> str:
    """Say what is wrong with a value, without the value: it may be a secret. ``error``: of Pydantic's ``errors()``."""
    if message := _MESSAGES.get(error["type"]):
        return message
    if error["type"] == "string_pattern_mismatch" and len(error["msg"]) > _LONGEST_PATTERN:
        return "does not have the required form"
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    text = _SHOULD.sub("must ", text).partition(" after validation")[0]
    return _MEMBER.sub(r"\1", text)
