"""The threads of the lane ``notify``: that a burst leaves others their turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from scanner.config import Secret, Settings
from scanner.model.notification import Event, EventKind
from scanner.services import notification_delivery
from scanner.store import outbox
from scanner.store.session import Database
from scanner.worker import notifier
from tests.databases import migrated_url


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(migrated_url("sqlite", tmp_path))
    yield database
    database.engine.dispose()


def test_the_router_pauses_after_each_batch_of_a_burst(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a pause it has SQLite's write lock nearly all the time, and senders deliver nothing meanwhile."""
    with database.session() as session:
        names = (f"CVE-2026-{number}" for number in range(3 * notification_delivery.BATCH))
        outbox.add(session, (Event(EventKind.VULNERABILITY_NEW, name, name) for name in names))
    pauses: list[float] = []
    over = threading.Event()

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        with database.read() as session:
            if outbox.oldest_unrouted(session) is None:
                over.set()

    settings = Settings(home=tmp_path, secret_key=Secret("a secret key for tests, long enough"))
    route = notifier.Notifier(settings, database, "w", over.is_set).threads()[0]
    with monkeypatch.context() as patched:
        patched.setattr(notifier, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pause))
        route.start()
        route.join(60)
    assert over.is_set()
    assert len(pauses) >= 3  # the first round may add events of its own: stale advisories
    assert all(0 < seconds <= 1 for seconds in pauses)
