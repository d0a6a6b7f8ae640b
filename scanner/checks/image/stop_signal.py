"""A stop signal that no program can act on."""

from __future__ import annotations

from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Failed, Outcome, Passed, Severity

_UNSTOPPABLE = frozenset(("SIGKILL", "KILL", "9", "SIGSTOP", "STOP", "19"))


class StopSignal(ConfigCheck):
    """SIGKILL leaves no moment to finish a request or flush a file; SIGSTOP never ends anything."""

    id = "stop-signal"
    title = "Stops without warning"
    severity = Severity.LOW
    remedy = "STOPSIGNAL SIGTERM"
    looks_at = "config.StopSignal"
    cannot_see = "what the program does with the signal"
    article = ("Lessons Learned: Plan for failure",)
    tags = ("config",)

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        signal = subject.image.config.stop_signal
        if signal.strip().upper() in _UNSTOPPABLE:
            return Failed(
                (subject.setting(f"STOPSIGNAL {signal} cannot be handled", "STOPSIGNAL", pointer="/config/StopSignal"),)
            )
        return Passed()
