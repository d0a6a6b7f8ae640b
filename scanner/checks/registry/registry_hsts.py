"""No Strict-Transport-Security (RFC 6797)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, ClassVar

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, NotApplicable, Outcome, Severity

_MAX_AGE = re.compile(r'(?:^|;)\s*max-age\s*=\s*"?(\d{1,12})"?\s*(?:;|$)', re.IGNORECASE)


class Hsts(RegistryCheck):
    """Registry clients do not heed it, but browsers on the same host's pages do: a first plain request can be led
    astray.
    """

    id = "registry-hsts"
    title = "No Strict-Transport-Security"
    severity = Severity.LOW
    remedy = "http: {headers: {Strict-Transport-Security: [max-age=63072000]}}"
    looks_at = "the Strict-Transport-Security header of GET /v2/, and its max-age against min_days"
    cannot_see = "the preload lists of browsers"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls")
    parameters: ClassVar[dict[str, Any]] = {"min_days": 180}

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        facts = subject.facts
        if facts.tls is None:
            return NotApplicable("it speaks no TLS")
        if isinstance(facts.hsts, Incomplete):
            return facts.hsts
        if _is_address(facts.name):
            return NotApplicable("browsers heed it for names, not for addresses")
        if facts.hsts is None:
            return Failed((Evidence("GET /v2/ answers without Strict-Transport-Security"),))
        match = _MAX_AGE.search(facts.hsts)
        days = int(match[1]) // 86400 if match else 0
        return self.judged((Evidence(f"it is good for {days} days: {facts.hsts}", amount=days),), subject.parameters)

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """See ``Check.tolerates``. No header is never enough."""
        return evidence.amount is not None and bool(evidence.amount >= parameters["min_days"])


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
