"""A transaction of a new database, as use cases get it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from scanner.store.session import Database
from tests.databases import migrated_url


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Connection]:
    database = Database(migrated_url("sqlite", tmp_path))
    with database.session() as session:
        yield session
    database.engine.dispose()
