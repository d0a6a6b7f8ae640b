"""Remedies as lines of a Dockerfile, made of names that come from the image: quoted for the shell, or not made at
all.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

_MANY = 40


def run(command: str, names: Iterable[str], *, each: bool = False) -> str:
    """``RUN command name …``, or the command once for each name.

    Empty where the names are too many for a line, or where one could end it: a file may be called ``x\\nRUN …``, and
    a person will paste this.
    """
    found = sorted(set(names))
    if not 0 < len(found) <= _MANY or not all(name and name.isprintable() for name in found):
        return ""
    quoted = [shlex.quote(name) for name in found]
    return "RUN " + " && ".join(f"{command} {name}" for name in quoted) if each else f"RUN {command} {' '.join(quoted)}"
