"""What is not there is a not-found error, in words that a client may see, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.engine import Connection

from scanner.config import Secret
from scanner.errors import NotFoundError
from scanner.store import (
    break_glass,
    channels,
    deliveries,
    images,
    notifications,
    policies,
    projects,
    receipts,
    registries,
    registry_checks,
    scans,
    trust,
    vex,
)
from scanner.store.session import Database

KEY = Secret("a secret key for tests, long enough")
NONE = "00000000-0000-0000-0000-000000000000"
CALLS: dict[str, Callable[[Connection], object]] = {
    "a break-glass": lambda session: break_glass.get(session, NONE),
    "a channel to disable": lambda session: channels.set_disabled(session, NONE, True),
    "a channel to remove": lambda session: channels.remove(session, NONE),
    "a subscription to change": lambda session: channels.change_subscription(session, NONE, {"name": "new"}),
    "a subscription to end": lambda session: channels.unsubscribe(session, NONE),
    "a registry of a webhook": lambda session: deliveries.create_hook(session, "pushes", "harbor", NONE, KEY),
    "evidence": lambda session: images.evidence(session, NONE),
    "a delivery": lambda session: notifications.get(session, NONE),
    "a policy": lambda session: policies.enable(session, "none", True),
    "a user": lambda session: projects.add_member(session, projects.DEFAULT, NONE),
    "a key of receipts": lambda session: receipts.private_key(session, NONE, KEY),
    "a registry to change": lambda session: registries.update(session, NONE, KEY, username="robot"),
    "a registry to remove": lambda session: registries.remove(session, NONE),
    "a registry check": lambda session: registry_checks.get(session, NONE),
    "a scan to repeat": lambda session: scans.rescan(session, NONE, "ada"),
    "a trust root": lambda session: trust.remove(session, "none"),
    "a VEX document": lambda session: vex.remove(session, NONE),
}


def test_what_is_not_there_is_not_found(database: Database) -> None:
    for name, call in CALLS.items():
        with pytest.raises(NotFoundError) as refused, database.session() as session:
            call(session)
        assert "there is no such" in str(refused.value) or "erased" in str(refused.value), name
        assert NONE not in str(refused.value), name
