"""Bars: every part that is there can be seen, and together they fill the bar."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scanner.model.image import Layer, PathSize
from scanner.model.reference import Digest
from web.pages.charts import Part, bar, tree


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first example pays for the imports
@given(st.lists(st.integers(0, 10**6), max_size=12))
def test_parts_fill_the_bar_in_order(values: list[int]) -> None:
    segments = bar([Part("allow", str(n), value) for n, value in enumerate(values)])
    assert [s.part.value for s in segments] == [value for value in values if value]
    ends = 0.0
    for segment in segments:
        assert abs(segment.x - ends) < 0.1
        assert segment.width > 0.5
        ends = segment.x + segment.width
    assert not segments or abs(ends - 100) < 0.1


def test_nothing_is_no_bar() -> None:
    assert bar([Part("deny", "denied", 0)]) == []


def test_a_layer_is_a_tree_with_the_largest_first() -> None:
    paths = (
        PathSize("usr", 60, 3, True),
        PathSize("app", 30, 1, True),
        PathSize("usr/a", 10),
        PathSize("usr/b", 40),
        PathSize("app/main", 30),
    )
    layer = Layer(0, Digest.of(b"l"), Digest.of(b"d"), "tar", 1, 100, files=4, largest=paths)
    rows = [(row.name, row.depth, row.width) for row in tree(layer)]
    assert rows == [("usr/", 0, 60.0), ("b", 1, 40.0), ("a", 1, 10.0), ("app/", 0, 30.0), ("main", 1, 30.0)]
    assert tree(Layer(0, Digest.of(b"l"), Digest.of(b"d"), "tar", 1)) == []
