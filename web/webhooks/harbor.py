"""Harbor: its default payload and its CloudEvents.

https://goharbor.io/docs/main/working-with-projects/project-configuration/configure-webhooks/ and Harbor's
``src/pkg/notifier/formats``. Harbor sends its "Auth Header" as ``Authorization``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scanner.errors import UsageError
from web.webhooks.base import (
    HeaderSecret,
    PushEvent,
    UnreadableEvent,
    child,
    each,
    envelope,
    number,
    split_image,
    tag_and_digest,
    text,
)

_ACTIONS = {"PUSH_ARTIFACT": "push", "harbor.artifact.pushed": "push"}


class Harbor(HeaderSecret):
    id = "harbor"
    title = "Harbor"
    senders = "Harbor 2"
    setup = (
        "In the project, under Webhooks, add a webhook: notify type http, payload format Default or CloudEvents, "
        "event type Artifact pushed. Fill in the fields with these values."
    )
    snippet = """\
Endpoint URL: <url>
Auth Header: <secret>
"""
    media_types = ("application/json", "application/cloudevents+json")

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`."""
        document = envelope(body, "type")
        if "specversion" in document:
            name, moment, data = document["type"], document.get("id"), document.get("data")
        elif "event_data" in document:
            name, moment, data = document["type"], document.get("occur_at"), document["event_data"]
        else:
            raise UsageError("expected a Harbor event or a CloudEvent", reason="invalid")
        if not isinstance(name, str) or name not in _ACTIONS:  # events of scans, quotas and replications are not pushes
            return each([name], lambda one: PushEvent("", "", action=text(one, "type")))
        resources = data.get("resources") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(resources, list):
            return [UnreadableEvent("the event has no list of resources")]
        return each(resources, lambda resource: _event(resource, data, moment))


def _event(resource: Any, data: dict[str, Any], moment: Any) -> PushEvent:
    """Parse one resource. If an artifact has no tag, Harbor writes the digest as its tag."""
    if not isinstance(resource, dict):
        raise UsageError("a resource is not an object", reason="invalid")
    host = split_image(text(resource.get("resource_url"), "resource_url"), "resource_url")[0]
    tag, _ = tag_and_digest(text(resource.get("tag"), "tag"))
    repository = text(child(data, "repository").get("repo_full_name"), "repo_full_name")
    return PushEvent(host, repository, tag, text(resource.get("digest"), "digest"), id=number(moment, "occur_at"))
