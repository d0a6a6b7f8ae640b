"""Which schemes are asked, and what an answer is where nobody is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine

from scanner import catalog
from scanner.config import Secret, Settings
from scanner.model.finding import Signer, TrustStatus, Verification
from scanner.model.reference import Descriptor, Digest, Reference
from scanner.registry.auth import Credentials, CredentialStore
from scanner.registry.client import RegistryClient
from scanner.registry.sources import RegistrySource
from scanner.scanning import verification
from scanner.scanning.pipeline import make_services, verify_signatures
from scanner.scanning.verification import Trust
from scanner.trust.base import TrustRoot
from tests.scanner.store import factories
from tests.scanner.trust.notary_server import cases, serving, tree
from tests.servers import Authority

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
    assert verification.with_new_signatures(known, (replace(signed, checked_at=soon),), soon) is known
    later = verification.with_new_signatures(known, (replace(signed, checked_at=late),), late)
    assert later.images[0].verifications[0].checked_at == late
    changed = verification.with_new_signatures(known, (replace(signed, signers=(), checked_at=soon),), soon)
    assert changed.images[0].verifications[0].signers == ()


CASE = next(case for case in cases() if case["steps"][0]["tree"] == "captures/app-1-targets-only")
HOST, _, REPOSITORY = CASE["gun"].partition("/")


@pytest.mark.parametrize("known", [True, False])
def test_a_scan_tells_notary_the_registrys_credentials(known: bool, authority: Authority, tmp_path: Path) -> None:
    """Harbor's Notary wants a token of Harbor's own token service, which wants the registry's password."""
    with serving(tree("captures/app-1-targets-only"), authority.issue("notary")) as server:
        server.password = "ci:correct horse"
        document = {"mode": "tofu", "server": server.url, "ca": authority.file.read_text()}
        trust = Trust((TrustRoot("release", "notary-v1", document),))
        services = replace(make_services(Settings(home=tmp_path), "0"), trust=trust)
        credentials = {HOST: Credentials("ci", Secret("correct horse"))} if known else {}
        client = RegistryClient(HOST, Settings(), CredentialStore(Settings(), credentials, personal=False), tries=1)
        source = RegistrySource(Reference(HOST, REPOSITORY, "v1"), Settings(), client)
        digest = Digest(CASE["steps"][0]["expect"]["digest"])
        with time_machine.travel(CASE["steps"][0]["time"]):
            answers = verify_signatures(
                source, Descriptor("", digest, 1), services.trust, services.settings, lambda progress: None
            )
    (notary,) = [answer for answer in answers if answer.scheme == "notary-v1"]
    assert notary.status is (TrustStatus.VERIFIED if known else TrustStatus.UNKNOWN), notary
