"""Facts about registries for checks: those of a good one, with what matters to a test changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Failed, Incomplete, Outcome
from scanner.model.posture import (
    Access,
    AccessFacts,
    CertificateFact,
    ChallengeFact,
    DigestFact,
    PlainFact,
    Protocol,
    ProtocolFact,
    RegistryFacts,
    SoftwareFact,
    TlsFacts,
    TrustFact,
)

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
UNKNOWN = Incomplete("no_answer", "nobody answered")


def certificate(**changes: Any) -> CertificateFact:
    made = CertificateFact(
        "CN=registry.example.com",
        "CN=CA",
        "ab" * 32,
        NOW - timedelta(days=30),
        NOW + timedelta(days=60),
        "EC",
        256,
        "sha256",
        self_signed=False,
        names=("registry.example.com",),
        ocsp=True,
    )
    return replace(made, **changes)


def versions(*spoken: Protocol) -> tuple[ProtocolFact, ...]:
    return tuple(ProtocolFact(p, p in spoken) for p in Protocol)


GOOD_TLS = TlsFacts(versions(Protocol.TLS_1_2, Protocol.TLS_1_3), (), (certificate(),), TrustFact(True), stapled=True)
GOOD = RegistryFacts(
    "registry.example.com",
    443,
    "192.0.2.1",
    NOW,
    (PlainFact(443, False, 400), PlainFact(80, False, 301)),
    GOOD_TLS,
    "max-age=31536000",
    (ChallengeFact("bearer", "https://auth.example.com/token", True), ChallengeFact("basic", "registry", True)),
    AccessFacts(Access.REFUSED, Access.REFUSED, Access.REFUSED, Access.REFUSED, "team/app"),
    DigestFact(asked="team/app:1"),
    SoftwareFact("Nexus", "3.90.1"),
)


def subject(parameters: Mapping[str, Any] | None = None, **changes: Any) -> RegistrySubject:
    return RegistrySubject(replace(GOOD, **changes), NOW, parameters or {})


def examine(check: RegistryCheck, parameters: Mapping[str, Any] | None = None, **changes: Any) -> Outcome:
    """The check's word on the good registry with these facts changed."""
    return check.examine(subject({**check.parameters, **(parameters or {})}, **changes))


def tls(**changes: Any) -> TlsFacts:
    return replace(GOOD_TLS, **changes)


def chain(**changes: Any) -> TlsFacts:
    """TLS whose one certificate has these members changed."""
    return tls(chain=(certificate(**changes),))


def broken() -> Mapping[str, RegistrySubject]:
    """Registries of which nothing could be found out: each fact alone, and all at once."""
    inner = TlsFacts(tuple(ProtocolFact(p, UNKNOWN) for p in Protocol), UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
    access = AccessFacts(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
    whole = {
        "plain": UNKNOWN,
        "hsts": UNKNOWN,
        "challenges": UNKNOWN,
        "access": access,
        "digest": UNKNOWN,
        "software": UNKNOWN,
    }
    return {
        "no answer at all": subject(tls=UNKNOWN, **whole),
        "TLS that ends in the middle": subject(tls=inner, **whole),
        "never asked": RegistrySubject(RegistryFacts("registry.example.com", 443, "", NOW), NOW),
    }


def messages(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Failed)
    return [evidence.message for evidence in outcome.evidence]
