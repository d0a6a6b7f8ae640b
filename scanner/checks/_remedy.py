"""Remedies as Dockerfile instructions with names from the image, which are untrusted and quoted for the shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

_MANY = 40  # paths in one suggested command; more are a hint to clean up the directory


def run(command: str, names: Iterable[str], *, each: bool = False) -> str:
    """Return ``RUN command name …``, or with ``each`` the command once for each name.

    Empty for too many names or unprintable ones: a file may be called ``x\\nRUN …``, and users paste the remedy.
    """
    found = sorted(set(names))
    if not 0 < len(found) <= _MANY or not all(name and name.isprintable() for name in found):
        return ""
    quoted = [shlex.quote(name) for name in found]
    return "RUN " + " && ".join(f"{command} {name}" for name in quoted) if each else f"RUN {command} {' '.join(quoted)}"
