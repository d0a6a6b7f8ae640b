"""What the checks of anonymous access share: one question, one fact, one answer."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed
from scanner.model.posture import Access


class AccessCheck(RegistryCheck):
    """Strangers get what only some should. ``may`` says what, for the evidence."""

    may: ClassVar[str]
    article = ("Security: Registry Security",)
    tags = ("registry", "access")

    @abstractmethod
    def fact(self, subject: RegistrySubject) -> Access | Incomplete:
        """What the probe was told."""

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        found = self.fact(subject)
        if isinstance(found, Incomplete):
            return found
        if found is Access.REFUSED:
            return Passed()
        repository = subject.facts.access.repository
        where = f" (asked about {repository})" if repository and self.may != "list the repositories" else ""
        return Failed((Evidence(f"anybody may {self.may} without credentials{where}"),))
