"""CEL expressions in policies (``when``), compiled and evaluated with a budget. Everything about the library stands here.

Variables: ``image`` (name, tag, digest, os, architecture, size, layers, user, labels, env, age_days,
and where they are known os_family, os_version, supported_days) and ``counts`` (vulnerabilities by
severity, ``fixable``, ``unfixed``, each status, ``known_exploited``, ``secrets``, ``components``). An expression that cannot be evaluated decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cel_expr_python import cel

from scanner.model.untrusted import clean_text


class ExpressionError(ValueError):
    """An expression that does not compile, or gave no true or false."""


@lru_cache(maxsize=1)
def _environment() -> Any:
    return cel.NewEnv(
        variables={
            "image": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
            "counts": cel.Type.Map(cel.Type.STRING, cel.Type.INT),
        }
    )


@lru_cache(maxsize=256)
def _compiled(expression: str) -> Any:
    try:
        return _environment().compile(expression)
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ExpressionError(clean_text(lines[0] if lines else "does not compile", 300)) from error


def problem(expression: str) -> str:
    """Why the expression is refused, empty when it is not."""
    try:
        compiled = _compiled(expression)
    except ExpressionError as error:
        return str(error)
    kind = compiled.return_type()
    return "" if kind in (cel.Type.BOOL, cel.Type.DYN) else f"is {kind.name()}, not true or false"


def holds(expression: str, image: Mapping[str, Any], counts: Mapping[str, int]) -> bool:
    """Whether it holds. Raises ExpressionError for an evaluation error, a spent budget, or a value that is not true or false."""
    try:
        value = _compiled(expression).eval(data={"image": dict(image), "counts": dict(counts)}).plain_value()
    except Exception as error:
        raise ExpressionError(clean_text(str(error), 300)) from error
    if not isinstance(value, bool):
        raise ExpressionError(f"gave {type(value).__name__}, not true or false")
    return value
