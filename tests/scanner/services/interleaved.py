"""A database where another process writes just before this one does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.engine import Connection

from scanner.store.session import Database

T = TypeVar("T")


class Interleaved(Database):
    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def uncrossed(self, work: Callable[[Connection], T]) -> T:
        self.meanwhile()
        return super().uncrossed(work)
