"""Facts about a registry from probing it, and the posture that checks derive from them.

A fact is a value, or ``Incomplete(reason)`` if it could not be determined. Everything comes from a host that may lie,
so texts are bounded and cleaned first.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime
from enum import StrEnum

from scanner.lazy_dataclasses import dataclass
from scanner.model.finding import CheckResult, Incomplete

NOT_ASKED = Incomplete("not_probed", "not probed")


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
    """What an anonymous client gets."""

    ALLOWED = "allowed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ProtocolFact:
    """Whether the server accepts this version."""

    protocol: Protocol
    accepted: bool | Incomplete


@dataclass(frozen=True, slots=True)
class CertificateFact:
    """One certificate of the chain as sent by the server.

    ``key``: RSA, EC, Ed25519 … ``signature_hash``: the hash, or the scheme's name if it has no separate hash (ed25519);
    empty if unknown. ``ocsp``: it names an OCSP responder. ``must_staple``: RFC 7633. ``names``: DNS names and
    addresses of the SAN; a DNS name that looks like an address is ``DNS:127.0.0.1``. ``needed``: the path to a trusted
    CA uses it; servers also send others, such as old cross-signatures.
    """

    subject: str
    issuer: str
    fingerprint: str  # SHA-256 of the DER, hexadecimal
    not_before: datetime
    not_after: datetime
    key: str
    key_bits: int  # 0: the size says nothing about this kind of key
    signature_hash: str
    self_signed: bool
    names: tuple[str, ...] = ()
    ocsp: bool = False
    must_staple: bool = False
    needed: bool = True


@dataclass(frozen=True, slots=True)
class TrustFact:
    """Whether the chain leads to a trusted CA, ignoring time and name. ``own_ca``: CAs were configured in addition."""

    trusted: bool
    problem: str = ""
    own_ca: bool = False


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """The TLS of one port. ``weak_ciphers``: the classes of weak suites that it accepts."""

    versions: tuple[ProtocolFact, ...] = ()
    weak_ciphers: tuple[str, ...] | Incomplete = NOT_ASKED
    chain: tuple[CertificateFact, ...] | Incomplete = NOT_ASKED  # as sent, leaf first
    trust: TrustFact | Incomplete = NOT_ASKED
    stapled: bool | Incomplete = NOT_ASKED


@dataclass(frozen=True, slots=True)
class PlainFact:
    """The answer of a port to plain HTTP.

    ``status`` 0: no HTTP. ``serves``: it answers as a registry and does not redirect to https.
    """

    port: int
    serves: bool
    status: int = 0
    location: str = ""


@dataclass(frozen=True, slots=True)
class ChallengeFact:
    """An authentication challenge. ``secure``: it came over TLS."""

    scheme: str
    realm: str
    secure: bool


@dataclass(frozen=True, slots=True)
class DigestFact:
    """Whether content requested by digest matches. ``problem``: empty if so. ``asked``: what was requested."""

    problem: str = ""
    asked: str = ""


@dataclass(frozen=True, slots=True)
class SoftwareFact:
    """The registry's product. ``legacy_api``: it answers the V1 protocol, which has no digests."""

    product: str = ""
    version: str = ""
    legacy_api: bool | Incomplete = False


@dataclass(frozen=True, slots=True)
class AccessFacts:
    """What an anonymous client gets. ``repository``: the one that was probed; empty if none is known."""

    catalog: Access | Incomplete = NOT_ASKED
    pull: Access | Incomplete = NOT_ASKED
    push: Access | Incomplete = NOT_ASKED
    delete: Access | Incomplete = NOT_ASKED
    repository: str = ""


@dataclass(frozen=True, slots=True)
class RegistryFacts:
    """All facts of one probe. ``tls`` None: the registry has no TLS."""

    host: str
    port: int
    address: str  # the one that was connected to, of all that the name resolves to
    probed_at: datetime
    plain: tuple[PlainFact, ...] | Incomplete = NOT_ASKED
    tls: TlsFacts | Incomplete | None = NOT_ASKED
    hsts: str | Incomplete | None = NOT_ASKED  # the header's value; None: it is not sent
    challenges: tuple[ChallengeFact, ...] | Incomplete = NOT_ASKED
    access: AccessFacts = field(default_factory=AccessFacts)
    digest: DigestFact | Incomplete = NOT_ASKED
    software: SoftwareFact | Incomplete = NOT_ASKED

    @property
    def name(self) -> str:
        """The host without its port, which a certificate must name."""
        return name_of(self.host)


def name_of(host: str) -> str:
    """``host[:port]`` without the port; an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Posture:
    """The results of the checks of a registry, and when they ran."""

    host: str
    checked_at: datetime
    results: tuple[CheckResult, ...]
    repository: str = ""  # the one that was probed; empty: none was known
