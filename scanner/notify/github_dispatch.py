"""GitHub dispatch: an event of a repository, which starts its workflows.

https://docs.github.com/rest/repos/repos#create-a-repository-dispatch-event
"""

from __future__ import annotations

import json
from typing import Any

from scanner.model.notification import Message
from scanner.notify.base import CA, URL, ChannelFormat, Field, Receipt, Target, as_document

_MOST = 60_000  # GitHub takes 65,535 characters of ``client_payload`` with at most 10 properties


class GitHubDispatch(ChannelFormat):
    """See `ChannelFormat`."""

    id = "github-dispatch"
    title = "GitHub dispatch"
    purpose = "starts workflows with `on: repository_dispatch`, for example a rebuild when a base is newer"
    setup = "GitHub: a fine-grained token with *Contents: read and write* on the repository."
    fields = (
        Field("repository", "Repository", required=True, pattern=r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+", example="shop/cart"),
        Field("token", "Token", required=True, secret=True),
        Field("event_type", "Event type", default="dockwarden", pattern=r"[A-Za-z0-9._-]{1,100}"),
        Field("url", "API address", pattern=URL, default="https://api.github.com"),
        CA,
    )

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`. A message that something is over starts nothing."""
        if message.resolved:
            return Receipt("200", "nothing to start: it is resolved")
        base = target.value("url", self.fields[3].default).rstrip("/")
        body = {"event_type": target.value("event_type", "dockwarden"), "client_payload": payload_of(message)}
        headers = {
            "Authorization": f"Bearer {target.secret('token').reveal()}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        answer = target.post(f"{base}/repos/{target.value('repository')}/dispatches", body=body, headers=headers)
        return Receipt(str(answer.status), "workflows started")


def payload_of(message: Message) -> dict[str, Any]:
    """The message within GitHub's limit: the last events are left out, then long lists in the data."""
    document = as_document(message)
    events, document["events"] = document["events"], []
    left = _MOST - len(json.dumps(document))
    for event in events:
        if len(json.dumps(event)) > left and not document["events"]:
            event["data"] = {name: value for name, value in event["data"].items() if not isinstance(value, list)}
        left -= len(json.dumps(event)) + 2
        if left < 0:
            break
        document["events"].append(event)
    return document
