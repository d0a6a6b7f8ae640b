"""Certificate for another host (RFC 9525 section 6; article: TLS)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Outcome, Passed, Severity
from scanner.model.reference import DOCKER_HUB
from scanner.patterns import lazy

# Go accepts underscores in names of certificates.
_LABEL = lazy(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


class CertificateName(RegistryCheck):
    """The subjectAltName of the certificate must contain the registry's host. Clients ignore the common name."""

    id = "registry-certificate-name"
    title = "Certificate is for another host"
    severity = Severity.HIGH
    remedy = "reissue the certificate with the host in subjectAltName, or use a host that it contains"
    looks_at = "the DNS names and addresses in the certificate's subjectAltName"
    cannot_see = "other host names of the registry"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls", "certificate")

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        chain = subject.chain()
        if not isinstance(chain, tuple):
            return chain
        wanted = "registry-1.docker.io" if subject.facts.name == DOCKER_HUB else subject.facts.name
        names = chain[0].names
        if any(_name_matches(name, wanted) for name in names):
            return Passed()
        there = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        message = f"the certificate is for {there}, not for {wanted}" if there else "the certificate contains no names"
        return Failed((Evidence(message, certificate=chain[0].fingerprint),))


def _name_matches(name: str, wanted: str) -> bool:
    """Match a host like Go's ``Certificate.VerifyHostname`` and RFC 9525 section 6.3.

    IP addresses match only addresses in the SAN. Labels are compared without case. A wildcard is the complete left-most
    label and matches one label. Only the wanted name may end with a dot. Unlike Go, but like OpenSSL and browsers,
    ``*.com`` matches nothing.
    """
    address = _address(wanted)
    if address is not None:
        return _address(name) == address
    if _address(name) is not None:  # ``127.0.0.1.`` is a name, which an address of the SAN does not stand for
        return False
    wanted = wanted.lower()
    have, want = name.lower().split("."), wanted.removesuffix(".").split(".")
    if not _valid(have, pattern=True) or not _valid(want, pattern=False):
        return wanted not in ("", ".") and name.lower() == wanted
    if len(have) != len(want) or have[1:] != want[1:]:
        return False
    return have[0] == want[0] or (have[0] == "*" and len(have) > 2)


def _valid(labels: Sequence[str], *, pattern: bool) -> bool:
    """Return whether labels consist of letters, digits, hyphens and underscores.

    Other names are compared completely.
    """
    return all(
        _LABEL.fullmatch(label) or (pattern and index == 0 and label == "*") for index, label in enumerate(labels)
    )


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address, IPv4-mapped ones as IPv4. None: a name, or an address with a zone."""
    try:
        found = ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        return None if found.scope_id else found.ipv4_mapped or found
    return found
