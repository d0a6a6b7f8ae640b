"""Mattermost, by an incoming webhook. https://developers.mattermost.com/integrate/webhooks/incoming/"""

from __future__ import annotations

from scanner.model.notification import Message
from scanner.notify._markdown import COLORS, escaped, link
from scanner.notify.base import CA, URL, ChannelFormat, Field, Receipt, Target, left_out, shown_lines


class Mattermost(ChannelFormat):
    """See `ChannelFormat`."""

    id = "mattermost"
    title = "Mattermost"
    purpose = "a Mattermost channel"
    setup = "Mattermost: Integrations → Incoming Webhooks → Add. Copy its URL."
    fields = (
        Field(
            "url", "Webhook URL", required=True, secret=True, pattern=URL, example="https://chat.example.com/hooks/…"
        ),
        Field("channel", "Channel", pattern=r"[a-z0-9._@-]+", example="security", hint="empty: the webhook's own"),
        CA,
    )

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`."""
        lines = [f"* {link(text, url)}" for text, url in shown_lines(message)] if message.count > 1 else []
        if more := left_out(message):
            lines.append(f"* and {more} more")
        body = {
            "username": "Dockwarden",
            "attachments": [
                {
                    "fallback": message.title,
                    "color": COLORS[message.level],
                    "text": "\n".join([f"**{link(message.title[:300], message.url)}**", *lines])[:15000],
                    "footer": escaped(message.project),
                }
            ],
        }
        if channel := target.value("channel"):
            body["channel"] = channel
        answer = target.post(target.secret("url").reveal(), body=body)
        return Receipt(str(answer.status), answer.text)
