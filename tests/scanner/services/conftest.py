"""A new database, as use cases get it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from scanner.store.session import Database
from tests.databases import migrated_url


@pytest.fixture
def url(tmp_path: Path) -> str:
    return migrated_url("sqlite", tmp_path)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.engine.dispose()


@pytest.fixture
def session(database: Database) -> Iterator[Connection]:
    """A transaction."""
    with database.session() as session:
        yield session
