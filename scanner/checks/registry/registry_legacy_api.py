"""The legacy V1 API (article: authentication and access controls; removed from Docker in 2019)."""

from __future__ import annotations

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity


class LegacyApi(RegistryCheck):
    """The V1 API identifies images by random ids instead of digests, so clients cannot verify their content."""

    id = "registry-legacy-api"
    title = "Legacy V1 API is enabled"
    severity = Severity.MEDIUM
    remedy = "disable the V1 API: Docker 17.12 and later do not use it"
    looks_at = "the answer to GET /v1/_ping"
    cannot_see = "a V1 API under another path"
    article = ("Security: Registry Security",)
    tags = ("registry",)

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        software = subject.facts.software
        if isinstance(software, Incomplete):
            return software
        if isinstance(software.legacy_api, Incomplete):
            return software.legacy_api
        return Failed((Evidence("GET /v1/_ping answers 200"),)) if software.legacy_api else Passed()
