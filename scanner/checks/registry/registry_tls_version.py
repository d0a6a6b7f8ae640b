"""Old versions of TLS (RFC 8996, RFC 7568; article: TLS)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Severity
from scanner.model.posture import Protocol, TlsFacts


class TlsVersion(RegistryCheck):
    """SSLv3, TLS 1.0 and TLS 1.1 are broken or deprecated. A registry without TLS fails, too."""

    id = "registry-tls-version"
    title = "Outdated TLS version, or no TLS"
    severity = Severity.HIGH
    remedy = "allow TLS 1.2 and 1.3 only: http: {tls: {minimumtls: tls1.2}}, or ssl_protocols TLSv1.2 TLSv1.3;"
    looks_at = "the answer to a ClientHello of each version from SSLv3 to TLS 1.3"
    cannot_see = "SSLv2; other IP addresses of the host"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls")
    parameters: ClassVar[dict[str, Any]] = {"minimum": "TLS 1.2"}

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        tls = subject.facts.tls
        if tls is None:
            return Failed((Evidence("the registry does not use TLS"),))
        if not isinstance(tls, TlsFacts):
            return tls
        accepted = [f.protocol for f in tls.versions if f.accepted is True]
        judged = self.judged((Evidence(f"the registry accepts {p}", name=str(p)) for p in accepted), subject.parameters)
        if isinstance(judged, Failed):
            return judged
        unclear = [f.accepted for f in tls.versions if isinstance(f.accepted, Incomplete)]
        if unclear or {f.protocol for f in tls.versions} != set(Protocol):
            return unclear[0] if unclear else Incomplete("not_probed", "not every version was probed")
        return judged if accepted else Incomplete("no_version", "the registry accepts no version from SSLv3 to TLS 1.3")

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """See ``Check.tolerates``. An invalid minimum accepts no version."""
        number = str(parameters["minimum"]).lower().removeprefix("tls").strip(" v")  # "TLS 1.2", "TLSv1.2", "1.2"
        minimum = next((p for p in Protocol if p.lower().removeprefix("tls ") == number), None)
        return minimum is not None and bool(evidence.name) and Protocol(evidence.name).rank >= minimum.rank
