"""Weak suites that the server agreed to."""

from __future__ import annotations

from scanner.checks.registry.registry_tls_ciphers import TlsCiphers
from scanner.model.finding import Passed
from tests.scanner.checks.registries import UNKNOWN, examine, messages, tls


def test_none_some_and_unknown() -> None:
    assert isinstance(examine(TlsCiphers()), Passed)
    assert messages(examine(TlsCiphers(), tls=tls(weak_ciphers=("RC4", "single DES")))) == [
        "the registry accepts RC4 suites",
        "the registry accepts single DES suites",
    ]
    assert examine(TlsCiphers(), tls=tls(weak_ciphers=UNKNOWN)) == UNKNOWN


def test_no_tls_is_weaker_still() -> None:
    assert messages(examine(TlsCiphers(), tls=None)) == ["the registry does not use TLS, so nothing is encrypted"]
