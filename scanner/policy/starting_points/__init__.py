"""Policies to start from. Each is a valid document whose description says what it is for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from scanner.policy.rules import KnownNames, parse_policy

NAMES = ("baseline", "production", "pci-cis", "signed-only")


@dataclass(frozen=True)
class StartingPoint:
    """A policy's text to begin with."""

    name: str
    description: str
    text: str


@cache
def starting_points(known: KnownNames) -> tuple[StartingPoint, ...]:
    """Return the starting points, the mildest first."""
    found = []
    for name in NAMES:
        text = files("scanner.policy.starting_points").joinpath(f"{name}.yaml").read_text("utf-8")
        found.append(StartingPoint(name, parse_policy(text, name, known=known).description, text))
    return tuple(found)
