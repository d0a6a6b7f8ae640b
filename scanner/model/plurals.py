"""Numbers of things in a sentence."""

from __future__ import annotations


def number_of(count: int, noun: str, plural: str = "") -> str:
    """``1 image``, ``2 images``. ``plural``: where it is not the noun with an s."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
