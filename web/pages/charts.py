"""Charts as inline SVG without scripts or style attributes. A table beside each chart has the same figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One part of a bar. ``value``: its share. ``kind``: a CSS class for colour and pattern."""

    kind: str
    label: str
    value: int


@dataclass(frozen=True)
class Segment:
    """A drawn part of a bar, in units of a bar that is 100 wide."""

    part: Part
    x: float
    width: float


def bar(parts: Sequence[Part]) -> Sequence[Segment]:
    """Place the parts side by side, without empty ones. A small part is at least one unit wide, to be visible."""
    shown = [part for part in parts if part.value > 0]
    total = sum(part.value for part in shown)
    widths = [max(1.0, 100.0 * part.value / total) for part in shown]
    scale = 100.0 / sum(widths) if widths else 1.0
    segments, x = [], 0.0
    for part, width in zip(shown, widths, strict=True):
        segments.append(Segment(part, round(x, 2), round(width * scale, 2)))
        x += width * scale
    return segments
