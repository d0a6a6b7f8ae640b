"""Channels: what has no secret has none to read, and a channel takes its subscriptions along."""

from __future__ import annotations

import pytest

from scanner.config import Secret
from scanner.errors import NotFoundError
from scanner.model.actor import COMMAND_LINE
from scanner.services import notifications as use_cases
from scanner.store import channels, notifications
from scanner.store.session import Database

KEY = Secret("a secret key for tests, long enough")


def test_a_channel_without_a_secret_and_its_end(database: Database) -> None:
    with database.session() as session:
        settings = {"address": "127.0.0.1:514"}
        made = channels.add(
            session, KEY, name="log", format_="syslog", project="", settings=settings, secrets={}, created_by="ada"
        )
        assert not channels.get(session, made).has_secrets
        assert channels.secrets(session, made, KEY) == {}
        use_cases.subscribe(session, COMMAND_LINE, use_cases.WantedSubscription(made))
        assert len(channels.subscriptions(session)) == 1
        channels.remove(session, made)
        assert channels.subscriptions(session) == ()
        with pytest.raises(NotFoundError):
            channels.get(session, made)
        assert notifications.list_notifications(session, None, states=("dead",)).items == ()
