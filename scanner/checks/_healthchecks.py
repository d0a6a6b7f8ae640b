"""Commands of healthchecks that say nothing about a service."""

from __future__ import annotations

from scanner.model.secret_arguments import redact
from scanner.patterns import lazy

# Commands that always succeed, alone or in a shell.
_TRIVIAL = lazy(
    r"""^(?:(?:/bin/)?(?:ba|da)?sh\s+-c\s+)?["']?(?:(?:/(?:usr/)?bin/)?(?:true|:|echo\b[^|&;<>]*"""
    r"""|sleep\s+\d+[smh]?|date|id|pwd|uname\b[^|&;<>]*|ls(?:\s+/\w*)?)|exit\s+0)["']?;?$"""
)
# The end of a command that succeeds whatever came before it.
_HIDES = lazy(r"(?:\|\|\s*(?:true|:|exit\s+0|echo\b[^|&;]*)|;\s*(?:true|:|exit\s+0))$")
_AFTER = " \t\r\n;\"'"  # what may follow; in the pattern, it would take quadratic time for a row of blanks


def why_useless(command: str) -> str:
    """Return why a healthcheck's command says nothing, as a sentence. Empty: it can fail."""
    command = command.strip()
    if not command or _TRIVIAL.fullmatch(command):
        return f"the healthcheck can never fail: {redact((command,))[0] or 'empty'}"
    if _HIDES.search(command.rstrip(_AFTER)):
        return f"the healthcheck hides its own failure: {redact((command,))[0]}"
    return ""
