"""Splunk, by its HTTP Event Collector. https://docs.splunk.com/Documentation/Splunk/latest/Data/HECExamples"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from scanner.model.notification import Message
from scanner.notify.base import CA, URL, ChannelFormat, Field, Receipt, Target, as_document


class Splunk(ChannelFormat):
    """See `ChannelFormat`."""

    id = "splunk"
    title = "Splunk"
    purpose = "a Splunk index: one Splunk event for each event"
    setup = "Splunk: Settings → Data inputs → HTTP Event Collector → New Token."
    fields = (
        Field("url", "Address", required=True, pattern=URL, example="https://splunk.example.com:8088"),
        Field("token", "Token", required=True, secret=True),
        Field("index", "Index", pattern=r"[a-z0-9_-]{1,80}", hint="empty: the token's own"),
        CA,
    )

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`."""
        host = urlsplit(target.settings.public_url).hostname or "dockwarden"
        common = {"host": host, "source": "dockwarden", "sourcetype": "_json"}
        if index := target.value("index"):
            common["index"] = index
        documents = as_document(message)["events"]
        events = [
            {**common, "time": one.at.timestamp(), "event": document}
            for one, document in zip(message.occurrences, documents, strict=True)
        ]
        # Several events in one request are written one after the other, without an array.
        body = "\n".join(json.dumps(event) for event in events).encode()
        url = target.value("url").rstrip("/") + "/services/collector/event"
        headers = {"Authorization": f"Splunk {target.secret('token').reveal()}", "Content-Type": "application/json"}
        answer = target.request("POST", url, content=body, headers=headers)
        return Receipt(str(answer.status), answer.text)
