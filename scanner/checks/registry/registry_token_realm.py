"""Host of the token service (distribution token specification; CVE-2020-15157)."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from scanner.checks.base import ALLOW, RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Incomplete, NotApplicable, Outcome, Severity

_SECOND_LEVEL = ("ac", "co", "com", "edu", "gov", "net", "or", "org")


class TokenRealm(RegistryCheck):
    """Clients send their passwords to the realm. It must use https, and belong to the registry's host or domain."""

    id = "registry-token-realm"
    title = "Token service without TLS or on a foreign host"
    severity = Severity.HIGH
    remedy = "auth: {token: {realm: https://<a host in the registry's domain>/…}}"
    looks_at = "the realm of bearer challenges of GET /v2/: its scheme, and its host, compared with the registry's"
    cannot_see = "whether a foreign host is the intended token service: add it to the parameter allow"
    article = ("Security: Registry Security",)
    tags = ("registry", "authentication")
    parameters = ALLOW

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        challenges = subject.facts.challenges
        if isinstance(challenges, Incomplete):
            return challenges
        bearer = [challenge for challenge in challenges if challenge.scheme == "bearer"]
        if not bearer:
            return NotApplicable("the registry does not use bearer tokens")
        return self.judged(
            (evidence for challenge in bearer for evidence in _problems(challenge.realm, subject.facts.name)),
            subject.parameters,
        )


def _problems(realm: str, name: str) -> Iterator[Evidence]:
    try:
        parts = urlsplit(realm)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        host, parts = "", urlsplit("")
    if not host or parts.scheme not in ("http", "https"):
        yield Evidence(f"the realm is not a URL: {realm or 'empty'}")
        return
    if parts.scheme == "http":
        yield Evidence(f"clients send their passwords to {realm} in clear text")
    if not _belongs(host, name.lower()):
        yield Evidence(f"clients of {name} send their passwords to {host}", name=host)


def _belongs(host: str, name: str) -> bool:
    """Return whether ``host`` is the registry's host, a subdomain, or in the same domain (auth.example.com for
    registry.example.com).
    """
    if host == name or host.endswith(f".{name}"):
        return True
    domain = name.partition(".")[2]
    labels = domain.split(".")
    # Public suffixes such as co.uk, and IP addresses, are not a common domain.
    if len(labels) < 2 or labels[-1].isdigit() or (len(labels) == 2 and labels[0] in _SECOND_LEVEL):
        return False
    return host == domain or host.endswith(f".{domain}")
