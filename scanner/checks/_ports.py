"""Parser for ``config.ExposedPorts``: ``80``, ``80/tcp``, ``8000-8010/udp``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scanner.lazy_dataclasses import dataclass
from scanner.model.image import ImageConfig
from scanner.patterns import lazy

# Docker's form in the config: 80, 80/tcp, 8000-8010/udp.
_PORT = lazy(r"([0-9]{1,6})(?:-([0-9]{1,6}))?(?:/(tcp|udp|sctp))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Port:
    """A port or a range of ports. ``first`` is 0 if the text is invalid."""

    text: str
    first: int
    last: int

    def __contains__(self, number: int) -> bool:
        return self.first <= number <= self.last


def ports_of(config: ImageConfig) -> Iterator[Port]:
    """Yield the ports that the image exposes."""
    for text in config.exposed_ports:
        match = _PORT.fullmatch(text)
        first = int(match[1]) if match else 0
        yield Port(text, first, int(match[2]) if match and match[2] else first)
