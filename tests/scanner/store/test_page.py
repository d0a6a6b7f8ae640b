"""Cursors: anybody can write one, and no list fails on it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from scanner.errors import UsageError
from scanner.store import (
    admissions,
    audit,
    base_watch,
    deliveries,
    dry_runs,
    exemptions,
    inventory,
    listings,
    notifications,
    reconciliation,
    scans,
    tags,
    vex,
    vulnerabilities,
)
from scanner.store.page import cursor_moment, decode_cursor, encode_cursor
from scanner.store.session import Database

NOW = datetime.now(UTC).isoformat()
Asked = Callable[[Connection, str], object]

# Each list with the shape of its cursor.
LISTS: dict[str, tuple[Asked, tuple[Any, ...]]] = {
    "admissions": (lambda s, c: admissions.list_reviews(s, cursor=c), (1,)),
    "audit": (lambda s, c: audit.list_entries(s, cursor=c), (1,)),
    "bases": (lambda s, c: base_watch.list_watched(s, None, cursor=c), ("r", "t", "p")),
    "decisions": (lambda s, c: listings.decisions(s, "sha256:0", cursor=c), (1,)),
    "deliveries": (lambda s, c: deliveries.list_deliveries(s, None, cursor=c), (NOW, "id")),
    "dry runs": (lambda s, c: dry_runs.changes(s, "id", None, cursor=c), (1,)),
    "exemptions": (lambda s, c: exemptions.list_exemptions(s, None, cursor=c), (NOW, "id")),
    "images": (lambda s, c: listings.list_images(s, None, cursor=c), (1.0, 1)),
    "images by name": (lambda s, c: listings.list_images(s, None, sort="name", cursor=c), ("name", 1)),
    "found tags": (lambda s, c: reconciliation.list_found_tags(s, None, cursor=c), (1,)),
    "messages": (lambda s, c: notifications.list_notifications(s, None, cursor=c), (1,)),
    "scans": (lambda s, c: scans.list_scans(s, None, cursor=c), (1.0, "id")),
    "tags": (lambda s, c: tags.history(s, None, cursor=c), (1,)),
    "VEX documents": (lambda s, c: vex.list_documents(s, None, cursor=c), (NOW, "id")),
    "vulnerabilities": (lambda s, c: vulnerabilities.list_vulnerabilities(s, None, cursor=c), (1, 1.0, "CVE-1")),
    "vulnerabilities by name": (
        lambda s, c: vulnerabilities.list_vulnerabilities(s, None, sort="name", cursor=c),
        ("a", "a"),
    ),
    "vulnerabilities by day": (
        lambda s, c: vulnerabilities.list_vulnerabilities(s, None, sort="-published", cursor=c),
        (1.0, "a"),
    ),
    "workloads": (lambda s, c: inventory.list_workloads(s, None, cursor=c), (1, 1)),
    "workloads by name": (lambda s, c: inventory.list_workloads(s, None, sort="name", cursor=c), ("name", 1)),
}


def is_refused(asked: Asked, session: Connection, cursor: str) -> bool:
    """Whether it is a wrong request. Any other error is one of the server."""
    try:
        asked(session, cursor)
    except UsageError as error:
        return error.reason == "bad_cursor"
    return False


def test_a_hostile_cursor_is_a_wrong_request_and_no_fault_of_the_server(database: Database) -> None:
    """A moment that is none, a NUL, an integer that SQLite cannot hold, another shape. One database for all lists."""
    refused = dict.fromkeys(LISTS, 0)
    with database.read() as session:
        for name, (asked, shape) in LISTS.items():
            asked(session, encode_cursor(*shape))
            hostile = [(*shape, 1), shape[:-1]]
            for place, value in enumerate(shape):
                for bad in ("x",) if isinstance(value, float) else ("a\0b", "99999-01-01T00:00", 1e30):
                    hostile.append((*shape[:place], bad, *shape[place + 1 :]))
            for values in hostile:
                refused[name] += is_refused(asked, session, encode_cursor(*values))
    assert {name: count for name, count in refused.items() if count < 3} == {}, "a NUL and each wrong shape are refused"


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "yesterday", 5, None])
def test_a_moment_in_a_cursor_has_a_time_zone(text: object) -> None:
    with pytest.raises(UsageError, match="invalid cursor"):
        decode_cursor(encode_cursor(text), (cursor_moment,))  # type: ignore[arg-type]
    assert decode_cursor(encode_cursor("2026-01-01T01:00:00+01:00"), (cursor_moment,)) == (
        datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize("value", [2**63, -(2**63), 1e300])
def test_an_integer_in_a_cursor_fits_into_a_column(value: float) -> None:
    with pytest.raises(UsageError, match="invalid cursor"):
        decode_cursor(encode_cursor(value), (int,))
