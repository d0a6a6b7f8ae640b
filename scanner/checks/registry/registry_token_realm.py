"""Clients are sent for a token to plain HTTP or to a stranger (distribution token specification; CVE-2020-15157)."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from scanner.checks.base import ALLOW, RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Incomplete, NotApplicable, Outcome, Severity

_SECOND_LEVEL = ("ac", "co", "com", "edu", "gov", "net", "or", "org")


class TokenRealm(RegistryCheck):
    """The realm is where clients take their passwords.

    It must be https, and on the registry's host or beside it in its domain.
    """

    id = "registry-token-realm"
    title = "Token service is plain or a stranger's"
    severity = Severity.HIGH
    remedy = "auth: {token: {realm: https://<a host of the registry's own domain>/…}}"
    looks_at = "the realm of each bearer challenge of GET /v2/: its scheme, and its host against the registry's"
    cannot_see = "whether a foreign host is meant to be the token service: then name it in the parameter allow"
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
            return NotApplicable("it sends nobody for a token")
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
        yield Evidence(f"the realm is no address: {realm or 'empty'}")
        return
    if parts.scheme == "http":
        yield Evidence(f"clients send their passwords to {realm} in the clear")
    if not _belongs(host, name.lower()):
        yield Evidence(f"clients of {name} are sent for a token to {host}", name=host)


def _belongs(host: str, name: str) -> bool:
    """The same host, one below it, or one in the domain that its name stands in (registry.example.com,
    auth.example.com).
    """
    if host == name or host.endswith(f".{name}"):
        return True
    domain = name.partition(".")[2]
    labels = domain.split(".")
    # co.uk and its like belong to nobody; neither do addresses.
    if len(labels) < 2 or labels[-1].isdigit() or (len(labels) == 2 and labels[0] in _SECOND_LEVEL):
        return False
    return host == domain or host.endswith(f".{domain}")
