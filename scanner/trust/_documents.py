"""Trust documents written by people: JSON or YAML in, plain values out. Every mistake is named by file and member."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent

from scanner.errors import UsageError
from scanner.model.pem import refuse_private_key
from scanner.model.untrusted import clean_text, load_untrusted_json, nesting_depth
from scanner.model.validation import plain_message
from scanner.trust.base import UNSOUND_TRUST

_MAX_DOCUMENT, _MAX_YAML = 1 << 20, 128 << 10  # Bytes. YAML costs many times the memory of JSON.
_MAX_NESTING = 64


class UnsoundTrust(ValueError):
    """A well-formed document that trusts nobody or contradicts itself. Its UsageError has the reason UNSOUND_TRUST."""


Model = TypeVar("Model", bound=BaseModel)


def load_document(data: bytes, where: str) -> Mapping[str, Any]:
    """Return the object in a JSON or YAML file, after checking that it contains no private key.

    Raises UsageError; its message begins with ``where``.
    """
    if len(data) > _MAX_DOCUMENT:
        raise UsageError(f"{where}: larger than {_MAX_DOCUMENT >> 20} MiB")
    try:
        value = _parse(data, where)
    except UsageError:
        # Checked even for a file that does not parse: a pasted private key must be reported as one, and never stored or
        # shown.
        refuse_private_key(data, where)
        raise
    refuse_private_key(value, where)
    refuse_private_key(data, where)  # in a comment, too
    if isinstance(value, str) and "\n" not in value:
        raise UsageError(
            f"{where}: {quoted(value)} is neither a trust document nor a file", hint="see docs/signatures.md"
        )
    if not isinstance(value, dict):
        raise UsageError(f"{where}: not a trust document", hint="see docs/signatures.md for what it holds")
    return value


def _parse(data: bytes, where: str) -> Any:
    if data.lstrip()[:1] != b"{":
        return _yaml(data, where)
    try:
        return load_untrusted_json(data, limit=_MAX_DOCUMENT, error=UsageError)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def quoted(word: str) -> str:
    """Quote a user's input for a message. Input that could be key material is not shown: a bare key is a long run of
    letters and digits.
    """
    if len(word) > 100 or re.search(r"[A-Za-z0-9+=_-]{40}", word.replace("/", "")):
        return "what was given"
    return repr(clean_text(word, 100))


def _yaml(data: bytes, where: str) -> Any:
    if len(data) > _MAX_YAML:
        raise UsageError(f"{where}: larger than {_MAX_YAML >> 10} KiB", hint="as JSON it may be larger")
    if nesting_depth(data) > _MAX_NESTING:
        raise UsageError(f"{where}: nested too deep")
    try:
        text = data.decode("utf-8")
        # Aliases allow a small file to expand to gigabytes ("billion laughs").
        if any(isinstance(event, AliasEvent) for event in YAML(typ="safe", pure=True).parse(io.StringIO(text))):
            raise UsageError(f"{where}: YAML aliases are not allowed")
        return YAML(typ="safe", pure=True).load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise UsageError(f"{where}:{place} {clean_text(error.problem or 'not YAML', 200)}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{where}: neither PEM, JSON nor YAML") from error


def validate_model(model: type[Model], value: Any, where: str) -> Model:
    """Validate ``value`` as a ``model``. Raises UsageError that names the first wrong member."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("function-", "literal[")))
        message = plain_message(first)
        unsound = isinstance(first.get("ctx", {}).get("error"), UnsoundTrust)
        raise UsageError(
            f"{where}: {clean_text(path, 200) + ': ' if path else ''}{clean_text(message, 300)}",
            reason=UNSOUND_TRUST if unsound else None,
            hint="see docs/signatures.md",
        ) from None
