"""Jira issues: one for each group of events, updated by comments, closed when the cause is gone.

https://developer.atlassian.com/cloud/jira/platform/rest/v2/
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from scanner.model.notification import Message
from scanner.notify.base import CA, URL, ChannelFormat, DeliveryError, Field, Receipt, Target, left_out, shown_lines


class Jira(ChannelFormat):
    """See `ChannelFormat`."""

    id = "jira"
    title = "Jira"
    purpose = "an issue for each group of events; it is closed when the cause is gone"
    setup = "Cloud: e-mail address and API token. Data Center: a personal access token, without a user name."
    fields = (
        Field("url", "Address", required=True, pattern=URL, example="https://example.atlassian.net"),
        Field("project", "Project key", required=True, pattern=r"[A-Z][A-Z0-9_]{1,60}", example="SEC"),
        Field("issue_type", "Issue type", default="Task", pattern=r"[^\"\\]{1,60}"),
        Field("username", "E-mail address", example="robot@example.com", hint="empty: the token is a bearer token"),
        Field("token", "Token", required=True, secret=True),
        CA,
    )

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`. The issue is found by a label of the group, as in the channel for GitHub."""
        api = f"{target.value('url').rstrip('/')}/rest/api/2"
        headers = _headers(target)
        mark = "dockwarden-" + hashlib.sha256(message.group.encode()).hexdigest()[:16]
        issue = _find(target, api, headers, mark)
        if issue is not None and _is_done(issue) and not message.resolved and not _reopen(target, api, headers, issue):
            issue = None
        if issue is None:
            if message.resolved:
                return Receipt("200", "there is no issue to close")
            fields = {
                "project": {"key": target.value("project")},
                "issuetype": {"name": target.value("issue_type", "Task")},
                "summary": re.sub(r"\s+", " ", message.title)[:250],
                "description": text_of(message),
                "labels": ["dockwarden", mark],
            }
            created = target.post(f"{api}/issue", body={"fields": fields}, headers=headers).document()
            return Receipt("201", f"issue {_key(created)} created")
        key = _key(issue)
        said = target.request("GET", f"{api}/issue/{key}/comment?maxResults=20&orderBy=-created", headers=headers)
        if message.id.encode() not in said.body and message.id not in str(issue):
            target.post(f"{api}/issue/{key}/comment", body={"body": text_of(message)}, headers=headers)
        if message.resolved and not _is_done(issue) and not _move(target, api, headers, key, ("done",)):
            return Receipt("200", f"issue {key} updated; its workflow offers no way to close it")
        return Receipt("200", f"issue {key} {'closed' if message.resolved else 'updated'}")


def _headers(target: Target) -> Mapping[str, str]:
    token = target.secret("token").reveal()
    if user := target.value("username"):
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()}
    return {"Authorization": f"Bearer {token}"}


def _find(target: Target, api: str, headers: Mapping[str, str], mark: str) -> Any:
    """The newest issue of the group. Cloud answers at ``search/jql``, Data Center at ``search``."""
    jql = quote(f'project = "{target.value("project")}" AND labels = "{mark}" ORDER BY created DESC')
    query = f"jql={jql}&maxResults=1&fields=status,description"
    answer = target.request("GET", f"{api}/search/jql?{query}", headers=headers, accept=(404, 405))
    if answer.status in (404, 405):
        answer = target.request("GET", f"{api}/search?{query}", headers=headers)
    document = answer.document()
    issues = document.get("issues") if isinstance(document, dict) else None
    return issues[0] if isinstance(issues, list) and issues else None


def _is_done(issue: Any) -> bool:
    try:
        return bool(issue["fields"]["status"]["statusCategory"]["key"] == "done")
    except (KeyError, TypeError):
        return False


def _reopen(target: Target, api: str, headers: Mapping[str, str], issue: Any) -> bool:
    return _move(target, api, headers, _key(issue), ("new", "indeterminate"))


def _move(target: Target, api: str, headers: Mapping[str, str], key: str, categories: tuple[str, ...]) -> bool:
    """Take the first transition to a status of these categories. False: the workflow offers none."""
    document = target.request("GET", f"{api}/issue/{key}/transitions", headers=headers).document()
    offered = document.get("transitions") if isinstance(document, dict) else None
    for one in offered if isinstance(offered, list) else []:
        try:
            category, number = one["to"]["statusCategory"]["key"], str(one["id"])
        except (KeyError, TypeError):
            continue
        if category in categories:
            target.post(f"{api}/issue/{key}/transitions", body={"transition": {"id": number}}, headers=headers)
            return True
    return False


def _key(issue: Any) -> str:
    key = issue.get("key") if isinstance(issue, dict) else None
    if not isinstance(key, str) or not re.fullmatch(r"[A-Z][A-Z0-9_]*-[0-9]+", key):  # it goes into an address
        raise DeliveryError("the answer names no issue", reason="bad_answer")
    return key


def text_of(message: Message) -> str:
    """The description's or comment's text, in Jira's wiki markup. The id tells a repeated message."""
    lines = [f"* [{_escaped(line)}|{url}]" if url else f"* {_escaped(line)}" for line, url in shown_lines(message)]
    if more := left_out(message):
        lines.append(f"* and {more} more")
    head = "No longer so: " if message.resolved else ""
    foot = [f"[Open in Dockwarden|{message.url}]", ""] if message.url else []
    return "\n".join([f"{head}{_escaped(message.title)}", "", *lines, "", *foot, f"Dockwarden {message.id}"])[:30000]


def _escaped(text: str) -> str:
    return re.sub(r"([\\{}\[\]*_^~+|!#@-])", r"\\\1", text)
