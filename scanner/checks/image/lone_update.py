"""A package index refreshed without installing from it (CIS Docker 4.7)."""

from __future__ import annotations

from scanner.checks._history import Command, evidence, history
from scanner.checks._package_managers import Manager, manager_of, verb
from scanner.checks._shells import SHELLS, shell_options
from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Incomplete, Outcome, Severity


class LoneUpdate(ConfigCheck):
    """``RUN apt-get update`` alone is cached: what a later RUN installs comes from an index of then, with the holes
    of then.
    """

    id = "lone-update"
    title = "Package index updated alone"
    severity = Severity.MEDIUM
    remedy = "RUN apt-get update && apt-get install -y --no-install-recommends PACKAGE && rm -rf /var/lib/apt/lists/*"
    looks_at = "every RUN of the history, parsed as shell: an index refreshed and nothing installed from it afterwards"
    cannot_see = "what scripts do that a RUN calls; images whose history was taken out are unknown"
    cis = ("4.7",)
    dockle = ("CIS-DI-0007",)
    trivy = ("DS-0017",)
    article = ("Image Management: Layer Caching Matters",)
    tags = ("build", "history")

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        lines, found, unclear = history(subject), [], ""
        for run in lines.runs():
            installs: set[Manager] = set()
            script = ""
            alone = []
            for command in reversed(run.commands):  # what follows is known when a command is judged
                manager = manager_of(command)
                action = verb(command, manager) if manager is not None else ""
                if manager is not None and action in manager.refresh and manager not in installs:
                    alone.append((command, script))
                elif manager is not None and action in manager.install:
                    installs.add(manager)
                if _runs_a_script(command):
                    script = str(command)
            for command, script in reversed(alone):
                if script:
                    unclear = f"history line {run.index} updates and then runs {script[:80]}, which may install"
                else:
                    found.append(evidence(subject, run, f"{command} is not followed by an install in the same RUN"))
        if unclear and not found:
            return Incomplete("history_not_understood", unclear)
        return lines.outcome(found)


def _runs_a_script(command: Command) -> bool:
    """Something whose doings are not in the history: a program by its path, a shell with a file."""
    if not command.words or command.name in ("rm", "cd", "set"):
        return False
    if command.name in SHELLS:
        options = shell_options(command.words)
        return not options.code and options.operand < len(command.words)
    return command.words[0].startswith(("/", "./", "$"))
