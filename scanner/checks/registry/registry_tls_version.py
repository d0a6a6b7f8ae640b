"""Old versions of TLS (RFC 8996, RFC 7568; article: TLS)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Severity
from scanner.model.posture import Protocol, TlsFacts


class TlsVersion(RegistryCheck):
    """SSLv3, TLS 1.0 and 1.1 are broken or forbidden.

    A registry without any TLS fails too: it is older than all of them.
    """

    id = "registry-tls-version"
    title = "Old TLS, or none"
    severity = Severity.HIGH
    remedy = "allow TLS 1.2 and 1.3 only: http: {tls: {minimumtls: tls1.2}}, or ssl_protocols TLSv1.2 TLSv1.3;"
    looks_at = "the answer to a ClientHello of each version from SSLv3 to TLS 1.3"
    cannot_see = "SSLv2; other addresses of the same name"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls")
    parameters: ClassVar[dict[str, Any]] = {"minimum": "TLS 1.2"}

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        tls = subject.facts.tls
        if tls is None:
            return Failed((Evidence("it speaks no TLS at all"),))
        if not isinstance(tls, TlsFacts):
            return tls
        spoken = [f.protocol for f in tls.versions if f.accepted is True]
        judged = self.judged((Evidence(f"it speaks {p}", name=str(p)) for p in spoken), subject.parameters)
        if isinstance(judged, Failed):
            return judged
        unclear = [f.accepted for f in tls.versions if isinstance(f.accepted, Incomplete)]
        if unclear or {f.protocol for f in tls.versions} != set(Protocol):
            return unclear[0] if unclear else Incomplete("not_probed", "not every version was asked for")
        return judged if spoken else Incomplete("no_version", "it agrees to no version from SSLv3 to TLS 1.3")

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """See ``Check.tolerates``. A minimum that is no version tolerates none."""
        number = str(parameters["minimum"]).lower().removeprefix("tls").strip(" v")  # "TLS 1.2", "TLSv1.2", "1.2"
        minimum = next((p for p in Protocol if p.lower().removeprefix("tls ") == number), None)
        return minimum is not None and bool(evidence.name) and Protocol(evidence.name).rank >= minimum.rank
