"""PagerDuty, by the Events API v2. https://developer.pagerduty.com/docs/send-alert-event"""

from __future__ import annotations

import hashlib

from scanner.model.notification import Message
from scanner.notify.base import CA, MARKS, URL, ChannelFormat, Field, Receipt, Target, left_out, shown_lines


class PagerDuty(ChannelFormat):
    """See `ChannelFormat`."""

    id = "pagerduty"
    title = "PagerDuty"
    purpose = "an incident for each group of events; it is resolved when the cause is gone"
    setup = "PagerDuty: service → Integrations → Events API v2. Copy the integration key."
    fields = (
        Field("routing_key", "Integration key", required=True, secret=True, pattern=r"[A-Za-z0-9]{20,64}"),
        Field("url", "Address", pattern=URL, default="https://events.pagerduty.com/v2/enqueue"),
        CA,
    )

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`."""
        lines = [text for text, _ in shown_lines(message)]
        if more := left_out(message):
            lines.append(f"and {more} more")
        body: dict[str, object] = {
            "routing_key": target.secret("routing_key").reveal(),
            "event_action": "resolve" if message.resolved else "trigger",
            "dedup_key": "dockwarden-" + hashlib.sha256(message.group.encode()).hexdigest()[:32],
            "payload": {
                "summary": message.title[:1024],
                "source": target.settings.public_url or "dockwarden",
                "severity": MARKS[message.level],
                "timestamp": message.at.isoformat(),
                "component": message.project or "dockwarden",
                "class": message.kind,
                "custom_details": {"events": lines, "count": message.count, "id": message.id},
            },
            "client": "Dockwarden",
        }
        if message.url:
            body |= {"client_url": message.url, "links": [{"href": message.url, "text": "Open in Dockwarden"}]}
        answer = target.post(target.value("url", self.fields[1].default), body=body)
        return Receipt(str(answer.status), answer.text)
