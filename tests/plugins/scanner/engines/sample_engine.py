"""A sample: an engine that is not installed."""

from __future__ import annotations

from scanner.config import Settings
from scanner.engines.base import Engine, EngineJob
from scanner.errors import EngineError
from scanner.model.finding import AdvisoryStatus, EngineReport


class SampleEngine(Engine):
    """An engine that scans nothing."""

    id = "sample-engine"
    title = "Sample engine"

    def version(self, settings: Settings) -> str:
        """See ``Engine.version``."""
        return "1"

    def advisories(self, settings: Settings) -> AdvisoryStatus:
        """See ``Engine.advisories``."""
        return AdvisoryStatus(self.id)

    def scan(self, job: EngineJob) -> EngineReport:
        """See ``Engine.scan``."""
        raise EngineError("the sample engine scans nothing", reason="scanner_failed")
