"""Kinds and sizes of keys."""

from __future__ import annotations

import pytest

from scanner.checks.registry.registry_certificate_key import CertificateKey
from scanner.model.finding import Failed, Incomplete, NotApplicable, Passed
from tests.scanner.checks.registries import certificate, chain, examine, messages, tls


@pytest.mark.parametrize(
    ("key", "bits", "outcome"),
    [
        ("RSA", 2048, Passed),
        ("RSA", 2047, Failed),
        ("RSA", 1024, Failed),
        ("EC", 256, Passed),
        ("EC", 224, Failed),
        ("Ed25519", 256, Passed),
        ("Ed448", 456, Passed),
        ("DSA", 3072, Failed),
        ("SomethingNew", 0, Incomplete),
    ],
)
def test_keys(key: str, bits: int, outcome: type) -> None:
    assert isinstance(examine(CertificateKey(), tls=chain(key=key, key_bits=bits)), outcome)


def test_a_weak_intermediate_is_named() -> None:
    both = (certificate(), certificate(subject="CN=CA", key="RSA", key_bits=1024))
    assert messages(examine(CertificateKey(), tls=tls(chain=both))) == ["CN=CA has a RSA key of 1024 bits"]
    assert isinstance(examine(CertificateKey(), tls=None), NotApplicable)
