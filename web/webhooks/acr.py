"""Azure Container Registry: one Distribution event in a delivery, with headers that the operator chooses.

https://learn.microsoft.com/azure/container-registry/container-registry-webhook-reference
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from web.webhooks._notifications import notification
from web.webhooks.base import HeaderSecret, PushEvent, UnreadableEvent, each, envelope


class Acr(HeaderSecret):
    id = "acr"
    title = "Azure Container Registry"
    senders = "Azure Container Registry"
    setup = (
        "Create the webhook with the Azure command line. REGISTRY is the registry's name. If it quarantines images, "
        "give the account that Dockwarden pulls with the role AcrQuarantineReader."
    )
    snippet = """\
az acr webhook create --registry REGISTRY --name dockwarden --actions push quarantine \\
  --uri "<url>" --headers "<header>=<secret>"
az acr webhook ping --registry REGISTRY --name dockwarden
"""

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`. A ping already has the action `ping`."""
        return each([envelope(body, "action")], _event)


def _event(document: dict[str, Any]) -> PushEvent:
    """Parse an event. A registry that quarantines images reports a push as ``quarantine``, so that it is scanned."""
    event = notification(document)
    return replace(event, action="push") if event.action == "quarantine" else event
