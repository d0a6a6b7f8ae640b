"""Slack, by an incoming webhook. https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks"""

from __future__ import annotations

from scanner.model.notification import Level, Message
from scanner.notify.base import CA, URL, ChannelFormat, Field, Receipt, Target, left_out, shown_lines

_EMOJI = {Level.CRITICAL: ":red_circle:", Level.ERROR: ":large_orange_circle:", Level.WARNING: ":large_yellow_circle:"}
_SECTION = 2900  # of the 3,000 characters that a section may have


class Slack(ChannelFormat):
    """See `ChannelFormat`."""

    id = "slack"
    title = "Slack"
    purpose = "a Slack channel"
    setup = "Slack: your app → Incoming Webhooks → Add New Webhook. Copy its URL."
    fields = (
        Field(
            "url", "Webhook URL", required=True, secret=True, pattern=URL, example="https://hooks.slack.com/services/…"
        ),
        CA,
    )

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`."""
        mark = ":white_check_mark:" if message.resolved else _EMOJI.get(message.level, ":information_source:")
        lines = [f"• {_link(text, url)}" for text, url in shown_lines(message)] if message.count > 1 else []
        if more := left_out(message):
            lines.append(f"… and {more} more")
        blocks: list[dict[str, object]] = [_section(f"{mark} *{_link(message.title[:300], message.url)}*")]
        blocks += [_section(text) for text in _packed_sections(lines)]
        body = {"text": _plain(message.title), "blocks": blocks, "unfurl_links": False, "unfurl_media": False}
        answer = target.post(target.secret("url").reveal(), body=body)
        return Receipt(str(answer.status), answer.text)


def _section(text: str) -> dict[str, object]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _packed_sections(lines: list[str]) -> list[str]:
    """The lines in as few sections as hold them; Slack takes 50 blocks."""
    sections = [""]
    for line in lines:
        if len(sections[-1]) + len(line) > _SECTION:
            sections.append("")
        sections[-1] += line + "\n"
    return [text for text in sections[:45] if text]


def _plain(text: str) -> str:
    """Slack's three control characters. With ``verbatim``, nothing else makes a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _link(text: str, url: str) -> str:
    # A backtick, star or underscore only changes how the text looks; "|" would end the address of a link.
    return f"<{url}|{_plain(text).replace('|', '¦')}>" if url else _plain(text)
