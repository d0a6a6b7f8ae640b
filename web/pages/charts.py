"""Charts as inline SVG without scripts or style attributes. A table beside each chart has the same figures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scanner.model.image import Layer, PathSize


@dataclass(frozen=True)
class Part:
    """One part of a bar. ``value``: its share. ``kind``: a CSS class and pattern. ``href``: what it opens."""

    kind: str
    label: str
    value: int
    href: str = ""


@dataclass(frozen=True)
class Segment:
    """A drawn part of a bar, in units of a bar that is 100 wide."""

    part: Part
    x: float  # where it begins
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


@dataclass(frozen=True)
class TreeRow:
    """A file or directory of a layer. ``depth``: of the tree. ``width``: its part of the layer, in percent."""

    item: PathSize
    name: str
    depth: int
    width: float


def tree(layer: Layer) -> Sequence[TreeRow]:
    """The largest files and directories of a layer as a tree, the largest of each directory first."""
    below: dict[str, list[PathSize]] = defaultdict(list)
    for item in layer.largest:
        below[item.path.rpartition("/")[0]].append(item)
    total = max(layer.uncompressed_size or 0, sum(item.size for item in below[""]), 1)

    def rows(parent: str, depth: int) -> Iterator[TreeRow]:
        for item in sorted(below[parent], key=lambda item: (-item.size, item.path)):
            name = item.path.rpartition("/")[2] + ("/" if item.directory else "")
            yield TreeRow(item, name, depth, round(max(0.4, 100.0 * item.size / total), 2))
            if item.directory:
                yield from rows(item.path, depth + 1)

    return list(rows("", 0))
