"""Which schemes are asked, and what an answer is where nobody is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from scanner import catalog
from scanner.config import Settings
from scanner.model.finding import Signer, TrustStatus, Verification
from scanner.model.reference import Descriptor, Digest, Reference
from scanner.scanning import verification
from scanner.scanning.verification import Trust
from scanner.trust.base import TrustRoot
from tests.scanner.store import factories

NOW = datetime(2026, 11, 23, 7, tzinfo=UTC)
IMAGE = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(b"image"), 5)
NAME = Reference.parse("registry.example.com/shop/cart:1")


class Registry:
    """Whoever is asked here is noticed."""

    def manifest(self, reference: Reference) -> tuple[Descriptor, bytes]:
        raise AssertionError("nobody may be asked")

    def blob(self, reference: Reference, digest: Digest, limit: int) -> bytes:
        raise AssertionError("nobody may be asked")

    def referrers(self, reference: Reference, digest: Digest, artifact_type: str = "") -> list[Descriptor]:
        raise AssertionError("nobody may be asked")


def verify(*roots: TrustRoot) -> tuple[Verification, ...]:
    return verification.verify(NAME, IMAGE, Registry(), Trust(roots), Settings(), NOW)


def test_where_nobody_is_trusted_nobody_is_asked() -> None:
    elsewhere = TrustRoot("team", "notary-v1", {"mode": "tofu"}, ("registry.example.com/other/**",))
    for found in (verify(), verify(elsewhere)):
        assert {v.scheme for v in found} == set(catalog.schemes())
        assert {(v.status, v.reason) for v in found} == {(TrustStatus.UNKNOWN, "no_trust_root")}


def test_a_verifier_that_breaks_has_not_verified() -> None:
    root = TrustRoot("team", "notary-v1", {"mode": "nonsense"}, ("registry.example.com/**",))
    broken = [v for v in verify(root) if v.scheme == "notary-v1"]
    assert [(v.status, v.reason) for v in broken] == [(TrustStatus.UNKNOWN, "verifier_failed")]


def test_the_same_answers_are_kept_while_they_are_young() -> None:
    signed = Verification("notary-v1", TrustStatus.VERIFIED, IMAGE.digest, signers=(Signer("a"),), checked_at=NOW)
    known = factories.report()
    known = replace(known, images=tuple(replace(image, verifications=(signed,)) for image in known.images))
    soon, late = NOW + timedelta(hours=1), NOW + timedelta(hours=7)
    assert verification.renewed(known, (replace(signed, checked_at=soon),), soon) is known
    later = verification.renewed(known, (replace(signed, checked_at=late),), late)
    assert later.images[0].verifications[0].checked_at == late
    changed = verification.renewed(known, (replace(signed, signers=(), checked_at=soon),), soon)
    assert changed.images[0].verifications[0].signers == ()
