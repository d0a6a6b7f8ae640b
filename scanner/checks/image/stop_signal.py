"""Stop signals that a program cannot handle."""

from __future__ import annotations

from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Failed, Outcome, Passed, Severity

# signal(7): these cannot be caught, so the process has no chance to end well.
_UNSTOPPABLE = frozenset(("SIGKILL", "KILL", "9", "SIGSTOP", "STOP", "19"))


class StopSignal(ConfigCheck):
    """SIGKILL gives a program no time to finish requests or flush files. SIGSTOP does not end it."""

    id = "stop-signal"
    title = "Stop signal cannot be handled"
    severity = Severity.LOW
    remedy = "STOPSIGNAL SIGTERM"
    looks_at = "config.StopSignal"
    cannot_see = "the program's reaction to the signal"
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
