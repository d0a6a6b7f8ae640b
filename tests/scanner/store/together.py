"""Many at once, all let go at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy.engine import Connection

from scanner.store.session import Database

T = TypeVar("T")


def together(count: int, work: Callable[[int], T]) -> list[T | Exception]:
    """What each of ``count`` threads returned or raised."""
    start = threading.Barrier(count)

    def one(number: int) -> T | Exception:
        start.wait()
        try:
            return work(number)
        except Exception as error:  # noqa: BLE001  the test looks at each
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def transact(database: Database, work: Callable[[Connection], T]) -> T:
    with database.session() as session:
        return work(session)
