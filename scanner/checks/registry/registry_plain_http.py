"""Plain HTTP is answered: images, tokens and passwords can be read and changed on their way (article: TLS)."""

from __future__ import annotations

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity


class PlainHttp(RegistryCheck):
    """A registry that serves its API without TLS, beside TLS or instead of it.

    A redirect to https is as good as silence.
    """

    id = "registry-plain-http"
    title = "Answers plain HTTP"
    severity = Severity.HIGH
    remedy = "serve TLS only: http: {tls: {certificate: …, key: …}}; let port 80 redirect to https or close it"
    looks_at = "the answer to a plain GET /v2/ on the registry's own port, and on port 80 where TLS is on 443"
    cannot_see = "other ports"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls")

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        plain = subject.facts.plain
        if isinstance(plain, Incomplete):
            return plain
        if not plain:
            return Incomplete("not_probed", "no port was asked")
        served = [fact for fact in plain if fact.serves]
        if not served:
            return Passed()
        return Failed(
            tuple(Evidence(f"port {fact.port} answers plain HTTP with status {fact.status}") for fact in served)
        )
