"""Shell as process 1 (the shell form of ENTRYPOINT or CMD)."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence

from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Failed, NotApplicable, Outcome, Passed, Severity
from scanner.patterns import lazy

_SHELLS = frozenset(("sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"))
# Without these a shell form can be split at blanks into the exec form.
_SYNTAX = lazy(r"[|&;<>()$`\\\"'*?\[\]{}~\n]")


class ShellFormEntrypoint(ConfigCheck):
    """Process 1 receives the stop signal. A shell does not forward it, so the program is killed after the grace period
    without shutting down. With ``exec`` the program replaces the shell.
    """

    id = "shell-form-entrypoint"
    title = "Shell form of the entrypoint"
    severity = Severity.LOW
    remedy = 'ENTRYPOINT ["/app/program", "--option"]'
    looks_at = "config.Entrypoint and config.Cmd: whether a shell stays as process 1"
    cannot_see = "scripts that are started directly; an init process of the runtime (docker run --init)"
    article = ("Lessons Learned: Plan for failure",)
    tags = ("config",)

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        config = subject.image.config
        name, argv = ("Entrypoint", config.entrypoint) if config.entrypoint else ("Cmd", config.cmd)
        if not argv:
            return NotApplicable("the image has no entrypoint and no command")
        line = _shell_line(argv)
        if line is None or _ends_in_exec(line):
            return Passed()
        word = name.upper()
        more = ", and CMD is ignored" if name == "Entrypoint" and config.cmd else ""
        message = f"{word} starts {argv[0]} -c {line[:120]!r}: the shell does not forward signals{more}"
        return Failed((subject.setting(message, word, pointer=f"/config/{name}"),), remedy=_remedy(word, line))


def _shell_line(argv: Sequence[str]) -> str | None:
    """Return the script of a shell's ``-c``. None: not a shell."""
    if len(argv) < 3 or argv[0].rpartition("/")[2] not in _SHELLS:
        return None
    for index, word in enumerate(argv[1:-1], 1):
        if word.startswith("-") and not word.startswith("--") and word.endswith("c"):
            return argv[index + 1]
    return None


def _ends_in_exec(line: str) -> bool:
    """Return whether the last command of the script is ``exec``."""
    last = re.split(r"&&|\|\||;|\n", line.strip().rstrip(";"))[-1].strip()
    return last.startswith("exec ")


def _remedy(word: str, line: str) -> str:
    """Return the exec form if the script is a plain command. Empty otherwise."""
    if _SYNTAX.search(line) is None:
        return f"{word} {json.dumps(shlex.split(line))}"
    return ""
