"""The memory of decisions at a door: bounded, and nothing in it outlives its time."""

from __future__ import annotations

from scanner.services.doors import DecisionCache


def test_the_oldest_goes_first_and_what_has_ended_is_gone() -> None:
    cache = DecisionCache(size=2)
    for name in (b"a", b"b", b"a", b"c"):
        cache.put(name, name.decode(), None)
    assert [cache.get(name) for name in (b"a", b"b", b"c")] == ["a", None, "c"]
    cache.put(b"c", "ended", 1.0)
    assert cache.get(b"c") is None
