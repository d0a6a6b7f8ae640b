"""A shell is process 1 (the shell form of ENTRYPOINT or CMD)."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence

from scanner.checks.base import ConfigCheck, ImageSubject
from scanner.model.finding import Failed, NotApplicable, Outcome, Passed, Severity

_SHELLS = frozenset(("sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"))
_SYNTAX = re.compile(r"[|&;<>()$`\\\"'*?\[\]{}~\n]")


class ShellFormEntrypoint(ConfigCheck):
    """Process 1 gets the signal to stop.

    A shell there does not pass it on: the program is killed after the grace period, in the middle of what it does.
    With ``exec`` the program takes the shell's place.
    """

    id = "shell-form-entrypoint"
    title = "A shell stands between the runtime and the program"
    severity = Severity.LOW
    remedy = 'ENTRYPOINT ["/app/program", "--option"]'
    looks_at = "config.Entrypoint and config.Cmd: whether they start a shell that stays"
    cannot_see = "what a script does that is started by its own name; an init that the runtime adds (docker run --init)"
    article = ("Lessons Learned: Plan for failure",)
    tags = ("config",)

    def examine(self, subject: ImageSubject) -> Outcome:
        """See ``ImageCheck.examine``."""
        config = subject.image.config
        name, argv = ("Entrypoint", config.entrypoint) if config.entrypoint else ("Cmd", config.cmd)
        if not argv:
            return NotApplicable("the image starts nothing by itself")
        line = _shell_line(argv)
        if line is None or _ends_in_exec(line):
            return Passed()
        word = name.upper()
        more = ", and CMD is not passed to it" if name == "Entrypoint" and config.cmd else ""
        message = f"{word} starts {argv[0]} -c {line[:120]!r}: signals end there{more}"
        return Failed((subject.setting(message, word, pointer=f"/config/{name}"),), remedy=_remedy(word, line))


def _shell_line(argv: Sequence[str]) -> str | None:
    """The line that a shell is given with ``-c``; None where no shell is."""
    if len(argv) < 3 or argv[0].rpartition("/")[2] not in _SHELLS:
        return None
    for index, word in enumerate(argv[1:-1], 1):
        if word.startswith("-") and not word.startswith("--") and word.endswith("c"):
            return argv[index + 1]
    return None


def _ends_in_exec(line: str) -> bool:
    """Whether the shell gives its place away at last."""
    last = re.split(r"&&|\|\||;|\n", line.strip().rstrip(";"))[-1].strip()
    return last.startswith("exec ")


def _remedy(word: str, line: str) -> str:
    """The exec form, where the line is a plain command; else ``exec`` before its last one."""
    if _SYNTAX.search(line) is None:
        return f"{word} {json.dumps(shlex.split(line))}"
    return ""
