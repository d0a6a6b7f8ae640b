"""What was found out about a registry by asking it: facts without judgement, and the posture that checks make of
them.

A fact is a value, or ``Incomplete(reason)`` where it could not be found out. Everything here came over the network
from a host that may lie: texts are bounded and cleaned before they get in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from scanner.model.finding import CheckResult, Incomplete

T = TypeVar("T")
NOT_ASKED = Incomplete("not_probed", "nobody asked")


class Protocol(StrEnum):
    """Versions of TLS, oldest first."""

    SSL_3 = "SSLv3"
    TLS_1_0 = "TLS 1.0"
    TLS_1_1 = "TLS 1.1"
    TLS_1_2 = "TLS 1.2"
    TLS_1_3 = "TLS 1.3"

    @property
    def rank(self) -> int:
        return list(Protocol).index(self)


class Access(StrEnum):
    """What somebody without credentials gets."""

    ALLOWED = "allowed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ProtocolFact:
    """Whether the server agrees to speak this version."""

    protocol: Protocol
    accepted: bool | Incomplete


@dataclass(frozen=True, slots=True)
class CertificateFact:
    """One certificate of the chain as the server sent it.

    ``key`` is RSA, EC, Ed25519, …; ``signature_hash`` is the scheme's own name where it has no hash apart (ed25519),
    empty for one that is not known. ``ocsp``: it names a responder. ``must_staple``: RFC 7633. ``names``: DNS names
    and addresses of its SAN; a DNS name that looks like an address as ``DNS:127.0.0.1``. ``needed``: a client gets
    to a trusted CA by it; servers send others too, such as cross-signatures of long ago.
    """

    subject: str
    issuer: str
    fingerprint: str
    not_before: datetime
    not_after: datetime
    key: str
    key_bits: int
    signature_hash: str
    self_signed: bool
    names: tuple[str, ...] = ()
    ocsp: bool = False
    must_staple: bool = False
    needed: bool = True


@dataclass(frozen=True, slots=True)
class TrustFact:
    """Whether the chain leads to a CA that is trusted here, time and name left aside.

    ``own_ca``: CAs were given beside the system's.
    """

    trusted: bool
    problem: str = ""
    own_ca: bool = False


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What one port says when it is spoken to in TLS. ``weak_ciphers`` names what it agreed to, by class."""

    versions: tuple[ProtocolFact, ...] = ()
    weak_ciphers: tuple[str, ...] | Incomplete = NOT_ASKED
    chain: tuple[CertificateFact, ...] | Incomplete = NOT_ASKED
    trust: TrustFact | Incomplete = NOT_ASKED
    stapled: bool | Incomplete = NOT_ASKED


@dataclass(frozen=True, slots=True)
class PlainFact:
    """What a port says to plain HTTP.

    ``status`` 0: no HTTP at all. ``serves``: it answers as a registry would, and sends nobody to https.
    """

    port: int
    serves: bool
    status: int = 0
    location: str = ""


@dataclass(frozen=True, slots=True)
class ChallengeFact:
    """How a client is asked to authenticate. ``secure``: the challenge came over TLS."""

    scheme: str
    realm: str
    secure: bool


@dataclass(frozen=True, slots=True)
class DigestFact:
    """Whether bytes asked for by digest are those bytes.

    ``problem`` empty: they are, as far as asked; ``asked`` says what was.
    """

    problem: str = ""
    asked: str = ""


@dataclass(frozen=True, slots=True)
class SoftwareFact:
    """What the registry says it is. ``legacy_api``: the V1 protocol, without digests, answers."""

    product: str = ""
    version: str = ""
    legacy_api: bool | Incomplete = False


@dataclass(frozen=True, slots=True)
class AccessFacts:
    """What somebody without credentials gets.

    ``repository`` is the one that was asked about; empty: none is known there.
    """

    catalog: Access | Incomplete = NOT_ASKED
    pull: Access | Incomplete = NOT_ASKED
    push: Access | Incomplete = NOT_ASKED
    delete: Access | Incomplete = NOT_ASKED
    repository: str = ""


@dataclass(frozen=True, slots=True)
class RegistryFacts:
    """Everything that a probe found out about one registry. ``tls`` None: it does not speak TLS."""

    host: str
    port: int
    address: str
    probed_at: datetime
    plain: tuple[PlainFact, ...] | Incomplete = NOT_ASKED
    tls: TlsFacts | Incomplete | None = NOT_ASKED
    hsts: str | Incomplete | None = NOT_ASKED
    challenges: tuple[ChallengeFact, ...] | Incomplete = NOT_ASKED
    access: AccessFacts = field(default_factory=AccessFacts)
    digest: DigestFact | Incomplete = NOT_ASKED
    software: SoftwareFact | Incomplete = NOT_ASKED

    @property
    def name(self) -> str:
        """The host without its port: what a certificate must name."""
        return name_of(self.host)


def name_of(host: str) -> str:
    """``host[:port]`` without the port; an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Posture:
    """What the checks made of a registry's facts, and when."""

    host: str
    checked_at: datetime
    results: tuple[CheckResult, ...]
    repository: str = ""
