"""The header, and for how long."""

from __future__ import annotations

import pytest

from scanner.checks.registry.registry_hsts import Hsts
from scanner.model.finding import Failed, NotApplicable, Passed
from tests.scanner.checks.registries import UNKNOWN, examine


@pytest.mark.parametrize(
    ("header", "outcome"),
    [
        ("max-age=31536000", Passed),
        ('Max-Age="31536000"; includeSubDomains', Passed),
        ("includeSubDomains; max-age=31536000", Passed),
        (None, Failed),
        ("max-age=0", Failed),
        ("max-age=3600", Failed),
        ("includeSubDomains", Failed),
        ("xmax-age=31536000", Failed),
        ("max-age=" + "9" * 400, Failed),
    ],
)
def test_headers(header: str | None, outcome: type) -> None:
    assert isinstance(examine(Hsts(), hsts=header), outcome)


def test_a_policy_may_ask_for_less_but_not_for_nothing() -> None:
    assert isinstance(examine(Hsts(), {"min_days": 30}, hsts="max-age=2678400"), Passed)
    assert isinstance(examine(Hsts(), {"min_days": 0}, hsts=None), Failed)


def test_addresses_plain_registries_and_the_unknown() -> None:
    assert isinstance(examine(Hsts(), host="127.0.0.1:5000", hsts=None), NotApplicable)
    assert isinstance(examine(Hsts(), tls=None, hsts=None), NotApplicable)
    assert examine(Hsts(), hsts=UNKNOWN) == UNKNOWN
