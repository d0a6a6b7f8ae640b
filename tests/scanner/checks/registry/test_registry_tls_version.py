"""Versions of TLS, by what the server agreed to."""

from __future__ import annotations

import pytest

from scanner.checks.registry.registry_tls_version import TlsVersion
from scanner.model.finding import Failed, Incomplete, Passed
from scanner.model.posture import Protocol, ProtocolFact
from tests.scanner.checks.registries import GOOD_TLS, UNKNOWN, examine, messages, tls, versions


def test_only_new_versions() -> None:
    outcome = examine(TlsVersion())
    assert isinstance(outcome, Passed)
    assert [evidence.name for evidence in outcome.tolerated] == ["TLS 1.2", "TLS 1.3"]


def test_each_old_version_is_named() -> None:
    outcome = examine(TlsVersion(), tls=tls(versions=versions(*Protocol)))
    assert messages(outcome) == [
        "the registry accepts SSLv3",
        "the registry accepts TLS 1.0",
        "the registry accepts TLS 1.1",
    ]


def test_no_tls_is_older_than_all_of_them() -> None:
    assert messages(examine(TlsVersion(), tls=None)) == ["the registry does not use TLS"]


def test_one_version_that_nobody_answered_about_is_not_known() -> None:
    facts = (ProtocolFact(Protocol.SSL_3, UNKNOWN), *GOOD_TLS.versions[1:])
    assert examine(TlsVersion(), tls=tls(versions=facts)) == UNKNOWN
    assert isinstance(examine(TlsVersion(), tls=tls(versions=GOOD_TLS.versions[3:])), Incomplete)
    old = (ProtocolFact(Protocol.SSL_3, UNKNOWN), *versions(Protocol.TLS_1_0)[1:])
    assert isinstance(examine(TlsVersion(), tls=tls(versions=old)), Failed), (
        "what is known to be bad is not hidden by what is not"
    )


def test_no_version_at_all() -> None:
    assert isinstance(examine(TlsVersion(), tls=tls(versions=versions())), Incomplete)


@pytest.mark.parametrize(
    ("minimum", "fails"), [("TLS 1.3", True), ("1.3", True), ("tlsv1.2", False), ("nonsense", True), ("SSLv3", False)]
)
def test_a_policy_may_ask_for_another_minimum(minimum: str, fails: bool) -> None:
    assert isinstance(examine(TlsVersion(), {"minimum": minimum}), Failed) is fails
