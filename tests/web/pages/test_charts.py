"""Bars: every part that is there can be seen, and together they fill the bar."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from web.pages.charts import Part, bar


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
