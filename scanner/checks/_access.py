"""Base class of the checks for anonymous access to a registry."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from scanner.checks.base import RegistryCheck, RegistrySubject
from scanner.model.finding import Evidence, Failed, Incomplete, Outcome, Passed
from scanner.model.posture import Access


class AccessCheck(RegistryCheck):
    """A check for something that anonymous clients can do. ``may`` names it in the evidence."""

    may: ClassVar[str]
    article = ("Security: Registry Security",)
    tags = ("registry", "access")

    @abstractmethod
    def fact(self, subject: RegistrySubject) -> Access | Incomplete:
        """Return the probe's result for this access."""

    def examine(self, subject: RegistrySubject) -> Outcome:
        """See ``RegistryCheck.examine``."""
        found = self.fact(subject)
        # An answer that is neither yes nor no (a time-out, a limit of the registry) is unknown. Only a refusal
        # passes.
        if isinstance(found, Incomplete):
            return found
        if found is Access.REFUSED:
            return Passed()
        repository = subject.facts.access.repository
        where = f" (tested with {repository})" if repository and self.may != "list the repositories" else ""
        return Failed((Evidence(f"anyone can {self.may} without credentials{where}"),))
