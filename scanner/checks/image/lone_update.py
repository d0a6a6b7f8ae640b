"""A package index refreshed without installing from it (CIS Docker 4.7)."""

from __future__ import annotations

from scanner.checks._history import SHELLS, Command, evidence, history
from scanner.checks._package_managers import Manager, manager_of, verb
from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Incomplete, Outcome, Severity


class LoneUpdate(ConfigCheck):
    """``RUN apt-get update`` alone is cached: what a later RUN installs comes from an index of then, with the holes of then."""

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
            for position, command in enumerate(run.commands):
                manager = manager_of(command)
                if manager is None or verb(command, manager) not in manager.refresh:
                    continue
                after = run.commands[position + 1 :]
                if any(_installs(later, manager) for later in after):
                    continue
                script = next((str(later) for later in after if _runs_a_script(later)), "")
                if script:
                    unclear = f"history line {run.index} updates and then runs {script[:80]}, which may install"
                else:
                    found.append(evidence(subject, run, f"{command} is not followed by an install in the same RUN"))
        if unclear and not found:
            return Incomplete("history_not_understood", unclear)
        return lines.outcome(found)


def _installs(command: Command, manager: Manager) -> bool:
    return command.name in manager.programs and verb(command, manager) in manager.install


def _runs_a_script(command: Command) -> bool:
    """Something whose doings are not in the history: a program by its path, a shell with a file."""
    if not command.words or command.name in ("rm", "cd", "set"):
        return False
    return command.words[0].startswith(("/", "./", "$")) or (
        command.name in SHELLS and bool(command.operands) and not command.has("-c")
    )
