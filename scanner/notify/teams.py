"""Microsoft Teams, by a Workflows webhook that takes an Adaptive Card.

https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using
"""

from __future__ import annotations

from scanner.model.notification import Level, Message
from scanner.notify._markdown import escaped, link
from scanner.notify.base import CA, URL, ChannelFormat, Field, Receipt, Target, shown_lines

_COLORS = {Level.CRITICAL: "Attention", Level.ERROR: "Attention", Level.WARNING: "Warning", Level.INFO: "Default"}
_BYTES = 20_000  # Teams refuses a message of more than 28 KB


class Teams(ChannelFormat):
    """See `ChannelFormat`."""

    id = "teams"
    title = "Microsoft Teams"
    purpose = "a Teams channel"
    setup = "Teams: channel → Workflows → Send webhook alerts to a channel. Copy its URL."
    fields = (
        Field("url", "Workflow URL", required=True, secret=True, pattern=URL, example="https://….logic.azure.com/…"),
        CA,
    )

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`."""
        title = {
            "type": "TextBlock",
            "text": escaped(message.title[:300]),
            "weight": "Bolder",
            "size": "Medium",
            "wrap": True,
            "color": "Good" if message.resolved else _COLORS[message.level],
        }
        card: dict[str, object] = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [title, *_texts(message)],
        }
        if message.url:
            card["actions"] = [{"type": "Action.OpenUrl", "title": "Open in Dockwarden", "url": message.url}]
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
        body = {"type": "message", "attachments": [attachment]}
        answer = target.post(target.secret("url").reveal(), body=body)
        return Receipt(str(answer.status), answer.text)


def _texts(message: Message) -> list[dict[str, object]]:
    if message.count == 1:
        return []
    lines, size = [], 0
    for text, url in shown_lines(message):
        line = f"- {link(text, url)}"
        size += len(line.encode())
        if size > _BYTES:
            break
        lines.append(line)
    if more := message.count - len(lines):
        lines.append(f"- and {more} more")
    return [{"type": "TextBlock", "text": "\n".join(lines), "wrap": True}]
