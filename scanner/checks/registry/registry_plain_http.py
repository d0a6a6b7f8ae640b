"""Plain HTTP (article: TLS)."""

from __future__ import annotations

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity


class PlainHttp(RegistryCheck):
    """Without TLS, images, tokens and passwords can be read and changed in the network.

    A redirect to https is accepted.
    """

    id = "registry-plain-http"
    title = "API is available over plain HTTP"
    severity = Severity.HIGH
    remedy = "serve TLS only: http: {tls: {certificate: …, key: …}}; redirect port 80 to https or close it"
    looks_at = "the answer to GET /v2/ over plain HTTP on the registry's port, and on port 80 if TLS is on 443"
    cannot_see = "other ports"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls")

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        plain = subject.facts.plain
        if isinstance(plain, Incomplete):
            return plain
        if not plain:
            return Incomplete("not_probed", "no port was probed")
        served = [fact for fact in plain if fact.serves]
        if not served:
            return Passed()
        return Failed(
            tuple(
                Evidence(f"port {fact.port} serves the API over plain HTTP (status {fact.status})") for fact in served
            )
        )
