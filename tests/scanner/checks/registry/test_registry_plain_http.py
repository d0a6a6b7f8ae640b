"""Plain HTTP, beside TLS or instead of it."""

from __future__ import annotations

from scanner.checks.registry.registry_plain_http import PlainHttp
from scanner.model.finding import Incomplete, Passed
from scanner.model.posture import PlainFact
from tests.scanner.checks.registries import examine, messages


def test_a_refusal_and_a_redirect_are_as_good_as_silence() -> None:
    plain = (
        PlainFact(443, False, 400),
        PlainFact(80, False, 301, "https://registry.example.com/"),
        PlainFact(80, False),
    )
    assert isinstance(examine(PlainHttp(), plain=plain), Passed)


def test_each_port_that_serves_is_named() -> None:
    outcome = examine(PlainHttp(), plain=(PlainFact(443, False, 400), PlainFact(80, True, 401)))
    assert messages(outcome) == ["port 80 serves the API over plain HTTP (status 401)"]


def test_no_port_that_was_asked_is_no_answer() -> None:
    assert isinstance(examine(PlainHttp(), plain=()), Incomplete)
