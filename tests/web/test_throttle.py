"""Token buckets: bounded, fair, and forgetting only what is old."""

from __future__ import annotations

import pytest

from scanner.errors import RefusedError
from web.throttle import Rate, Throttle, source_of


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate() -> None:
    clock, rate = Clock(), Rate(3, 0.5)
    throttle = Throttle(clock)
    for _ in range(3):
        throttle.take("x", "a", rate)
    with pytest.raises(RefusedError) as caught:
        throttle.take("x", "a", rate)
    assert caught.value.reason == "rate_limited"
    assert caught.value.retry_after == pytest.approx(2)
    clock.now += 2
    throttle.take("x", "a", rate)
    with pytest.raises(RefusedError):
        throttle.take("x", "a", rate)


def test_sources_and_names_do_not_share() -> None:
    throttle = Throttle(Clock())
    for name, source in (("x", "a"), ("x", "b"), ("y", "a")):
        throttle.take(name, source, Rate(1, 1))
    for name, source in (("x", "a"), ("x", "b"), ("y", "a")):
        with pytest.raises(RefusedError):
            throttle.take(name, source, Rate(1, 1))


def test_failures_are_counted_after_the_fact() -> None:
    throttle, rate = Throttle(Clock()), Rate(2, 1)
    for _ in range(5):
        throttle.check("bad", "a", Rate(100, 1))
    throttle.spend("bad", "a", rate)
    throttle.check("bad", "a", rate)
    throttle.spend("bad", "a", rate)
    with pytest.raises(RefusedError):
        throttle.check("bad", "a", rate)


def test_it_does_not_grow_for_ever() -> None:
    throttle = Throttle(Clock())
    for number in range(10_500):
        throttle.spend("bad", str(number), Rate(2, 1))
    assert len(throttle._buckets) == 10_000


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        (None, "unknown"),
        ("unix", "unix"),
    ],
)
def test_one_subscriber_is_one_source(address: str | None, source: str) -> None:
    assert source_of(address) == source
