"""Opsgenie, by its Alert API. https://docs.opsgenie.com/docs/alert-api"""

from __future__ import annotations

import hashlib

from scanner.model.notification import Level, Message
from scanner.notify.base import CA, URL, ChannelFormat, Field, Receipt, Target, left_out, shown_lines

_PRIORITIES = {Level.CRITICAL: "P1", Level.ERROR: "P2", Level.WARNING: "P3", Level.INFO: "P5"}


class Opsgenie(ChannelFormat):
    """See `ChannelFormat`."""

    id = "opsgenie"
    title = "Opsgenie"
    purpose = "an alert for each group of events; it is closed when the cause is gone"
    setup = "Opsgenie: team → Integrations → API. Copy the API key. In the EU: `https://api.eu.opsgenie.com`."
    fields = (
        Field("api_key", "API key", required=True, secret=True),
        Field("url", "Address", pattern=URL, default="https://api.opsgenie.com"),
        CA,
    )

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`."""
        base = target.value("url", self.fields[1].default).rstrip("/") + "/v2/alerts"
        alias = "dockwarden-" + hashlib.sha256(message.group.encode()).hexdigest()[:32]
        headers = {"Authorization": f"GenieKey {target.secret('api_key').reveal()}"}
        if message.resolved:
            closed = {"source": "dockwarden", "note": message.title[:25000]}
            answer = target.post(f"{base}/{alias}/close?identifierType=alias", body=closed, headers=headers)
            return Receipt(str(answer.status), answer.text)
        lines = [f"{text} {url}".strip() for text, url in shown_lines(message)]
        if more := left_out(message):
            lines.append(f"and {more} more")
        body = {
            "message": message.title[:130],
            "alias": alias,
            "description": "\n".join([message.title, *lines, message.url])[:15000],
            "entity": message.occurrences[0].event.subject[:512],
            "source": "dockwarden",
            "priority": _PRIORITIES[message.level],
            "tags": ["dockwarden", message.kind],
            "details": {"id": message.id, "project": message.project, "count": str(message.count)},
        }
        answer = target.post(base, body=body, headers=headers)
        return Receipt(str(answer.status), answer.text)
