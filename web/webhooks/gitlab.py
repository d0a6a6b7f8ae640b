"""GitLab's container registry: CNCF Distribution's notifications, configured in ``gitlab.rb``.

https://docs.gitlab.com/administration/packages/container_registry/#configure-container-registry-notifications
"""

from __future__ import annotations

from collections.abc import Sequence

from web.webhooks._notifications import MEDIA_TYPES, notifications
from web.webhooks.base import LARGEST_EVENT, HeaderSecret, PushEvent, UnreadableEvent


class Gitlab(HeaderSecret):
    id = "gitlab"
    title = "GitLab container registry"
    senders = "self-managed GitLab"
    setup = "Put this into /etc/gitlab/gitlab.rb and run gitlab-ctl reconfigure."
    snippet = """\
registry['notifications'] = [
  {
    'name' => 'dockwarden',
    'url' => '<url>',
    'timeout' => '2s',
    'threshold' => 5,
    'backoff' => '10s',
    'headers' => { '<header>' => ['<secret>'] }
  }
]
"""
    media_types = MEDIA_TYPES
    body_limit = LARGEST_EVENT

    def parse(self, body: bytes) -> Sequence[PushEvent | UnreadableEvent]:
        """See `WebhookFormat.parse`."""
        return notifications(body)
