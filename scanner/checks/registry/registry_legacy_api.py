"""The V1 API answers: images without digests (article: authentication and access controls; Docker dropped it in
2019).
"""

from __future__ import annotations

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed, Severity


class LegacyApi(RegistryCheck):
    """The first protocol names images by random ids: nobody can tell whether they are what was pushed."""

    id = "registry-legacy-api"
    title = "Legacy V1 API answers"
    severity = Severity.MEDIUM
    remedy = "switch the V1 API off: docker 17.12 and later do not use it"
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
