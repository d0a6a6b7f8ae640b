"""Who vouches for the certificate."""

from __future__ import annotations

from scanner.checks.registry.registry_certificate_trust import CertificateTrust
from scanner.model.finding import Passed
from scanner.model.posture import TrustFact
from tests.scanner.checks.registries import UNKNOWN, certificate, examine, messages, tls


def test_a_ca_of_the_system_or_one_that_was_given() -> None:
    assert isinstance(examine(CertificateTrust()), Passed)
    assert isinstance(examine(CertificateTrust(), tls=tls(trust=TrustFact(True, own_ca=True))), Passed)


def test_self_signed_and_unknown_cas_are_told_apart() -> None:
    untrusted = TrustFact(False, "unable to get local issuer certificate")
    (alone,) = messages(examine(CertificateTrust(), tls=tls(trust=untrusted, chain=(certificate(self_signed=True),))))
    assert alone.startswith("the certificate is self-signed (CN=registry.example.com)")
    (private,) = messages(examine(CertificateTrust(), tls=tls(trust=untrusted)))
    assert private.startswith("CN=registry.example.com has no trusted CA; the issuer CN=CA is unknown")
    assert private.endswith("no private CA is configured")
    (unread,) = messages(examine(CertificateTrust(), tls=tls(trust=untrusted, chain=UNKNOWN)))
    assert unread.startswith("the certificate is not trusted")


def test_no_tls_and_no_handshake() -> None:
    assert messages(examine(CertificateTrust(), tls=None)) == [
        "the registry does not use TLS, so clients cannot verify its identity"
    ]
    assert examine(CertificateTrust(), tls=tls(trust=UNKNOWN)) == UNKNOWN
