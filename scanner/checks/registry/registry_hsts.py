"""Strict-Transport-Security (RFC 6797)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, ClassVar

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, NotApplicable, Outcome, Severity
from scanner.patterns import lazy

# RFC 6797, section 6.1.1
_MAX_AGE = lazy(r'(?:^|;)\s*max-age\s*=\s*"?(\d{1,12})"?\s*(?:;|$)', re.IGNORECASE)


class Hsts(RegistryCheck):
    """Browsers need it against redirection of their first plain HTTP request. Registry clients ignore it."""

    id = "registry-hsts"
    title = "No Strict-Transport-Security"
    severity = Severity.LOW
    remedy = "http: {headers: {Strict-Transport-Security: [max-age=63072000]}}"
    looks_at = "the Strict-Transport-Security header of GET /v2/, and its max-age, compared with min_days"
    cannot_see = "preload lists of browsers"
    article = ("Security: Registry Security",)
    tags = ("registry", "tls")
    parameters: ClassVar[dict[str, Any]] = {"min_days": 180}

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        facts = subject.facts
        if facts.tls is None:
            return NotApplicable("the registry does not use TLS")
        if isinstance(facts.hsts, Incomplete):
            return facts.hsts
        if _is_address(facts.name):
            return NotApplicable("browsers ignore it for IP addresses")
        if facts.hsts is None:
            return Failed((Evidence("the answer to GET /v2/ has no Strict-Transport-Security header"),))
        match = _MAX_AGE.search(facts.hsts)
        days = int(match[1]) // 86400 if match else 0
        return self.judged((Evidence(f"it is valid for {days} days: {facts.hsts}", amount=days),), subject.parameters)

    def tolerates(self, evidence: Evidence, parameters: Mapping[str, Any]) -> bool:
        """See ``Check.tolerates``. A missing header is never accepted."""
        return evidence.amount is not None and bool(evidence.amount >= parameters["min_days"])


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
