"""Text for chat services. What comes from an image must not become a link, a mention or formatting there."""

from __future__ import annotations

import re

from scanner.model.notification import Level

# CommonMark, 2.4; "@" and ":" would mention people and make links.
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~@:])")
COLORS = {Level.CRITICAL: "#b00020", Level.ERROR: "#d1461e", Level.WARNING: "#b77900", Level.INFO: "#2f6f4f"}


def escaped(text: str) -> str:
    """CommonMark: each character with a meaning is escaped. The ``@`` of a mention is followed by a word joiner."""
    return _SPECIAL.sub(r"\\\1", text).replace("\\@", "@\N{WORD JOINER}").replace("\\:", ":")


def link(text: str, url: str) -> str:
    """A link, or plain text while no public URL is set."""
    return f"[{escaped(text)}]({url})" if url else escaped(text)
