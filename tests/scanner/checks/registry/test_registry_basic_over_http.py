"""Passwords in the clear."""

from __future__ import annotations

from scanner.checks.registry.registry_basic_over_http import BasicOverHttp
from scanner.model.finding import NotApplicable, Passed
from scanner.model.posture import ChallengeFact
from tests.scanner.checks.registries import examine, messages


def test_over_tls_over_http_and_not_at_all() -> None:
    assert isinstance(examine(BasicOverHttp(), challenges=(ChallengeFact("basic", "r", True),)), Passed)
    plain = examine(BasicOverHttp(), challenges=(ChallengeFact("basic", "r", False),))
    assert messages(plain) == ["the registry requests a password over plain HTTP (realm r)"]
    assert isinstance(examine(BasicOverHttp(), challenges=()), NotApplicable)
