"""Hashes in signatures."""

from __future__ import annotations

import pytest

from scanner.checks.registry.registry_certificate_signature import CertificateSignature
from scanner.model.finding import Failed, Incomplete, NotApplicable, Passed
from tests.scanner.checks.registries import certificate, chain, examine, messages, tls


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("sha256", Passed),
        ("sha512", Passed),
        ("ed25519", Passed),
        ("sha1", Failed),
        ("md5", Failed),
        ("", Incomplete),
        ("shake999", Incomplete),
    ],
)
def test_hashes(name: str, outcome: type) -> None:
    assert isinstance(examine(CertificateSignature(), tls=chain(signature_hash=name)), outcome)


def test_an_intermediate_counts_and_a_root_does_not() -> None:
    root = certificate(subject="CN=Root", issuer="CN=Root", self_signed=True, signature_hash="sha1")
    assert isinstance(examine(CertificateSignature(), tls=tls(chain=(certificate(), root))), Passed)
    middle = certificate(subject="CN=CA", signature_hash="sha1")
    assert messages(examine(CertificateSignature(), tls=tls(chain=(certificate(), middle, root)))) == [
        "CN=CA is signed with sha1"
    ]
    assert isinstance(examine(CertificateSignature(), tls=tls(chain=(root,))), Failed), (
        "a server's own certificate counts always"
    )
    assert isinstance(examine(CertificateSignature(), tls=None), NotApplicable)
