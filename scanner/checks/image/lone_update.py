"""Update of the package index in a separate RUN (CIS Docker 4.7)."""

from __future__ import annotations

from scanner.checks._history import Command, evidence, history
from scanner.checks._package_managers import Manager, manager_of, verb
from scanner.checks._shells import SHELLS, shell_options
from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Incomplete, Outcome, Severity


class LoneUpdate(ConfigCheck):
    """The layer of a separate ``RUN apt-get update`` is cached. Later installs then use an old index and install old,
    vulnerable versions.
    """

    id = "lone-update"
    title = "Package index updated in a separate RUN"
    severity = Severity.MEDIUM
    remedy = "RUN apt-get update && apt-get install -y --no-install-recommends PACKAGE && rm -rf /var/lib/apt/lists/*"
    looks_at = "shell commands of RUN in the history: updates of a package index without an install in the same RUN"
    cannot_see = "scripts that RUN calls; instructions of images without history (incomplete)"
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
            for command in reversed(run.commands):  # reversed, so that later installs are known
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
                    unclear = (
                        f"history entry {run.index} updates and then runs {script[:80]}, which may install packages"
                    )
                else:
                    found.append(evidence(subject, run, f"{command} is not followed by an install in the same RUN"))
        if unclear and not found:
            return Incomplete("history_not_understood", unclear)
        return lines.outcome(found)


def _runs_a_script(command: Command) -> bool:
    """Return whether the command runs a script whose content is not in the history."""
    if not command.words or command.name in ("rm", "cd", "set"):
        return False
    if command.name in SHELLS:
        options = shell_options(command.words)
        return not options.code and options.operand < len(command.words)
    return command.words[0].startswith(("/", "./", "$"))
