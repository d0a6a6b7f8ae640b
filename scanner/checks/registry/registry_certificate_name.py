"""A certificate for another host (RFC 9525 section 6; article: TLS)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Outcome, Passed, Severity
from scanner.model.reference import DOCKER_HUB


class CertificateName(RegistryCheck):
    """The name by which the registry is reached must stand in the certificate's subjectAltName; the common name counts for nothing."""

    id = "registry-certificate-name"
    title = "Certificate is another host's"
    severity = Severity.HIGH
    remedy = "reissue the certificate with the host's name in subjectAltName, or use the name that it has"
    looks_at = "the DNS names and addresses in the certificate's subjectAltName"
    cannot_see = "other names under which clients reach the registry"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls", "certificate")

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        chain = subject.chain()
        if not isinstance(chain, tuple):
            return chain
        wanted = "registry-1.docker.io" if subject.facts.name == DOCKER_HUB else subject.facts.name
        names = chain[0].names
        if any(_fits(name, wanted) for name in names):
            return Passed()
        there = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        message = f"the certificate names {there or 'no host'}, not {wanted}"
        return Failed((Evidence(message, certificate=chain[0].fingerprint),))


def _fits(name: str, wanted: str) -> bool:
    """RFC 9525 section 6.3: labels compared without case; a wildcard is the whole left-most label and stands for one."""
    if (address := _address(wanted)) is not None:
        return _address(name) == address
    have, want = name.lower().rstrip(".").split("."), wanted.lower().rstrip(".").split(".")
    if len(have) != len(want) or not name:
        return False
    return have[1:] == want[1:] and (have[0] == want[0] or (have[0] == "*" and len(have) > 2))


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
