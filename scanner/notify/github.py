"""GitHub issues: one for each group of events, updated by comments, closed when the cause is gone.

https://docs.github.com/rest/issues/issues
"""

from __future__ import annotations

import hashlib
from typing import Any

from scanner.model.notification import Message
from scanner.notify._markdown import escaped, link
from scanner.notify.base import CA, URL, ChannelFormat, DeliveryError, Field, Receipt, Target, left_out, shown_lines


class GitHub(ChannelFormat):
    """See `ChannelFormat`."""

    id = "github"
    title = "GitHub issues"
    purpose = "an issue for each group of events; it is closed when the cause is gone"
    setup = "GitHub: a fine-grained token with *Issues: read and write* on the repository."
    fields = (
        Field("repository", "Repository", required=True, pattern=r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+", example="shop/cart"),
        Field("token", "Token", required=True, secret=True),
        Field("labels", "More labels", example="security", hint="separated by commas"),
        Field("url", "API address", pattern=URL, default="https://api.github.com"),
        CA,
    )

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`.

        The issue is found by a label of the group. We store no number: a process that is killed after it created the
        issue would not know it, and would create a second one.
        """
        base = f"{target.value('url', self.fields[3].default).rstrip('/')}/repos/{target.value('repository')}/issues"
        headers = {
            "Authorization": f"Bearer {target.secret('token').reveal()}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        mark = "dockwarden-" + hashlib.sha256(message.group.encode()).hexdigest()[:16]
        found = target.request("GET", f"{base}?state=all&per_page=1&labels={mark}", headers=headers).document()
        issue = found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else None
        if issue is None:
            if message.resolved:
                return Receipt("200", "there is no issue to close")
            labels = ["dockwarden", mark, *(one.strip() for one in target.value("labels").split(",") if one.strip())]
            body = {"title": message.title[:250], "body": text_of(message), "labels": labels}
            return _receipt(target.post(base, body=body, headers=headers).document(), "created")
        where = f"{base}/{_number(issue)}"
        # At-least-once delivery: after a kill between comment and record the same message comes again, and must not
        # be written twice.
        if f"<!-- {message.id} -->" not in f"{issue.get('body')}{_comments(target, where, headers)}":
            target.post(f"{where}/comments", body={"body": text_of(message)}, headers=headers)
        state = "closed" if message.resolved else "open"
        if issue.get("state") != state:
            target.request("PATCH", where, body={"state": state}, headers=headers)
        return _receipt(issue, "closed" if message.resolved else "updated")


def _comments(target: Target, where: str, headers: dict[str, str]) -> str:
    """The newest comments: whether this message is among them already."""
    answer = target.request("GET", f"{where}/comments?per_page=20&sort=created&direction=desc", headers=headers)
    return answer.body.decode("utf-8", "replace")


def _number(issue: Any) -> int:
    number = issue.get("number") if isinstance(issue, dict) else None
    if not isinstance(number, int):
        raise DeliveryError("the answer names no issue", reason="bad_answer")
    return number


def _receipt(issue: Any, what: str) -> Receipt:
    return Receipt("200", f"issue #{_number(issue)} {what}")


def text_of(message: Message) -> str:
    """The issue's or comment's text. The hidden id tells a repeated message."""
    lines = [f"- {link(line, url)}" for line, url in shown_lines(message)]
    if more := left_out(message):
        lines.append(f"- and {more} more")
    head = "No longer so: " if message.resolved else ""
    foot = [f"[Open in Dockwarden]({message.url})", ""] if message.url else []
    return "\n".join([f"{head}{escaped(message.title)}", "", *lines, "", *foot, f"<!-- {message.id} -->"])[:60000]
