"""CloudEvents 1.0 over HTTP, in batched content mode. https://cloudevents.io"""

from __future__ import annotations

import json

from scanner.model.notification import Message, Occurrence
from scanner.notify.base import CA, URL, ChannelFormat, Field, Receipt, Target


class CloudEvents(ChannelFormat):
    """See `ChannelFormat`."""

    id = "cloudevents"
    title = "CloudEvents"
    purpose = "event brokers such as Knative or Argo Events: one CloudEvent for each event"
    setup = "The broker must accept `application/cloudevents-batch+json`, or choose the mode `structured`."
    fields = (
        Field("url", "Address", required=True, pattern=URL, example="https://broker.example.com/security"),
        Field("token", "Bearer token", secret=True),
        Field("mode", "Mode", choices=("batched", "structured"), hint="structured: one request for each event"),
        CA,
    )

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`."""
        events = [cloud_event(one, target.settings.public_url) for one in message.occurrences]
        headers = {}
        if token := target.secret("token"):
            headers["Authorization"] = f"Bearer {token.reveal()}"
        if target.value("mode") == "structured":
            bodies, kind = [json.dumps(event).encode() for event in events], "application/cloudevents+json"
        else:
            bodies, kind = [json.dumps(events).encode()], "application/cloudevents-batch+json"
        for body in bodies:
            sent = {**headers, "Content-Type": f"{kind}; charset=utf-8"}
            answer = target.request("POST", target.value("url"), content=body, headers=sent)
        return Receipt(str(answer.status), answer.text)


def cloud_event(one: Occurrence, source: str) -> dict[str, object]:
    """One event. ``id`` and ``source`` together are unique and stable: receivers remove duplicates by them."""
    event = one.event
    return {
        "specversion": "1.0",
        "id": one.id,
        "source": source or "dockwarden",
        "type": f"io.dockwarden.{event.kind}",
        "subject": event.subject,
        "time": one.at.isoformat(),
        "datacontenttype": "application/json",
        "data": {
            "project": event.project,
            "level": event.level.value,
            "headline": event.headline,
            "item": event.item,
            "resolved": event.resolved,
            "url": one.url,
            **event.data,
        },
    }
