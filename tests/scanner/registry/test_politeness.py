"""How long a registry asks us to wait, in each form that registries use."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.registry.politeness import LONGEST, advised_pause, retry_after

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        ("999999", LONGEST),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"RateLimit": '"default";r=50;t=30', "RateLimit-Policy": '"default";q=100;w=60'}, 0.0),
        ({"RateLimit": '"default";r=3;t=30', "RateLimit-Policy": '"default";q=100;w=60'}, 30.0),
        ({"RateLimit-Limit": "600", "RateLimit-Remaining": "500", "RateLimit-Reset": "1800000042"}, 0.0),
        ({"RateLimit-Limit": "600", "RateLimit-Remaining": "10", "RateLimit-Reset": "1800000042"}, 42.0),  # GitLab
        ({"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1799999999"}, 0.0),  # past
        ({"X-RateLimit-Remaining": "2", "X-RateLimit-Reset": "20"}, 20.0),
        ({"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}, 0.0),  # Docker Hub
        ({"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "9;w=21600"}, 2160.0),
        ({"RateLimit-Remaining": "1"}, 60.0),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "99999999"}, LONGEST),
        ({"RateLimit-Remaining": "none", "RateLimit": "r=;t=x"}, 0.0),
    ],
)
def test_a_share_of_each_limit_is_left_to_others(headers: dict[str, str], seconds: float) -> None:
    assert advised_pause(httpx.Headers(headers), NOW) == seconds


@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60), st.text("0123456789;=rtwq", max_size=40)
)
def test_no_header_breaks_it(one: str, other: str) -> None:
    headers = {"RateLimit": one, "RateLimit-Remaining": other, "RateLimit-Limit": one, "RateLimit-Reset": other}
    assert 0 <= advised_pause(httpx.Headers(headers), NOW) <= LONGEST
    assert 0 <= (retry_after(one, NOW) or 0) <= LONGEST
