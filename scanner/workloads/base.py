"""The contract of a workload source: a document (or an engine) in, workloads out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from scanner.model.workload import Workload


class WorkloadSource(ABC):
    """``id`` is what ``audit`` takes before the colon."""

    id: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def parse(self, text: str, name: str = "") -> Sequence[Workload]:
        """Workloads of a document, in its order. Raises UsageError with line and column for what is not such a document."""

    def recognises(self, document: object) -> bool:
        """Whether a parsed JSON or YAML value looks like this source's."""
        return False
