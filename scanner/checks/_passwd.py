"""``etc/passwd`` and ``etc/group`` of an image, read as the C library reads them (passwd(5)), bounded and without surprises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scanner.model.filesystem import Rootfs

_MAX_LINES = 10_000


@dataclass(frozen=True, slots=True)
class Account:
    """One line of passwd; ``uid`` and ``gid`` None where they are no numbers."""

    name: str
    password: str
    uid: int | None
    gid: int | None
    home: str
    shell: str


def accounts(rootfs: Rootfs) -> tuple[Account, ...] | None:
    """The image's accounts; None where it has no passwd that can be read."""
    data = rootfs.content("etc/passwd")
    return tuple(_parse(data)) if data is not None else None


def _parse(data: bytes) -> Iterator[Account]:
    for line in data.decode("utf-8", "replace").splitlines()[:_MAX_LINES]:
        fields = line.split(":")
        if len(fields) >= 7 and not line.startswith("#"):
            yield Account(fields[0], fields[1], number(fields[2]), number(fields[3]), fields[5], fields[6])


def number(text: str) -> int | None:
    """A decimal id as a runtime reads it: ``00`` is 0, ``4294967296`` wraps to 0 (CVE-2024-40635)."""
    return int(text) % (1 << 32) if text.isascii() and text.isdigit() and len(text) <= 20 else None
