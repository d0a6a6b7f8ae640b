"""How an attempt ends that broke in a way nobody foresaw."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scanner.config import Secret, Settings
from scanner.model.scan import ScanState
from scanner.queue import make_app
from scanner.store import scans
from scanner.store.session import Database
from scanner.worker.server_scan import ServerServices
from scanner.worker.worker import Worker
from tests.scanner.store import factories as make

KEY = Secret("0" * 64)


@pytest.fixture
def database() -> Iterator[Database]:
    made = Database("sqlite:///:memory:")
    made.upgrade()
    yield made
    made.engine.dispose()


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), ScanState.FAILED),
        (KeyError("x"), ScanState.FAILED),
        (RecursionError(), ScanState.FAILED),
        (OSError(28, "No space left on device"), ScanState.RETRY_WAIT),
        (MemoryError(), ScanState.RETRY_WAIT),
    ],
)
def test_a_bug_ends_a_scan_at_once(database: Database, settings: Settings, error: Exception, state: ScanState) -> None:
    def breaks(*_: object) -> None:
        raise error

    worker = Worker(settings, database, make_app(settings), breaks)
    with database.session() as session:
        scan_id = scans.request(session, make.request()).scan_id
    assert worker.work_once(("push",), ServerServices.make(settings, database, "0", KEY))
    with database.read() as session:
        ended = scans.get(session, scan_id)
    assert (ended.state, ended.reason) == (state, "internal_error")
